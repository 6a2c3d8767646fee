"""Writing all or nothing."""

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from utils import files
from utils.errors import UserError
from utils.files import remove_unfinished, write_atomically

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("content", ["höhe", "höhe".encode(), lambda file: file.write("höhe".encode())])
def test_text_bytes_and_writers(tmp_path, content):
    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "höhe"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def check():
        assert path.read_text() == "old"
        seen.append([p.read_text() for p in tmp_path.iterdir() if p != path])

    seen = []
    write_atomically(path, "new", check)
    assert seen == [["new"]]
    assert path.read_text() == "new"


def test_error_in_the_writer_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", fail)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_told_and_leaves_the_old(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*file: No space left on device"):
        write_atomically(tmp_path / "file", "new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "old"}


def test_file_beyond_the_limit_is_told(tmp_path):
    """The operating system itself refuses to write on, as on a full disk."""
    code = (
        "import resource, sys; from pathlib import Path; from utils.checkpoint import save_checkpoint; import torch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "path = Path(sys.argv[1]) / 'c.pt'\n"
        "save_checkpoint(path, {'x': torch.zeros(10)})\n"
        "from utils.errors import UserError\n"
        "try: save_checkpoint(path, {'x': torch.zeros(1_000_000)})\n"
        "except UserError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout.startswith(f"cannot write {tmp_path / 'c.pt'}"), result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_umask_is_respected(tmp_path):
    write_atomically(tmp_path / "file", "text")
    (tmp_path / "plain").write_text("text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".last.pt.123.tmp").write_text("half")
    (tmp_path / "last.pt").write_text("whole")
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
