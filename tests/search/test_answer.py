"""The ending that all searches share: numbers in the genotype's file, the ranking, the report."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from genotype import CANDIDATE_NAMES, Genotype
from search.answer import Answer, BlockAnswer, list_digits
from search.decide_argmax import decide_argmax, score_all
from search.ending import conclude
from search.places import Place, format_places, say_what_is_sure
from search.report import ReportData, Trajectories, write_report

COSTS = {"seconds": 3725.0, "image_passes": 1_234_567, "peak_memory_bytes": 3 * 2**30}


def make_answer(decided=(True,) * 6, intervals=True, **more):
    values = [0.01, 0.02, -0.01, -0.02]
    ends = {"low": [v - 0.01 for v in values], "high": [v + 0.01 for v in values]} if intervals else {}
    blocks = [BlockAnswer("OSBlockINv1", d, "p <b>small</b>", values, **ends) for d in decided]
    arguments = {
        "method": "design", "genotype": Genotype.from_digits("111111"), "blocks": blocks, "value_name": "effect",
        "scores": np.linspace(0, 1, 4096), "score_name": "predicted mAP", "not_worse": ["111111", "110110"],
        "costs": COSTS, "caution": ["Mind <this> & that."],
    }  # fmt: skip
    return Answer(**{**arguments, **more})


class Page(HTMLParser):
    """Collects what a screen reader would go by, and checks that elements close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.labels, self.ids = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "svg":
            self.labels.append(attributes["aria-label"])
        assert tag not in ("script", "link", "iframe", "img")
        for name, value in attributes.items():
            assert name not in ("src", "onclick")
            assert not re.match(r"https?:", value or "") or name.startswith("xmlns"), value
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        return

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and re.fullmatch(r"h\d", self.open[-1]):
            self.headings.append((self.open[-1], data.strip()))


def test_genotype_file_keeps_how_sure_it_is_and_reads_back(tmp_path):
    conclude(tmp_path, make_answer((True, False) * 3), {"sources": ["a"]}, ReportData(["main.py"], "x: 1"))
    found = Genotype.from_json(tmp_path / "genotype.json").found
    assert found["method"] == "design"
    assert [block["decided"] for block in found["blocks"]] == [True, False] * 3
    assert found["blocks"][0]["values"] == dict(zip(CANDIDATE_NAMES, [0.01, 0.02, -0.01, -0.02], strict=True))
    assert found["blocks"][0]["low"]["OSBlock"] == pytest.approx(0.0)
    assert found["not_significantly_worse"] == ["111111", "110110"]
    assert found["costs"]["image_passes"] == 1_234_567
    assert found["rank_of_found"] == 4096 - int("111111", 4)
    assert found["sources"] == ["a"]
    with np.load(tmp_path / "ranking.npz") as ranking:
        assert ranking["scores"].shape == (4096,)
    assert (tmp_path / "architecture.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_the_first_version_are_read(tmp_path):
    document = {"format": "osnet-genotype", "version": 1, "conv2": ["OSBlock"] * 2, "conv3": ["OSBlockINv1"] * 2,
                "conv4": ["OSBlockINv3"] * 2, "found": {"margins": [0.1]}}  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert Genotype.from_json(tmp_path / "old.json").digits == "001133"


@pytest.mark.parametrize("intervals", [True, False])
def test_report_is_one_page_that_a_screen_reader_can_follow(tmp_path, intervals):
    lines = Trajectories("Loss", "epoch", "loss", {"a <b>": [(1, 2.0), (2, 1.5)]})
    tables = {"Trainings": (["genotype", "mAP"], [["110110", "12 %"]])}
    data = ReportData(["main.py", "data.root", "my data"], "train:\n  lr: 0.1", [lines], tables)
    write_report(tmp_path / "report.html", make_answer((True, False) * 3, intervals), {"torch": "2.14"}, data)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.headings[0][0] == "h1"
    assert {level for level, _ in page.headings[1:]} == {"h2"}
    assert len(page.labels) == 3
    assert "conv2-1: OSBlockINv1 found, decided" in page.labels[0]
    assert "OSNet-AIN" in page.labels[1]
    assert "at the end a <b> 1.500" in page.labels[2]
    assert "3 of 6 blocks are decided" in text
    assert "p &lt;b&gt;small&lt;/b&gt;" in text
    assert "Mind &lt;this&gt; &amp; that." in text
    assert "python main.py data.root &#39;my data&#39;" in text
    assert "1:02:05" in text
    assert "3.00 GiB" in text
    assert ("(0.010 …" in text) == intervals


def test_how_sure_in_words():
    assert make_answer((False,) * 6).verdict == (
        "None of the 6 blocks is decided. Of all 4,096 networks 2 are not significantly worse than the best; the "
        "others are ruled out."
    )
    assert make_answer((False,) * 6, not_worse=[]).verdict.endswith("this method cannot tell.")
    assert make_answer((False,) * 6, not_worse=list_digits()).verdict.endswith(
        "None of the 4,096 networks is ruled out: any could be as good as the best."
    )
    assert make_answer((True,) + (False,) * 5).verdict.startswith(
        "1 of 6 blocks is decided; in the others the choice is open. Of all"
    )
    assert make_answer().verdict.startswith("All 6 blocks are decided. Of all")


def test_what_is_sure_of_the_places_in_words():
    open_, helps, hurts = Place(0.01, -0.1, 0.1, False), Place(0.02, 0.01, 0.03, True), Place(-0.02, -0.03, -0.01, True)
    assert say_what_is_sure([open_] * 12) == "At none of the 12 places is it decided whether IN helps or hurts."
    assert say_what_is_sure([helps, hurts, hurts, *[open_] * 9]) == (
        "At 3 of the 12 places it is decided: IN helps at conv2-1 inside and hurts at conv2-1 outside, conv2-2 inside."
    )
    assert say_what_is_sure([*[open_] * 11, hurts]).endswith("decided: IN hurts at conv4-2 outside.")
    assert "-2.0% (-3.0% to -1.0%) decided" in format_places([hurts] * 12)


def test_places_stand_in_the_genotype_file_and_in_the_report(tmp_path):
    places = [Place(0.01 * i, 0.01 * i - 0.02, 0.01 * i + 0.02, i > 2) for i in range(12)]
    answer = make_answer((True, False) * 3, places=places)
    conclude(tmp_path, answer, {}, ReportData(["main.py"], "x: 1"))
    found = Genotype.from_json(tmp_path / "genotype.json").found
    assert found["verdict"] == answer.verdict
    assert found["places"][3] == {"place": "conv2-2 outside", "value": 0.03, "low": pytest.approx(0.01), "high": 0.05,
                                  "decided": True}  # fmt: skip
    page = Page((tmp_path / "report.html").read_text())
    assert "conv2-2 inside +0.020, open; conv2-2 outside +0.030, decided" in page.labels[0]
    assert ("h2", "What instance normalisation is worth at each place") in page.headings


def test_scores_by_probability_are_products_of_all_six():
    probabilities = torch.softmax(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    scores, names = score_all(probabilities), list_digits()
    for number in (0, 1, 17, 2222, 4095):
        expected = sum(float(probabilities[b, int(d)].double().log()) for b, d in enumerate(names[number]))
        assert scores[number] == pytest.approx(expected)
    assert [int(name, 4) for name in names] == list(range(4096))


@pytest.mark.parametrize(("alpha", "decided"), [(1.1, 0), (3.5, 6)])
def test_paper_s_search_is_decided_where_one_is_more_probable_than_all_others(alpha, decided):
    alphas = torch.ones(6, 4)
    alphas[:, 1] = alpha
    answer = decide_argmax(alphas, Genotype.from_digits("111111"), COSTS, "train")
    assert answer.num_decided == decided
    assert answer.rank == 1
    assert "undetermined" in answer.format() or decided


@pytest.mark.parametrize("spread", [0.0, 1e-17, 1e-9])
def test_scores_that_differ_by_rounding_are_drawn(tmp_path, spread):
    scores = 0.5 + spread * np.linspace(0, 1, 4096) if spread != 1e-17 else np.nextafter(0.5, np.arange(4096) % 2)
    conclude(tmp_path, make_answer(scores=scores), {}, ReportData(["main.py"], "x: 1"))
    assert (tmp_path / "report.html").stat().st_size > 10_000
