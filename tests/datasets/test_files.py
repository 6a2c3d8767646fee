"""Numbers in names and lists: what does not fit into 64 bits is one line, whichever reader meets it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from datasets import DATASETS
from datasets.base import ReadOptions
from datasets.files import parse_number
from datasets.market1501 import read_market_layout
from utils.errors import UserError

HUGE = "9" * 30  # a file's name may hold it; int64 may not
MARKET = "market1501/bounding_box_train"
FILES = {  # beside nothing else: the name is read before anything is found missing
    "market1501": [f"{MARKET}/{HUGE}_c1s1_1.jpg"],
    "market1501 of a camera": [f"synthetic/bounding_box_train/0001_c{HUGE}s1_1.jpg"],
    "dukemtmcreid": [f"dukemtmc-reid/DukeMTMC-reID/bounding_box_train/{HUGE}_c1_f1.jpg"],
    "cuhksysu": [f"cuhksysu/cropped_images/p{HUGE}_s1_1.jpg"],
    "viper": [f"viper/VIPeR/cam_a/{HUGE}_45.bmp"],
    "grid": [f"grid/underground_reid/probe/{HUGE}_1_1.jpeg"],
    "sensereid": [f"sensereid/SenseReID/test_probe/{HUGE}_0.jpg"],
    "university1652": [f"university1652/University-Release/train/drone/{HUGE}/image-01.jpeg"],
}


@pytest.mark.parametrize("name", FILES)
def test_a_number_in_a_name_that_is_too_large(name: str, tmp_path: Path) -> None:
    for file in FILES[name]:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=r"the number 99999999… has 30 digits, more than 18") as caught:
        if name.endswith("camera"):
            read_market_layout(tmp_path / "synthetic", "synthetic")
        else:
            DATASETS[name](tmp_path, ReadOptions())
    assert HUGE in str(caught.value)  # in the file's name


@pytest.mark.parametrize("digits", ["9" * 19, HUGE, "9" * 5000])
@pytest.mark.parametrize("part", ["train", "val", "query", "gallery"])
def test_a_number_in_a_list_that_is_too_large(digits: str, part: str, tmp_path: Path) -> None:
    folder = tmp_path / "msmt17" / "MSMT17_V1"
    for split in ("train", "test"):
        (folder / split / "0000").mkdir(parents=True)
        (folder / split / "0000" / "0000_000_01_a.jpg").touch()
    for each in ("train", "val", "query", "gallery"):
        (folder / f"list_{each}.txt").write_text("0000/0000_000_01_a.jpg 0\n")
    with (folder / f"list_{part}.txt").open("a") as file:
        file.write(f"0000/0000_000_01_a.jpg {digits}\n")
    with pytest.raises(UserError, match=rf"list_{part}.txt, line 2: the number 99999999… has {len(digits)} digits"):
        DATASETS["msmt17"](tmp_path, ReadOptions())


@pytest.mark.parametrize("label", [2.0**63, 1e300, np.inf])
def test_a_label_in_a_matrix_that_is_too_large(label: float, tmp_path: Path) -> None:
    (tmp_path / "cuhk03/images_detected").mkdir(parents=True)
    (tmp_path / "cuhk03/images_detected/1_001_1_01.png").touch()
    content = {f"{part}_idx": [[1]] for part in ("train", "query", "gallery")}
    file = tmp_path / "cuhk03/cuhk03_new_protocol_config_detected.mat"
    savemat(file, {"filelist": np.array([["1_001_1_01.png"]], dtype=object), "labels": [[label]], **content})
    with pytest.raises(UserError, match="does not hold CUHK03's new protocol"):
        DATASETS["cuhk03"](tmp_path, ReadOptions())


@given(st.integers(0, 10**18 - 1), st.integers(0, 40))
def test_numbers_that_fit_are_read(number: int, zeros: int) -> None:
    """Also behind more zeros than there is room for digits; two of them added still fit."""
    assert parse_number("0" * zeros + str(number), "") == number
    assert np.array([2 * number], dtype=np.int64)[0] == 2 * number


def test_junk_is_minus_one() -> None:
    assert parse_number("-1", "") == -1
