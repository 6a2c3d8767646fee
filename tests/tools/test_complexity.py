"""The table of costs by part."""

import pytest

from genotype import Genotype
from tools.complexity import main

SMALL = ["--width", "0.25", "--size", "32", "16", "--runs", "1"]


def test_table(capsys):
    assert main(["--genotype", "osnet", *SMALL]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    table = {row[0]: row[1:] for row in rows if row[0] in ("conv1", "conv2", "fc", "total")}
    assert table["total"][0] == "201,864"
    assert ["use:", "203,568"] in [row[-2:] for row in rows]  # as published
    # published 82.3 M at 256×128: a 64th of the pixels, the linear layer (128 × 512) as ever
    assert float(table["total"][1]) == pytest.approx((82.3 - 0.0655) / 64 + 0.0655, abs=0.01)
    assert table["fc"][1:3] == ["67,072", "0.07"]  # the row begins "fc (head)"
    shares = [float(row[-3].rstrip("%")) for row in rows if row[-1].endswith("%")]
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.5)


def test_a_genotype_file_and_its_stem(tmp_path, capsys):
    Genotype.named("osnet_ibn").to_json(tmp_path / "genotype.json")
    assert main(["--genotype", str(tmp_path / "genotype.json"), "--stem-norm", "batch", *SMALL]) == 0
    output = capsys.readouterr().out
    assert "batch stem norm" in output
    assert "- conv2-2 Block=OSBlockINv2" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--genotype", "osnet_iain"], "no such file"),
        (["--width", "0.3"], "allowed are 1.0, 0.75, 0.5, 0.25"),
        (["--stem-norm", "layer"], "allowed are instance, batch"),
        (["--genotype", "osnet_ain", "--size", "16", "16"], "input of 16×16 pixels"),
        (["--size", "64", "8"], "at least 32×16"),
        (["--runs", "0"], "at least 1"),
        (["--batch-size", "100000000000"], "the memory is too small"),
        (["--batch-size", "1000000000000000000"], "the memory is too small"),
        (["--size", "4096", "4096", "--batch-size", "10000"], "image(s) of 4096×4096 at a time"),
        (["--device", "cuda:99"], "cannot be used"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert main([*SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("complexity: ")
    assert error.count("\n") == 1
