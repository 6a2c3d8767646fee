"""Finding a data set by its name: one's own of any name, and what is said where nothing is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import find_folder, find_reader, point_to_layout, read_data_set
from datasets.base import ReadOptions
from datasets.build import build_loaders
from tests.datasets.test_build import CPU, make_config
from tests.datasets.test_readers_trees import FILE_SETS
from utils.errors import UserError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize("name", [*FILE_SETS, "folder", "folder:own"])
def test_what_is_missing_is_reported_with_where_it_belongs(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"; {point_to_layout(name)}$"):
        read_data_set(name, tmp_path / "root", ReadOptions())
    with pytest.raises(UserError, match=f"; {point_to_layout(name)}$"):
        build_loaders(make_config(tmp_path, data__sources=[name], data__targets=[name]), CPU)


def test_a_root_whose_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most 255 in a name") as caught:
        build_loaders(make_config(tmp_path / ("n" * 256)), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["folder:", "folder:a/b", "folder:..", "folder:a.b", "folder:a b", "folder:two\nlines"]
)
def test_names_of_own_data_are_plain(name: str) -> None:
    """They are part of the names of pictures' files, and settings on the command line are known by their dots."""
    with pytest.raises(UserError, match="folder: must be followed by a folder's name of letters, digits, _ and -"):
        find_reader(name)


def test_an_unknown_name() -> None:
    with pytest.raises(
        UserError, match=r"unknown data set 'fodler'; did you mean 'folder'\?; valid: market1501, .*:NAME"
    ):
        find_reader("fodler")


def test_folders_of_data_sets() -> None:
    assert find_folder("prid") == "prid2011"
    assert find_folder("folder:own") == "own"
    assert find_folder("folder") is find_folder("synthetic_a") is None


def test_several_own_sets_in_a_run(tmp_path: Path) -> None:
    """Each is a source or a target of its own, under its own name."""
    for number, name in enumerate(("shop", "mall")):
        for pid in range(2):
            for part, person, camera in (("train", pid, "a"), ("query", 7 + pid, "a"), ("gallery", 7 + pid, "b")):
                path = tmp_path / name / part / str(person) / f"{camera}_1.jpg"
                path.parent.mkdir(parents=True)
                pixels = np.random.default_rng([number, pid]).integers(0, 256, (40, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    names = ["folder:shop", "folder:mall"]
    config = make_config(tmp_path, data__sources=names, data__targets=names)
    data = build_loaders(config, CPU)
    assert data.num_train_pids == 4
    assert list(data.targets) == list(data.sources) == names
    table = [line.split() for line in data.summary().splitlines()]
    assert ["folder:mall", "gallery", "2", "2", "1"] in table
