"""Files in a folder that others may know of; the cases that concern the cache of images are tested there."""

import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.guarded_folder import GuardedFolder


@pytest.mark.parametrize("private", [True, False])
def test_names_are_looked_up_in_the_open_folder(tmp_path: Path, private: bool) -> None:
    """Also when the folder has another name by then, and another one has its name."""
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    folder = GuardedFolder(path, private)
    path.rename(tmp_path / "moved")
    path.mkdir()
    with folder.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
        file.write(b"text")
    assert folder.names() == ["a"]
    folder.rename("a", "b")
    state = folder.stat("b")
    assert state
    assert state.st_size == 4
    with folder.open("b", os.O_RDONLY) as file:
        assert file.read() == b"text"
    assert folder.stat("a") is None
    folder.remove("a", "b")
    assert folder.names() == []
    assert not list(path.iterdir())
    with pytest.raises(FileNotFoundError):
        folder.open("b", os.O_RDONLY)
    folder.close()


def test_a_shared_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GuardedFolder(tmp_path / "gone", private=False)
    with pytest.raises(FileNotFoundError):
        GuardedFolder(tmp_path / "gone" / "folder", private=True)


def test_a_shared_folder_may_be_a_link_but_no_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "file").symlink_to(tmp_path / "elsewhere")
    folder = GuardedFolder(tmp_path / "link", private=False)
    with pytest.raises(UserError, match="link/file is not a file but a link"):
        folder.open("file", os.O_RDWR | os.O_CREAT)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_in_a_files_place(tmp_path: Path) -> None:
    folder = GuardedFolder(tmp_path, private=False)
    (tmp_path / "a").mkdir()
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(UserError, match="a is not a file but a"):
            folder.open("a", flags)
