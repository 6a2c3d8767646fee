"""How several data sets become one training set, and what is checked before a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.base import (
    Sample,
    Splits,
    check_protocol,
    check_split_id,
    check_training,
    merge_sources,
    training_samples,
)
from utils.errors import UserError


def test_merge_sources_labels_in_sorted_order_source_after_source() -> None:
    first = [Sample("a1", 30, 4), Sample("a2", 7, 2), Sample("a3", 30, 2)]
    second = [Sample("b1", 7, 4), Sample("b2", 9, 4)]
    assert merge_sources([first, second]) == [
        Sample("a1", 1, 1, 0),
        Sample("a2", 0, 0, 0),
        Sample("a3", 1, 0, 0),
        Sample("b1", 2, 2, 1),
        Sample("b2", 3, 2, 1),
    ]


def test_merge_sources_of_nothing_is_nothing() -> None:
    assert merge_sources([]) == []


def test_merge_sources_labels_do_not_depend_on_the_order_of_images() -> None:
    samples = [Sample("a", 5, 0), Sample("b", -3, 1), Sample("c", 99, 0)]
    forwards = {s.path: s.pid for s in merge_sources([samples])}
    assert forwards == {s.path: s.pid for s in merge_sources([samples[::-1]])} == {"a": 1, "b": 0, "c": 2}


_SAMPLES = st.lists(
    st.builds(Sample, st.text(max_size=3), st.integers(-5, 2000), st.integers(0, 20)), min_size=1, max_size=20
)


@given(st.lists(_SAMPLES, min_size=1, max_size=4))
def test_merge_sources_keeps_people_and_cameras_apart(sources: list[list[Sample]]) -> None:
    merged = merge_sources(sources)
    given_samples = [(position, s) for position, samples in enumerate(sources) for s in samples]
    assert [s.path for s in merged] == [s.path for _, s in given_samples]
    for field in ("pid", "camid"):
        pairs = {((p, getattr(s, field)), getattr(m, field)) for (p, s), m in zip(given_samples, merged, strict=True)}
        labels = sorted(label for _, label in pairs)
        assert labels == list(range(len({key for key, _ in pairs})))  # a number each, from 0, without a gap


SPLITS = Splits(
    train=[Sample("t", 1, 0)],
    query=[Sample("q", 2, 0)],
    gallery=[Sample("g", 2, 1), Sample("d", 0, 1), Sample("n", 3, 1)],
    extra_train=[Sample("v", 1, 1)],
    distractor_pids=frozenset({0}),
)


def test_training_samples_are_the_train_part() -> None:
    assert [s.path for s in training_samples(SPLITS, combineall=False)] == ["t"]


def test_combineall_adds_everything_but_distractors() -> None:
    assert [s.path for s in training_samples(SPLITS, combineall=True)] == ["t", "v", "q", "g", "n"]


def test_combineall_lists_an_image_of_query_and_gallery_once() -> None:
    both = [Sample("x", 2, 0), Sample("y", 2, 1)]
    samples = training_samples(Splits([Sample("t", 1, 0)], both, both), combineall=True)
    assert [s.path for s in samples] == ["t", "x", "y"]


def test_distractors_are_never_trained_on() -> None:
    splits = Splits([Sample("t", 1, 0), Sample("d", 0, 0)], [], [], distractor_pids=frozenset({0}))
    assert [s.path for s in training_samples(splits, combineall=False)] == ["t"]


def test_check_training_refuses_a_test_only_set() -> None:
    check_training("x", [Sample("t", 1, 0)])
    with pytest.raises(UserError, match="sensereid has no training images"):
        check_training("sensereid", [])


@pytest.mark.parametrize("split_id", [-1, 20, 100])
def test_check_split_id_names_the_range(split_id: int) -> None:
    check_split_id("viper", 0, 20)
    check_split_id("viper", 19, 20)
    with pytest.raises(UserError, match=f"split_id is {split_id}, but viper has splits 0 to 19"):
        check_split_id("viper", split_id, 20)


def test_check_protocol_accepts_one_answerable_query() -> None:
    check_protocol("x", [Sample("a", 1, 0), Sample("b", 2, 0)], [Sample("c", 1, 0), Sample("d", 2, 1)])


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ([], [Sample("g", 1, 0)], "0 query and 1 gallery images"),
        ([Sample("q", 1, 0)], [], "1 query and 0 gallery images"),
        ([Sample("q", 1, 0)], [Sample("g", 2, 1)], "share no identity"),
        ([Sample("q", 1, 0)], [Sample("g", 1, 0), Sample("h", 2, 1)], "under another camera"),
    ],
)
def test_check_protocol_refuses_what_has_no_answer(query: list[Sample], gallery: list[Sample], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_protocol("x", query, gallery)
