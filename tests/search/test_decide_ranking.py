"""The decision by a ranking: against plain loops, on simulated scores of known truth, and where blocks interact."""

import numpy as np
import pytest

from search import decide_ranking as module
from search.decide_ranking import answer_by_ranking, decide_by_ranking
from search.ranking import Ranking

GRID = np.array(list(np.ndindex(*[4] * 6)))


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(module, "NUM_DRAWS", 4000)
    monkeypatch.setattr(module, "NUM_DRAWS_OF_ALL", 200)


def simulate(rng, num_people, effects=0.0, spread=0.05, queries_each=1):
    """Average precisions (4096, Q) whose blocks add up: effects (6, 4) of the mean, others for each person."""
    of_person = np.asarray(effects)[..., None] + rng.normal(0, spread, (6, 4, num_people))
    ap = 0.5 + rng.normal(0, 0.2, num_people) + sum(of_person[b][GRID[:, b]] for b in range(6))
    return np.repeat(ap, queries_each, axis=1), np.repeat(np.arange(num_people) + 7, queries_each)


def number_of(digits):
    return int(digits, 4)


def test_values_are_the_means_of_the_sub_networks_with_a_candidate():
    rng = np.random.default_rng(0)
    ap = rng.random((4096, 12))
    decision = decide_by_ranking(ap, np.arange(12) // 2)
    scores = ap.mean(axis=1)
    for b, block in enumerate(decision.blocks):
        for k in range(4):
            rows = [i for i in range(4096) if int(np.base_repr(i, 4).zfill(6)[b]) == k]
            assert len(rows) == 1024
            assert block.values[k] == pytest.approx(scores[rows].mean() - scores.mean(), abs=1e-12)
        assert (block.low < block.values).all() and (block.values < block.high).all()
    assert number_of(decision.best) == scores.argmax()
    assert decision.num_people == 6


def test_places_are_half_of_the_sub_networks_against_the_other_half():
    rng = np.random.default_rng(9)
    ap = rng.random((4096, 12))
    places = decide_by_ranking(ap, np.arange(12) // 2).places
    scores = ap.mean(axis=1)
    for block in range(6):
        for side, place in enumerate(places[2 * block : 2 * block + 2]):
            has_in = (GRID[:, block] >> side & 1).astype(bool)
            assert place.value == pytest.approx(scores[has_in].mean() - scores[~has_in].mean(), abs=1e-12)
            assert place.low < place.value < place.high


def test_people_are_drawn_with_all_their_queries():
    """Twice as many queries of each person, all alike, tell nothing more."""
    once = decide_by_ranking(*simulate(np.random.default_rng(1), 20))
    twice = decide_by_ranking(*simulate(np.random.default_rng(1), 20, queries_each=2))
    for a, b in zip(once.blocks, twice.blocks, strict=True):
        np.testing.assert_allclose(a.low, b.low, atol=1e-12)
        np.testing.assert_allclose(a.share_beaten, b.share_beaten)
    assert once.not_worse.tolist() == twice.not_worse.tolist()


def test_clear_effects_are_decided():
    effects = np.zeros((6, 4))
    wanted = [2, 0, 1, 3, 1, 0]
    effects[range(6), wanted] = 0.2
    decision = decide_by_ranking(*simulate(np.random.default_rng(2), 30, effects))
    assert decision.digits == decision.composed == decision.best == "201310"
    assert all(block.is_decided for block in decision.blocks)
    assert decision.is_composed
    assert decision.places[1].is_decided and decision.places[1].value > 0  # IN outside conv2-1, candidates 2 and 3
    assert number_of("201310") in decision.not_worse
    assert len(decision.not_worse) < 100


def test_where_nothing_is_known_nothing_is_decided_and_the_best_on_average_is_the_answer():
    decision = decide_by_ranking(*simulate(np.random.default_rng(3), 30))
    assert decision.digits == decision.composed
    assert not any(block.is_decided for block in decision.blocks)
    for digit, block in zip(decision.digits, decision.blocks, strict=True):
        assert int(digit) == block.best == block.values.argmax()
        assert block.share_beaten[block.best] == 1


def test_what_is_ruled_out_is_named_where_nothing_is_decided():
    effects = np.zeros((6, 4))
    effects[4] = [-1, 0.05, 0.06, 0]
    ap, pids = simulate(np.random.default_rng(4), 30, effects, spread=0.1)
    answer = answer_by_ranking(Ranking(ap.astype(np.float32), pids), {})
    block = answer.blocks[4]
    assert not block.is_decided
    assert block.reason.endswith("of draws of people; ruled out: OSBlock")
    assert block.candidate != "OSBlock"


def test_where_blocks_interact_the_best_of_all_is_the_answer():
    """Candidates 1 in blocks 0 and 1 are good alone and ruin each other."""
    ap, pids = simulate(np.random.default_rng(5), 30, spread=0.001)
    first, second = GRID[:, 0] == 1, GRID[:, 1] == 1
    ap += (0.3 * (first ^ second) - 0.2 * (first & second))[:, None]
    decision = decide_by_ranking(ap, pids)
    assert decision.composed.startswith("11")
    assert not decision.is_composed
    assert decision.digits == decision.best
    assert decision.digits[:2] in ("10", "12", "13", "01", "21", "31")


def test_same_seed_same_decision():
    ap, pids = simulate(np.random.default_rng(6), 12)
    a, b = decide_by_ranking(ap, pids, 3), decide_by_ranking(ap, pids, 3)
    assert a.not_worse.tolist() == b.not_worse.tolist()
    assert [block.low.tolist() for block in a.blocks] == [block.low.tolist() for block in b.blocks]


@pytest.mark.parametrize("num_people", [10, 40])
@pytest.mark.parametrize("truth", [[0, 0, 0, 0], [0, 0, -0.3, -0.3]], ids=["all equal", "two ahead"])
def test_wrong_decisions_are_rare_and_intervals_cover(few_draws, num_people, truth):
    """Of 80 rankings in which no block is to be decided; the limits are 5 % plus twice the standard error."""
    rng = np.random.default_rng(7)
    wrong, wrong_places, covered = [], [], []
    different = {2 * block + 1 for block in range(6)} if truth[2] else set()  # without IN outside, 0 and 1 are ahead
    for seed in range(80):
        decision = decide_by_ranking(*simulate(rng, num_people, np.tile(truth, (6, 1))), seed)
        wrong.append(any(block.is_decided for block in decision.blocks))
        wrong_places.append(any(place.is_decided for i, place in enumerate(decision.places) if i not in different))
        values = np.array(truth) - np.mean(truth)
        covered += [((block.low <= values) & (values <= block.high)).mean() for block in decision.blocks]
    assert np.mean(wrong) <= 0.1
    assert np.mean(wrong_places) <= 0.1
    assert 0.92 <= np.mean(covered) <= 0.98


def test_truly_best_is_among_those_not_worse(few_draws):
    rng, found = np.random.default_rng(8), []
    effects = np.zeros((6, 4))
    effects[:, 1] = 0.02
    for seed in range(40):
        decision = decide_by_ranking(*simulate(rng, 25, effects), seed)
        found.append(number_of("111111") in decision.not_worse)
    assert np.mean(found) >= 0.88  # 95 % less twice the standard error
