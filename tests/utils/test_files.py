"""Writing all or nothing."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from utils import files
from utils.errors import UserError
from utils.files import check_writable, remove_unfinished, write_atomically

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("content", ["höhe", "höhe".encode(), lambda file: file.write("höhe".encode())])
def test_text_bytes_and_writers(tmp_path, content):
    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "höhe"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_in_a_text_need_not_be_utf8(tmp_path):
    write_atomically(tmp_path / "a", f"{os.fsdecode(bytes([255]))}ä")
    assert (tmp_path / "a").read_text() == "\\udcffä"


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


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_only_files_are_replaced(tmp_path, kind):
    """As root, /dev/null would become a file."""
    path = tmp_path / "file"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/null")
    before = path.lstat().st_mode
    for write in (lambda: write_atomically(path, "text"), lambda: check_writable(path)):
        with pytest.raises(UserError, match="there is a pipe, device or socket of that name"):
            write()
    assert path.lstat().st_mode == before


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_names_of_folders_are_no_files(name):
    with pytest.raises(UserError, match="there is a folder of that name"):
        write_atomically(name, "text")


def test_what_is_read_is_not_replaced(tmp_path):
    (tmp_path / "source").write_text("text")
    (tmp_path / "link").symlink_to("source")
    check_writable(tmp_path / "new", tmp_path / "source", tmp_path / "nowhere")
    for name in ("source", "link"):
        with pytest.raises(UserError, match="it is read as well, and would be lost"):
            check_writable(tmp_path / name, tmp_path / "source")


def test_umask_is_respected(tmp_path):
    write_atomically(tmp_path / "file", "text")
    (tmp_path / "plain").write_text("text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def be_killed_while_writing(folder: Path) -> Path:
    """Lets another process write half a file and end as if it were killed; returns what it left."""
    code = (
        "import os, sys; from pathlib import Path; from utils.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]) / 'last.pt', lambda f: (f.write(b'half'), f.flush(), os._exit(9)))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=False)
    (left,) = folder.glob(".last.pt.*")
    assert left.read_bytes() == b"half"
    return left


def test_what_a_killed_process_left_is_removed(tmp_path):
    be_killed_while_writing(tmp_path)
    (tmp_path / "last.pt").write_text("whole")
    remove_unfinished(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_only_files_that_this_program_left_are_removed(tmp_path):
    """A home folder holds hidden files of other programs, and perhaps folders and links of such names."""
    left = be_killed_while_writing(tmp_path)
    host = files._HOST
    kept = {".session.tmp", ".last.pt.123.tmp", ".bashrc", left.name + "2", left.name[1:], "notes.tmp"}
    kept |= {left.name.replace(host, "another-machine"), left.name.replace("last.pt", "")}
    kept.add(re.sub(r"[.]\d+[.]([0-9a-f]{8})", r".99999999999999999999.\1", left.name))
    for name in kept:
        (tmp_path / name).write_text("of others")
    folder, link = left.name.replace("last.pt", "folder"), left.name.replace("last.pt", "link")
    (tmp_path / folder).mkdir()
    (tmp_path / link).symlink_to(tmp_path / "notes.tmp")
    os.mkfifo(tmp_path / left.name.replace("last.pt", "pipe"))
    remove_unfinished(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == kept | {folder, link, left.name.replace("last.pt", "pipe")}


def test_what_is_just_being_written_is_not_removed(tmp_path):
    write_atomically(tmp_path / "file", "new", lambda: remove_unfinished(tmp_path))
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_what_another_container_or_user_writes_is_not_removed(tmp_path, monkeypatch, error):
    """A container does not see the processes of others; the lock on the file shows that one lives."""

    def refuse(pid, signal):
        raise error

    monkeypatch.setattr(files.os, "kill", refuse)
    write_atomically(tmp_path / "file", "new", lambda: remove_unfinished(tmp_path))
    assert (tmp_path / "file").read_text() == "new"


def test_a_name_as_long_as_the_system_allows(tmp_path):
    for name in ("n" * 255, "ü" * 127):
        write_atomically(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    with pytest.raises(UserError, match=r"cannot write .*File name too long"):
        write_atomically(tmp_path / ("n" * 256), "text")


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda length: "0" * 8)
    (tmp_path / "valuable").write_text("mine")
    files.name_unfinished(tmp_path / "file").symlink_to(tmp_path / "valuable")
    with pytest.raises(UserError, match=r"cannot write .*file: File exists"):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "valuable").read_text() == "mine"
