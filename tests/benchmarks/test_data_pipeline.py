"""The benchmark of the data pipeline: what would never end is refused."""

import pytest

from benchmarks.data_pipeline import main
from tests.conftest import write_market_tree


@pytest.mark.parametrize("words", [["--images", "10"], ["--seconds", "nan"], ["--memory-epochs", "-1"]])
def test_numbers_out_of_range_are_one_line(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("data_pipeline: --images must be at least 64")


def test_fewer_images_than_a_batch(tmp_path, capsys):
    assert main(["--root", str(write_market_tree(tmp_path))]) == 2
    assert "has 36 training images, a batch takes 64" in capsys.readouterr().err
