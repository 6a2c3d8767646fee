"""Studies of searches that ran, on simulated tables whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NUM_INS, Genotype
from search.answer import Answer, BlockAnswer, list_digits, write_ranking
from search.judge import Judge
from search.places import PLACE_NAMES, Place
from search.study_searches import FEWEST_NORMS, judge_fewest_norms, list_searches, study_searches
from search.table import UNSEEN
from tests.search.test_studies import EVERYTHING, simulate
from utils.errors import UserError

TRUTH = 0.1 * (EVERYTHING[:, 0] % 2) - 0.2 * (EVERYTHING[:, 5] > 1)  # what the simulated tables are made of
PLACES = {"conv2-1 inside": 0.1, "conv4-2 outside": -0.2}


def make_judge(table):
    return Judge(table, table.at(), UNSEEN)


def study_all(table, folder):
    return study_searches(table, make_judge(table), list_searches(folder))


def write_search(folder, scores, places=None):
    """Leaves what a search leaves: ``scores`` (4096,), and the places that it calls decided."""
    digits = "".join(map(str, EVERYTHING[scores.argmax()]))
    block = BlockAnswer("OSBlock", False, "simulated", np.zeros(4))
    decided = [Place(places.get(n, 0.0), 0.0, 0.0, n in places) for n in PLACE_NAMES] if places else ()
    genotype = Genotype.from_digits(digits)
    method, _, seed = folder.name.rpartition("-seed")
    answer = Answer(method, genotype, [block] * len(BLOCK_NAMES), "worth", scores, "score", [], {"image_passes": 500},
                    places=decided)  # fmt: skip
    folder.mkdir(parents=True)
    replace(genotype, found=answer.as_found({"seed": int(seed), "epochs": 40})).to_json(folder / "genotype.json")
    write_ranking(folder / "ranking.npz", scores)


def change_found(folder, change):
    path = folder / "genotype.json"
    genotype = Genotype.from_json(path)
    replace(genotype, found=change(genotype.found)).to_json(path)


def test_searches_that_ran(tmp_path):
    generator = np.random.default_rng(0)
    for seed in (1, 2, 3):
        write_search(tmp_path / f"good-seed{seed}", TRUTH + generator.normal(0, 1e-3, 4096), PLACES)
        write_search(tmp_path / f"bad-seed{seed}", -TRUTH, {"conv2-1 inside": -0.1, "conv4-2 inside": 0.1})
    write_search(tmp_path / "once-seed1", TRUTH)
    (tmp_path / "a note").write_text("no search")  # and none by its name
    table = simulate(0.02)
    found = {s.method: s for s in study_all(table, tmp_path)}
    good, bad, once = (found[name] for name in ("good", "bad", "once"))
    assert good.tau.mean > 0.6 and good.answers.predicted.value > 0.8 and good.regret.mean < 0.01 < bad.regret.mean
    assert good.tau.num == 3 and 0 < good.tau.half_width < 0.2
    over = good.tau_over_networks
    assert over.low < over.value < over.high and over.value == pytest.approx(good.tau.mean, abs=1e-3)
    assert bad.tau.mean < -0.5 and bad.answers.predicted.value < 0.1
    assert good.places == (6, 0, 0) and good.blocks == (0, 0, 0)
    assert bad.places == (0, 3, 3)  # the table does not decide conv4-2 inside
    assert np.isnan(once.tau.half_width) and once.places == (0, 0, 0)
    domains = {name: Judge(table, table.at(), name) for name in table.groups[UNSEEN]}
    assert once.by_domain == {name: judge.measure(TRUTH).tau for name, judge in domains.items()}
    assert (
        once.answers.image_passes == 500
        and once.first_round is None
        and once.above_paper is once.above_paper_over_seeds is None
    )


def test_scores_where_a_search_belongs_are_not_passed_over(tmp_path):
    (tmp_path / "mine-seed3.txt").write_text("000000 1\n")
    with pytest.raises(UserError, match=r"mine-seed3\.txt: expected is a folder METHOD-seedN"):
        list_searches(tmp_path)


def test_answers_that_were_not_trained(tmp_path):
    table = simulate(0.02)
    judge = make_judge(table)
    trained = {row.digits for row in table.rows}
    there = next(i for i, digits in enumerate(EVERYTHING) if "".join(map(str, digits)) in trained)
    away = next(i for i, digits in enumerate(EVERYTHING) if "".join(map(str, digits)) not in trained)
    answers = []
    for seed, number in enumerate((there, away, away), 1):
        ranking = np.linspace(0, 0.5, 4096)
        ranking[number] = 1
        write_search(tmp_path / f"mixed-seed{seed}", ranking)
        write_search(tmp_path / f"known-seed{seed}", np.where(np.arange(4096) == there, 1.0, 0.0))
        answers.append(judge.judge(ranking, "".join(map(str, EVERYTHING[number]))).answer)
    found = {s.method: s for s in study_all(table, tmp_path)}
    mixed, known = found["mixed"], found["known"]
    mixed, known = mixed.answers, known.answers
    assert (mixed.num_trained, known.num_trained) == (1, 3)
    shares = [judge.predict_share("".join(map(str, EVERYTHING[number]))) for number in (there, away, away)]
    for name in ("value", "low", "high"):
        assert getattr(mixed.predicted, name) == pytest.approx(np.mean([getattr(share, name) for share in shares]))
    assert known.predicted.value == pytest.approx(shares[0].value)
    assert mixed.trained == pytest.approx(known.trained) == pytest.approx(answers[0].percentile.value)
    assert shares[1].low < shares[1].value <= judge.predicted_shares[1] <= 1


def test_searches_together(tmp_path):
    """Two that err independently are better together than each, and answer with a network that neither has first."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, TRUTH.std(), (2, 4096))
    for seed in (1, 2):
        write_search(tmp_path / f"noisy-seed{seed}", TRUTH + noise[seed - 1])
    table = simulate()
    judge, found = make_judge(table), next(s for s in study_all(table, tmp_path))
    taus = [judge.measure(TRUTH + n).tau for n in noise]
    together, ranks = found.together, stats.rankdata(TRUTH + noise, axis=1).mean(axis=0)
    assert together.tau.value == pytest.approx(judge.measure(ranks).tau) and together.tau.value > max(taus)
    assert together.above_one.value > 0
    assert together.above_one.value == pytest.approx(together.tau.value - np.mean(taus), abs=0.01)
    assert together.answer == list_digits()[ranks.argmax()]
    assert together.answer not in [list_digits()[(TRUTH + n).argmax()] for n in noise]
    assert together.predicted == judge.predict_share(together.answer) and together.image_passes == 1000


def test_blocks_that_are_called_decided(tmp_path):
    table = simulate()
    judge = make_judge(table)
    block, name = next((b, n) for b, n in zip(judge.fit.blocks, BLOCK_NAMES, strict=True) if b.is_decided)
    best = CANDIDATE_NAMES[block.best]
    other = next(candidate for candidate in CANDIDATE_NAMES if candidate != best)
    for seed, candidate in enumerate((best, other, best), 1):
        write_search(tmp_path / f"bold-seed{seed}", TRUTH)
        said = {"block": name, "candidate": candidate, "decided": True}
        change_found(tmp_path / f"bold-seed{seed}", lambda found, said=said: {**found, "blocks": [said]})
    bold = next(s for s in study_all(table, tmp_path))
    assert bold.blocks == (2, 1, 0) and bold.agreeing == (1, 3)
    undecided = [n for b, n in zip(judge.fit.blocks, BLOCK_NAMES, strict=True) if not b.is_decided]
    said = [{"block": n, "candidate": best, "decided": True} for n in undecided]
    write_search(tmp_path / "rash-seed1", TRUTH)
    change_found(tmp_path / "rash-seed1", lambda found: {**found, "blocks": said})
    rash = {s.method: s for s in study_all(table, tmp_path)}["rash"]
    assert rash.blocks == (0, 0, len(undecided)) and rash.agreeing == (0, 0)


def test_first_round_of_a_design_answers_with_its_orders_first(tmp_path):
    """After two of five trainings were made anew, the second's answer is another than the first one's."""
    first, last = (f"{number:06d}" for number in (110110, 330330))
    ranking = TRUTH.copy()
    ranking[int(first, 4)] = 1
    for seed in (11, 12):
        path = tmp_path / f"design-seed{seed}"
        write_search(path, ranking)
        confirmed = [{"digits": last, "trainings": 1}, {"digits": first, "trainings": 1}]
        change_found(path, lambda found, c=confirmed: {**found, "trainings": 5, "confirmed": c})
        replace(Genotype.from_digits(last), found=Genotype.from_json(path / "genotype.json").found).to_json(
            path / "genotype.json"
        )
    table = simulate(0.02)
    design = next(s for s in study_all(table, tmp_path))
    whole, alone = design.answers, design.first_round
    assert (whole.image_passes, alone.image_passes) == (500, 300)
    assert whole.predicted.value == make_judge(table).predict_share(last).value
    assert alone.predicted.value == make_judge(table).predict_share(first).value


def test_how_far_searches_are_above_others(tmp_path):
    """Paired by seed where seeds are the same: a luck that both share drops out."""
    generator = np.random.default_rng(0)
    table = simulate(0.02)
    for seed in (1, 2, 3):
        luck = TRUTH + generator.normal(0, 0.1, 4096)
        write_search(tmp_path / f"gumbel-seed{seed}", luck)
        write_search(tmp_path / f"gumbel_like-seed{seed}", luck + generator.normal(0, 0.001, 4096))
        write_search(tmp_path / f"gumbel_later-seed{seed + 3}", luck)
    for path in tmp_path.iterdir():
        change_found(path, lambda found: {**found, "method": "gumbel"})
    found = {s.method: s for s in study_all(table, tmp_path)}
    paper, like, later = (found[name] for name in ("gumbel", "gumbel_like", "gumbel_later"))
    assert paper.above_paper is paper.above_paper_over_seeds is None
    assert later.above_paper.value == later.above_paper_over_seeds.mean == 0
    assert like.above_paper_over_seeds.mean == pytest.approx(like.tau.mean - paper.tau.mean)
    assert like.above_paper_over_seeds.half_width < later.above_paper_over_seeds.half_width / 2
    scores = table.adjust("unseen/mAP")
    fewest = stats.kendalltau([FEWEST_NORMS[int(d, 4)] for d in scores], [s.mean() for s in scores.values()]).statistic
    assert paper.above_fewest.value == pytest.approx(paper.tau_over_networks.value - fewest, abs=1e-6)
    assert paper.above_fewest_over_seeds.mean == pytest.approx(paper.tau.mean - fewest)
    assert paper.above_fewest_over_seeds.half_width == pytest.approx(paper.tau.half_width)
    assert paper.above_fewest.low < paper.above_fewest.value < paper.above_fewest.high


def test_fewest_norms_first():
    found = judge_fewest_norms(make_judge(simulate(0.02)))
    norms = np.array(NUM_INS)[EVERYTHING].sum(axis=1)
    trained = simulate(0.02).adjust("unseen/mAP")
    given = [-norms[int(d, 4)] for d in trained]
    assert found.tau.value == pytest.approx(stats.kendalltau(given, [s.mean() for s in trained.values()]).statistic)
    assert found.answer.digits == "000000"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 3}, "searched for 3 epochs, table simulated trained for 40"),
        ({"sources": ["synthetic_c"]}, "gumbel-seed4 searched on synthetic_c, which table simulated judges by"),
        ({"method": "uniform"}, "by the method uniform and of seed 4, not what its name says"),
        ({"seed": 5}, "by the method gumbel and of seed 5"),
        ({"method": ""}, "by the method  and of"),
        ({"method": "g"}, "by the method g and of"),
        ({"epochs": "many"}, "epochs is 'many', expected is a whole number from 1"),
        ({"costs": {"image_passes": float("inf")}}, "image_passes, a whole number from 1 on"),
        ({"costs": {"image_passes": 0}}, "image_passes, a whole number from 1 on"),
        ({"places": [{"place": "conv2-1 inside"}]}, "expected is of each place its name"),
        ({"blocks": [{"block": "conv2-1", "decided": True}]}, "expected is of each block its name"),
        ({"trainings": 2, "confirmed": [{"trainings": 2}]}, "no more trainings are counted than"),
        ({"trainings": 0}, "trainings is 0"),
        ({"confirmed": [{"trainings": 0}]}, "of each network trained anew"),
    ],
)
def test_searches_that_do_not_fit_are_refused(tmp_path, change, told):
    write_search(tmp_path / "gumbel-seed4", TRUTH)
    change_found(tmp_path / "gumbel-seed4", lambda found: {**found, **change})
    with pytest.raises(UserError, match=told):
        study_all(simulate(), tmp_path)


def test_designs_are_short_and_of_other_seeds(tmp_path):
    write_search(tmp_path / "design-seed11", TRUTH)
    change_found(tmp_path / "design-seed11", lambda found: {**found, "epochs": 3})
    assert len(study_all(simulate(), tmp_path)) == 1
    write_search(tmp_path / "design-seed1", TRUTH)
    with pytest.raises(UserError, match="seed 1 is one of the table's own trainings"):
        study_all(simulate(), tmp_path)


def test_folders_that_are_no_searches(tmp_path):
    assert study_all(simulate(), tmp_path / "none") == []
    for name in ("gumbel", "gumbel-seed02"):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match="METHOD-seedN"):
            study_all(simulate(), tmp_path)
        (tmp_path / name).rmdir()
    write_search(tmp_path / "searches" / "mine-seed1", TRUTH)
    change_found(tmp_path / "searches" / "mine-seed1", lambda found: {"method": "mine"})
    with pytest.raises(UserError, match="lacks costs, epochs, seed in what it says"):
        study_all(simulate(), tmp_path / "searches")
    least = {"method": "mine", "seed": 1, "epochs": 40, "costs": {"image_passes": 500}}
    change_found(tmp_path / "searches" / "mine-seed1", lambda found: least)
    assert len(study_all(simulate(), tmp_path / "searches")) == 1
    (tmp_path / "searches" / "mine-seed1" / "ranking.npz").unlink()
    with pytest.raises(UserError, match=r"no ranking\.npz"):
        study_all(simulate(), tmp_path / "searches")
