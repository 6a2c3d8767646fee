"""The printed trees: what the readers read, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets import DATASETS, find_reader
from datasets.base import ReadOptions
from datasets.files import is_image_name
from datasets.layouts import LAYOUTS, format_layout
from tests.datasets.test_readers_trees import GALLERY, QUERY, TRAIN, TREES
from utils.errors import UserError


def paths_of(layout: str) -> Iterator[str]:
    """Yields the paths in a printed tree, below the root; those of folders end in ``/``."""
    parents: list[str] = []
    for line in layout.splitlines()[1:]:
        if line.strip().startswith("or, "):
            continue
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        parents[depth:] = [line.split()[0].rstrip("/")]
        yield "/".join(parents) + ("/" if line.split()[0].endswith("/") else "")


def any_number(folder: str) -> str:
    """Puts the same number for every folder that is named by one."""
    return "/".join("N" if part.isdecimal() else part for part in folder.split("/"))


def test_every_data_set_has_a_layout() -> None:
    assert set(LAYOUTS) == {name for name in DATASETS if not name.startswith("synthetic")}
    for name in (*DATASETS, "folder:own"):
        layout = format_layout(name)
        assert layout.startswith("ROOT/\n")
        assert all(len(line) <= 120 and line == line.rstrip() for line in layout.splitlines())


@pytest.mark.parametrize("name", TREES)
def test_folders_are_those_of_the_images(name: str) -> None:
    shown = {any_number(path.rpartition("/")[0]) for path in paths_of(LAYOUTS[name]) if is_image_name(Path(path).name)}
    read = {
        line.split()[0].rpartition("/")[0] for part in (TRAIN, QUERY, GALLERY) for line in TREES[name].get(part, [])
    }
    read = {any_number(folder) for folder in read}
    distractors = {folder for folder in shown if folder.endswith("/images")}  # Market-1501's 500k, only on request
    assert shown - distractors == read


@pytest.mark.parametrize("name", [*LAYOUTS, "folder:own"])
def test_names_of_files_are_understood(name: str, tmp_path: Path) -> None:
    """The tree, as it stands there, has no name that the reader cannot read, and lacks no folder."""
    for path in paths_of(format_layout(name)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith("/") and is_image_name(Path(path).name):
            (tmp_path / path).touch()
    message = ""
    try:
        find_reader(name)(tmp_path, ReadOptions(market1501_500k=True))
    except UserError as error:  # the tree shows too few people to split, or files that are not made here
        message = str(error)
    assert not any(fault in message for fault in ("cannot read person", "no folder", "no image in"))
