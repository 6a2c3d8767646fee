"""What the benchmarks count and how they are told apart; no duration is judged."""

import json
import sys
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks import child, side_by_side, supernet_step
from benchmarks.contenders import Case, build_contender, build_peer, with_group_norm
from benchmarks.side_by_side import Contender, Options, format_results, put_apart, report

CPU = torch.device("cpu")
TINY = Case(0.25, 32, 16, 4)


def make_product(name="product"):
    one, other = torch.ones(8, 16), torch.ones(16, 4)
    return Contender(name, lambda: (one @ other).view(4, 8), num_images=8)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setattr(side_by_side, "measure_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(side_by_side, "measure_flops", lambda device, dtype: 1e9)


def test_work_is_what_a_step_does():
    work = make_product().count_work(CPU)
    assert work.flops == 2 * 8 * 16 * 4
    assert work.traffic == 4 * (8 * 16 + 16 * 4 + 8 * 4)  # a view moves nothing
    assert work.peak == 4 * 8 * 4
    assert work.num_kernels == 0
    compiled = replace(make_product(), is_compiled=True).count_work(CPU)
    assert compiled.flops != compiled.flops


def test_a_contender_apart_is_the_same_in_another_process():
    with put_apart(make_product, CPU) as apart:
        assert (apart.name, apart.num_images) == ("product", 8)
        assert apart.time_step(CPU) > 0
        assert apart.count_work(CPU) == make_product().count_work(CPU)


def test_table_and_file_hold_every_contender(tmp_path, capsys):
    quick, compiled = make_product("quick"), replace(make_product("compiled"), is_compiled=True)
    report({"case": lambda stack: [quick, compiled]}, Options(CPU, 3, json=tmp_path / "found.json"))
    text = capsys.readouterr().out
    assert all(word in text for word in ("case", "quick", "1.00 (1.00)", "compiled", "–"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["turns"] == 3
    rows = found["cases"]["case"]
    assert [row["name"] for row in rows] == ["quick", "compiled"]
    assert rows[0]["ratio"] == 1
    assert rows[0]["arithmetic_share"] > 0
    assert rows[1]["work"]["flops"] is None


def test_ratios_are_by_image():
    results = side_by_side.run_side_by_side([make_product(), replace(make_product(), num_images=8000)], 3, CPU)
    assert results[1].ratio > 10 * results[0].ratio
    assert format_results(results)
    assert asdict(results[0])["work"]["flops"] == 1024


@pytest.mark.parametrize("model", ["osnet_nas", "osnet_child"])
def test_steps_learn(model):
    """The same steps as main.py's: weights move, in every form."""
    for contender in (
        build_contender("own", model, TINY, CPU),
        with_group_norm(build_contender("own", model, TINY, CPU)),
    ):
        first, second = contender.step(), contender.step()
        assert first.loss != second.loss
        assert first.num_images == TINY.batch_size


def test_peers_step_learns():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 16, 100))
    contender = build_peer("peer", network, TINY, CPU)
    assert contender.step() > contender.step()


def test_every_form_of_the_super_network_is_built():
    options = Options(CPU, 1)
    contenders = supernet_step.build_contenders(TINY._replace(batch_size=8), None, options, None)
    assert len({c.name for c in contenders}) == len(contenders) == 10


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (supernet_step.main, ["--reference", "nowhere"], "no projects/OSNet_AIN/osnet_search.py"),
        (supernet_step.main, ["--turns", "0"], "--turns 0"),
        (child.main, ["--device", "cuda"], "cannot be used"),
    ],
)
def test_user_errors_end_in_one_line(main, words, message, monkeypatch, capsys):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    monkeypatch.setattr(supernet_step, "put_apart", lambda build, device: partial(build)())
    assert main() == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
