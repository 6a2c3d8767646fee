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
from search.report import ReportData, Trajectories, say_how_sure, write_report

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
    assert say_how_sure(make_answer((False,) * 6)) == (
        "None of the 6 blocks is decided. Of all 4,096 networks 2 are not significantly worse than the best; the "
        "others are ruled out."
    )
    assert say_how_sure(make_answer((False,) * 6, not_worse=[])).endswith("this method cannot tell.")
    assert say_how_sure(make_answer((True,) + (False,) * 5)).startswith(
        "1 of 6 blocks is decided; in the others the choice is open. Of all"
    )
    assert say_how_sure(make_answer()).startswith("All 6 blocks are decided. Of all")


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
