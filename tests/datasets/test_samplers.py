"""Samplers: what they promise of every epoch and batch, for open-ended data."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from datasets.base import Sample, merge_sources
from datasets.samplers import (
    SAMPLERS,
    RandomDomainSampler,
    RandomIdentitySampler,
    RandomSampler,
    SamplerOptions,
    SequentialSampler,
)
from utils.errors import UserError


def make_samples(images_per_pid: list[int], num_cams: int = 3) -> list[Sample]:
    pids = [pid for pid, count in enumerate(images_per_pid) for _ in range(count)]
    return [Sample(f"{i}.jpg", pid, i % num_cams) for i, pid in enumerate(pids)]


def two_sources() -> list[Sample]:
    return merge_sources([make_samples([5, 6, 7], 3), make_samples([4, 9], 2)])


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_an_epoch_depends_on_the_seed_and_the_epoch_alone(name: str) -> None:
    samples = make_samples([7, 9, 5, 12, 8])

    def draw(seed: int, epoch: int) -> np.ndarray:
        return SAMPLERS[name](samples, SamplerOptions(seed, 6, 3, 3, 1)).indices(epoch)

    first = draw(1, 4)
    np.testing.assert_array_equal(first, draw(1, 4))
    assert first.dtype == np.int64
    assert len(first) == len(SAMPLERS[name](samples, SamplerOptions(1, 6, 3, 3, 1))) > 0
    assert set(first) <= set(range(len(samples)))
    if name != "SequentialSampler":
        assert not np.array_equal(first, draw(1, 5))
        assert not np.array_equal(first, draw(2, 4))


def test_random_and_sequential_show_every_image_once() -> None:
    samples = make_samples([5, 4])

    assert sorted(RandomSampler(samples, 0).indices(3)) == list(range(9))
    assert SequentialSampler(samples).indices(3).tolist() == list(range(9))


identity_settings = st.tuples(
    st.lists(st.integers(1, 14), min_size=2, max_size=12), st.integers(2, 5), st.integers(2, 6), st.integers(0, 99)
).filter(lambda s: len(s[0]) >= s[2])


@given(identity_settings)
def test_identity_batches_hold_p_identities_with_k_images(drawn: tuple[list[int], int, int, int]) -> None:
    counts, num_instances, num_pids, epoch = drawn
    samples = make_samples(counts)
    sampler = RandomIdentitySampler(samples, 0, num_instances * num_pids, num_instances)
    order = sampler.indices(epoch)

    assert len(order) == len(sampler)
    for batch in order.reshape(-1, num_pids, num_instances):
        pids = [{samples[i].pid for i in group} for group in batch]
        assert all(len(group) == 1 for group in pids)
        assert len(set.union(*pids)) == num_pids
    shown = Counter(order.tolist())
    assert all(times == 1 for i, times in shown.items() if counts[samples[i].pid] >= num_instances)


@given(identity_settings)
@settings(max_examples=50)
def test_identity_epochs_are_as_long_as_can_be(drawn: tuple[list[int], int, int, int]) -> None:
    """Against greedy scheduling (always the identities with most groups left), which is optimal."""
    counts, num_instances, num_pids, _ = drawn
    left = sorted(max(1, count // num_instances) for count in counts)
    batches = 0
    while left[-num_pids] > 0:
        left = sorted(left[:-num_pids] + [groups - 1 for groups in left[-num_pids:]])
        batches += 1

    sampler = RandomIdentitySampler(make_samples(counts), 0, num_instances * num_pids, num_instances)

    assert len(sampler) == batches * num_pids * num_instances


def test_identity_sampler_leaves_nobody_out_for_long() -> None:
    samples = make_samples([1, 2, 5, 30, 30, 30])
    sampler = RandomIdentitySampler(samples, 0, 8, 4)

    shown = Counter(samples[i].pid for epoch in range(30) for i in sampler.indices(epoch))

    assert set(shown) == set(range(6))
    assert {i for epoch in range(30) for i in sampler.indices(epoch)} == set(range(len(samples)))


domain_settings = st.tuples(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 6))


@given(domain_settings, st.integers(0, 99))
def test_domain_batches_are_shared_equally(drawn: tuple[list[int], int, int], epoch: int) -> None:
    counts, share, num_domains = drawn
    num_domains = min(num_domains, len(counts))
    domains = [domain for domain, count in enumerate(counts) for _ in range(count)]
    sampler = RandomDomainSampler(domains, 0, share * num_domains, num_domains, "cams")
    order = sampler.indices(epoch)

    assert len(order) == len(sampler) == len(domains) // (share * num_domains) * share * num_domains
    for batch in order.reshape(-1, share * num_domains):
        assert sorted(Counter(domains[i] for i in batch).values()) == [share] * num_domains
    for domain in range(len(counts)):
        times = Counter(i for i in order.tolist() if domains[i] == domain)
        assert max(times.values(), default=0) - min(times[i] for i in range(len(domains)) if domains[i] == domain) <= 1


def test_domains_are_drawn_equally_often() -> None:
    domains = [0] * 300 + [1] * 20 + [2] * 100 + [3] * 180
    sampler = RandomDomainSampler(domains, 0, 6, 2, "cams")

    shown = Counter(domains[i] for epoch in range(10) for i in sampler.indices(epoch))

    # batches are the independent draws, 3 images each
    assert stats.chisquare([shown[d] / 3 for d in range(4)]).pvalue > 0.01


def test_zero_domains_stand_for_all() -> None:
    samples = two_sources()
    options = SamplerOptions(0, 10, 2, 0, 0)

    cams = SAMPLERS["RandomDomainSampler"](samples, options).indices(0)[:10]
    sources = SAMPLERS["RandomDatasetSampler"](samples, options).indices(0)[:10]

    assert Counter(samples[i].camid for i in cams) == dict.fromkeys(range(5), 2)
    assert Counter(samples[i].dataset for i in sources) == {0: 5, 1: 5}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RandomIdentitySampler", (9, 4, 1, 1), "batch_size 9 .* multiple of 4"),
        ("RandomIdentitySampler", (4, 4, 1, 1), "at least 8"),
        ("RandomIdentitySampler", (24, 4, 1, 1), "6 identities per batch, the training data has 5"),
        ("RandomIdentitySampler", (8, 1, 1, 1), "num_instances 1: .* at least 2"),
        ("RandomDomainSampler", (12, 4, 6, 1), "num_cams 6: the training data has 5"),
        ("RandomDomainSampler", (12, 4, 5, 1), "batch_size 12 cannot be shared equally by 5 cams"),
        ("RandomDatasetSampler", (12, 4, 1, 3), "num_datasets 3: the training data has 2"),
        ("RandomDatasetSampler", (9, 4, 1, 0), "batch_size 9 cannot be shared equally by 2 datasets"),
    ],
)
def test_impossible_settings_are_refused(name: str, options: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SAMPLERS[name](two_sources(), SamplerOptions(0, *options))

    assert "\n" not in str(caught.value)
