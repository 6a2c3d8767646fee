"""Ranked lists of single queries and the histogram of distances, against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.histogram import NUM_BINS, DistanceHistogram
from utils.match_ranks import MatchRules
from utils.ranked_lists import TopLists, choose_queries, find_nearest, watch_blocks
from utils.ranking import evaluate_distmat


def make_ranking(seed=0, num_query=23, num_gallery=61, levels=20):
    """Distances with many ties, junk, same-camera images, and a query (the last) without any match."""
    rng = np.random.default_rng(seed)
    distmat = (rng.integers(0, levels, (num_query, num_gallery)) / levels).astype(np.float32)
    query_pids, gallery_pids = rng.integers(1, 7, num_query), rng.integers(-1, 7, num_gallery)
    query_pids[-1] = 99
    return distmat, (query_pids, gallery_pids, rng.integers(0, 3, num_query), rng.integers(0, 3, num_gallery))


def watch(distmat, labels, topk, rows=7):
    lists, histogram = TopLists(len(distmat), topk), DistanceHistogram()
    blocks = list(watch_blocks(torch.from_numpy(distmat).split(rows), MatchRules(*labels), lists, histogram))
    return lists, histogram, torch.cat(blocks).numpy()


def sort_by_hand(row, query, labels):
    """Gallery indices that count for a query, nearest first, ties in the gallery's order."""
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    counts = [
        i
        for i in range(len(row))
        if gallery_pids[i] != -1
        and not (gallery_pids[i] == query_pids[query] and gallery_camids[i] == query_camids[query])
    ]
    return sorted(counts, key=lambda i: (row[i], i))


@pytest.mark.parametrize("topk", [1, 10, 100])
@pytest.mark.parametrize("seed", range(3))
def test_lists_are_those_of_a_sort(seed, topk):
    distmat, labels = make_ranking(seed)
    lists, _, _ = watch(distmat, labels, topk)
    for query, row in enumerate(distmat[:-1]):
        order = sort_by_hand(row, query, labels)
        matches = [rank for rank, i in enumerate(order, start=1) if labels[1][i] == labels[0][query]]
        expected = order[:topk]
        assert lists.indices[query, : len(expected)].tolist() == expected
        assert (lists.indices[query, len(expected) :] == -1).all()
        np.testing.assert_array_equal(lists.distances[query, : len(expected)], row[expected])
        assert lists.first_rank[query] == matches[0]
        assert lists.first_match[query] == order[matches[0] - 1]
        assert lists.first_distance[query] == row[order[matches[0] - 1]]
        assert lists.num_matches[query] == len(matches)


def test_query_without_match_has_no_list():
    distmat, labels = make_ranking()
    lists, _, _ = watch(distmat, labels, 5)
    assert (lists.indices[-1] == -1).all()
    assert lists.first_rank[-1] == 0


def test_watched_blocks_pass_unchanged_and_score_the_same():
    distmat, labels = make_ranking()
    _, _, passed = watch(distmat.copy(), labels, 5)
    np.testing.assert_array_equal(passed, distmat)
    assert evaluate_distmat(passed, *labels).mAP == evaluate_distmat(distmat, *labels).mAP


def test_nearest_skip_what_does_not_count():
    row = np.array([3, np.inf, 1, 1, np.inf, 0], dtype=np.float32)
    assert find_nearest(row, 2).tolist() == [5, 2]
    assert find_nearest(row, 5).tolist() == [5, 2, 3, 0]
    assert find_nearest(row, 6).tolist() == [5, 2, 3, 0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 777.0])
def test_histogram_counts_what_brute_force_counts(scale):
    distmat, labels = make_ranking(1, levels=1000)
    distmat *= np.float32(scale)
    _, histogram, _ = watch(distmat, labels, 1)
    same, other = [], []
    for query, row in enumerate(distmat[:-1]):
        for i in sort_by_hand(row, query, labels):
            (same if labels[1][i] == labels[0][query] else other).append(row[i])
    for counts, values in ((histogram.same, same), (histogram.other, other)):
        expected, _ = np.histogram(np.array(values, dtype=np.float64), histogram.edges())
        np.testing.assert_array_equal(counts, expected)
    assert histogram.limit / 4 <= distmat.max() < histogram.limit
    medians = [np.quantile(values, 0.5, method="inverted_cdf") for values in (same, other)]
    assert histogram.medians() == pytest.approx(medians, abs=0.5001 * histogram.limit / NUM_BINS)


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=6))
def test_histogram_does_not_depend_on_the_order_of_rows(rows):
    def count(ordered):
        histogram = DistanceHistogram()
        for row in ordered:
            histogram.add(np.array(row, dtype=np.float32), np.array([0]), np.array([3]))
        return histogram

    forwards, backwards = count(rows), count(rows[::-1])
    assert forwards.limit == backwards.limit
    np.testing.assert_array_equal(forwards.same, backwards.same)
    np.testing.assert_array_equal(forwards.other, backwards.other)
    assert (forwards.same.sum(), forwards.other.sum()) == (len(rows), 2 * len(rows))


def test_medians_of_nothing_are_nan():
    assert np.isnan(DistanceHistogram().medians()).all()


def test_chosen_queries_are_best_worst_and_random():
    precision = np.random.default_rng(0).permutation(40) / 40
    precision[[3, 7]] = np.nan
    chosen = choose_queries(precision, 5)
    ordered = np.sort(precision[~np.isnan(precision)])
    assert precision[chosen["best"]].tolist() == ordered[::-1][:5].tolist()
    assert precision[chosen["worst"]].tolist() == ordered[:5].tolist()
    assert len(set(chosen["random"].tolist())) == 5
    assert chosen["random"].tolist() == sorted(chosen["random"])
    assert not np.isnan(precision[chosen["random"]]).any()


def test_choice_depends_on_the_seed_alone():
    precision = np.ones(50)
    first, again, other = (choose_queries(precision, 8, seed) for seed in (0, 0, 1))
    for kind in ("best", "worst", "random"):
        assert first[kind].tolist() == again[kind].tolist()
    assert first["random"].tolist() != other["random"].tolist()
    assert sorted(first["best"]) != list(range(8))  # equal scores are not the first identity's alone


def test_few_queries_are_all_chosen():
    chosen = choose_queries(np.array([0.5, np.nan, 0.25]), 10)
    assert {kind: q.tolist() for kind, q in chosen.items()} == {"best": [0, 2], "worst": [2, 0], "random": [0, 2]}
