"""Splits drawn at random: the rule, that they are shared, and what happens to a file of splits that does not fit."""

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets import DATASETS
from datasets.base import ReadOptions, Sample, Splits
from datasets.random_splits import SPLITS_FILE, draw_halves, shuffled
from utils import files
from utils.errors import UserError

NUM_SPLITS = {"cuhk01": 20, "viper": 20, "prid": 10, "ilids": 10}


def make_tree(root: Path, name: str, num_people: int = 9) -> Path:
    """Makes images of people 1 … num_people; returns the folder that the splits are written to."""
    images = []
    for pid in range(1, num_people + 1):
        if name == "cuhk01":
            images += [f"cuhk01/campus/{pid:04}{number:03}.png" for number in (1, 2, 3, 4)]
        elif name == "viper":
            images += [f"viper/VIPeR/{camera}/{pid:03}_45.bmp" for camera in ("cam_a", "cam_b")]
        elif name == "prid":
            images += [f"prid2011/prid_2011/single_shot/{c}/person_{pid:04}.png" for c in ("cam_a", "cam_b")]
        else:
            images += [f"ilids/i-LIDS_Pedestrian/Persons/{pid:04}{number:03}.jpg" for number in range(1, 3 + pid % 4)]
    if name == "prid":
        images += [f"prid2011/prid_2011/single_shot/cam_b/person_{pid:04}.png" for pid in (201, 300, 749)]
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    return root / images[0].split("/")[0]


def read(root: Path, name: str, split_id: int = 0) -> Splits:
    return DATASETS[name](root, ReadOptions(split_id=split_id))


def relative(root: Path, splits: Splits) -> list[list[tuple[str, int, int]]]:
    """Splits without the place where the data lies."""
    parts = (splits.train, splits.query, splits.gallery)
    return [[(s.path.removeprefix(str(root)), s.pid, s.camid) for s in part] for part in parts]


def pids(samples: object) -> set[int]:
    assert isinstance(samples, list)
    return {s.pid for s in samples if isinstance(s, Sample)}


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_halves_of_the_people(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    for split_id in range(NUM_SPLITS[name]):
        splits = read(tmp_path, name, split_id)
        train, query, gallery = pids(splits.train), pids(splits.query), pids(splits.gallery) - splits.distractor_pids
        assert (len(train), len(query)) == (4, 5)  # nine people: half of them rounded down, and the rest
        assert query == gallery == set(range(1, 10)) - train


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_splits_differ(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name, num_people=30)
    drawn = [relative(tmp_path, read(tmp_path, name, split_id)) for split_id in range(NUM_SPLITS[name])]
    assert all(a != b for position, a in enumerate(drawn) for b in drawn[:position])


@pytest.mark.parametrize("name", ["cuhk01", "viper"])
def test_both_cameras_ask(name: str, tmp_path: Path) -> None:
    """Splits 2d and 2d + 1 are the same people with query and gallery exchanged."""
    make_tree(tmp_path, name)
    for draw in range(10):
        forth, back = (read(tmp_path, name, 2 * draw + direction) for direction in (0, 1))
        assert forth.train == back.train
        assert (forth.query, forth.gallery) == (back.gallery, back.query)
        assert {s.camid for s in forth.query} == {0}
        assert {s.camid for s in forth.gallery} == {1}


def test_prid_keeps_distractors_in_every_gallery(tmp_path: Path) -> None:
    make_tree(tmp_path, "prid")
    for split_id in range(10):
        splits = read(tmp_path, "prid", split_id)
        assert splits.distractor_pids == {201, 300, 749} <= pids(splits.gallery)
        assert not splits.distractor_pids & (pids(splits.train) | pids(splits.query))
        assert {s.camid for s in splits.query} == {0}


def test_ilids_takes_one_image_for_each_side(tmp_path: Path) -> None:
    make_tree(tmp_path, "ilids")
    for split_id in range(10):
        splits = read(tmp_path, "ilids", split_id)
        assert len(splits.query) == len(splits.gallery) == 5
        assert not {s.path for s in splits.query} & {s.path for s in splits.gallery}
        assert len(splits.train) == sum(2 + pid % 4 for pid in pids(splits.train))  # all images of each


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
@pytest.mark.parametrize("excess", [0, 7])
def test_split_id_out_of_range(name: str, excess: int, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    last = NUM_SPLITS[name] - 1
    read(tmp_path, name, last)
    for split_id in (NUM_SPLITS[name] + excess, -1):
        with pytest.raises(UserError, match=f"split_id is {split_id}, but .* has splits 0 to {last}"):
            read(tmp_path, name, split_id)


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_same_on_every_machine(name: str, tmp_path: Path) -> None:
    """Elsewhere, and with the files made in another order."""
    make_tree(tmp_path / "one", name)
    make_tree(tmp_path / "two", name, num_people=1)
    make_tree(tmp_path / "two", name)
    for split_id in (0, 7):
        first = relative(tmp_path / "one", read(tmp_path / "one", name, split_id))
        assert first == relative(tmp_path / "two", read(tmp_path / "two", name, split_id))


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_the_file_is_what_counts(name: str, tmp_path: Path) -> None:
    """A later version that would draw otherwise still uses the splits beside the data."""
    file = make_tree(tmp_path, name) / SPLITS_FILE
    before = relative(tmp_path, read(tmp_path, name, 0))
    content = json.loads(file.read_text())
    content["splits"] = content["splits"][::-1]
    file.write_text(json.dumps(content))
    last = NUM_SPLITS[name] - (2 if NUM_SPLITS[name] == 20 else 1)
    assert relative(tmp_path, read(tmp_path, name, last)) == before
    assert relative(tmp_path, read(tmp_path, name, 0)) != before


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_read_only_folder_gives_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tree(tmp_path, name)
    written = relative(tmp_path, read(tmp_path, name, 3))
    (folder / SPLITS_FILE).unlink()

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with caplog.at_level(logging.INFO):
        assert relative(tmp_path, read(tmp_path, name, 3)) == written
    assert not (folder / SPLITS_FILE).exists()
    assert "drawn again" in caplog.text


def _drop_person(content: dict[str, list[dict[str, list[str]]]]) -> str:
    content["splits"][0]["train"].pop()
    return json.dumps(content)


def _add_person(content: dict[str, list[dict[str, list[str]]]]) -> str:
    content["splits"][9]["train"].append("4711")
    return json.dumps(content)


def _put_test_into_train(content: dict[str, list[dict[str, list[str]]]]) -> str:
    split = content["splits"][4]
    split["train"] += split.get("test", []) + split.get("query", [])
    return json.dumps(content)


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop_person, "does not fit"),
        (_add_person, "split 9 in .* does not fit"),
        (_put_test_into_train, "split 4 in .* does not fit"),
        (lambda _: "{", "is not a random splits file"),
        (lambda _: "[]", "holds no list of splits"),
        (lambda _: '{"splits": []}', "holds no list of splits"),
        (lambda _: '{"splits": [{"train": [1]}]}', "split 0 in .* does not fit"),
        (lambda _: '{"splits": [3]}', "split 0 in .* does not fit"),
    ],
)
def test_a_file_that_does_not_fit(
    name: str, spoil: Callable[[dict[str, list[dict[str, list[str]]]]], str], message: str, tmp_path: Path
) -> None:
    file = make_tree(tmp_path, name) / SPLITS_FILE
    read(tmp_path, name)
    if name == "ilids" and spoil is _drop_person:  # of a training person any images will do, but not none
        content = json.loads(file.read_text())
        person = content["splits"][0]["train"][0][:4]
        content["splits"][0]["train"] = [i for i in content["splits"][0]["train"] if i[:4] != person]
        file.write_text(json.dumps(content))
    else:
        file.write_text(spoil(json.loads(file.read_text())))
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, name)
    assert str(file) in str(caught.value)
    assert "delete it" in str(caught.value)


def test_an_image_more_does_not_fit_the_old_splits(tmp_path: Path) -> None:
    make_tree(tmp_path, "viper", num_people=8)
    read(tmp_path, "viper")
    make_tree(tmp_path, "viper", num_people=9)
    with pytest.raises(UserError, match="does not fit the images"):
        read(tmp_path, "viper")


def test_shuffled_sorts_by_the_promised_stream() -> None:
    """random() of seed 0 gives 0.844, 0.758, 0.421, 0.259, 0.511, as in every version of Python."""
    assert shuffled(["a", "b", "c", "d", "e"], random.Random(0)) == ["d", "c", "e", "b", "a"]


def test_draw_halves_is_what_it_always_was() -> None:
    draws = draw_halves(["1", "2", "3", "4", "5"])
    assert len(draws) == 10
    assert draws[0] == {"train": ["3", "4"], "test": ["1", "2", "5"]}


def test_viper_person_in_one_camera(tmp_path: Path) -> None:
    folder = make_tree(tmp_path, "viper")
    (folder / "VIPeR" / "cam_b" / "004_45.bmp").unlink()
    with pytest.raises(UserError, match="person 004"):
        read(tmp_path, "viper")


def test_prid_person_in_one_camera(tmp_path: Path) -> None:
    make_tree(tmp_path, "prid")
    (tmp_path / "prid2011/prid_2011/single_shot/cam_a/person_0003.png").unlink()
    with pytest.raises(UserError, match="person_0003"):
        read(tmp_path, "prid")


def test_ilids_person_with_one_image(tmp_path: Path) -> None:
    make_tree(tmp_path, "ilids")
    (tmp_path / "ilids/i-LIDS_Pedestrian/Persons/0077001.jpg").touch()
    with pytest.raises(UserError, match="person 0077"):
        read(tmp_path, "ilids")


@pytest.mark.parametrize("name", sorted(NUM_SPLITS))
def test_one_person_cannot_be_split(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name, num_people=1)
    with pytest.raises(UserError, match="needs two"):
        read(tmp_path, name)
