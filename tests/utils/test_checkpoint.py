"""Saving all or nothing, keeping the last few, loading without executing anything."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from utils import checkpoint, files
from utils.checkpoint import find_last, load_checkpoint, save_checkpoint, save_last
from utils.errors import UserError
from utils.files import write_atomically


def content(value: int) -> dict[str, object]:
    return {"value": value, "tensor": torch.full((1000,), float(value)), "nested": {"list": [1, (2, None)]}}


def test_round_trip_keeps_tensors_and_plain_values(tmp_path):
    save_checkpoint(tmp_path / "c.pt", content(3))
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded["nested"] == {"list": [1, (2, None)]}
    assert torch.equal(loaded["tensor"], torch.full((1000,), 3.0))
    torch.load(tmp_path / "c.pt", weights_only=True)
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_keeps_the_newest_few(tmp_path):
    for value in range(5):
        save_last(tmp_path, content(value), keep=3)
    assert {p.name: load_checkpoint(p)["value"] for p in tmp_path.iterdir()} == {
        "last.pt": 4,
        "last.1.pt": 3,
        "last.2.pt": 2,
    }


def test_keep_one(tmp_path):
    for value in range(2):
        save_last(tmp_path, content(value), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_damaged_last_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, share):
    save_last(tmp_path, content(1), keep=2)
    save_last(tmp_path, content(2), keep=2)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").write_bytes(whole[: int(share * len(whole))])
    path, document = find_last(tmp_path)
    assert (path, document["value"]) == (tmp_path / "last.1.pt", 1)
    assert "last.pt" in caplog.text
    assert "the checkpoint before it" in caplog.text


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_flipped_bit_in_last_falls_back_too(tmp_path, caplog, share):
    save_last(tmp_path, content(1), keep=2)
    save_last(tmp_path, content(2), keep=2)
    changed = bytearray((tmp_path / "last.pt").read_bytes())
    changed[int(share * len(changed))] ^= 1
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").write_bytes(changed)
    path, document = find_last(tmp_path)
    assert (path, document["value"]) == (tmp_path / "last.1.pt", 1)
    assert "its content is not what was written (checksum)" in caplog.text


@pytest.mark.parametrize("keep", [2, 3])
@pytest.mark.parametrize("num_damaged", [1, 2])
def test_kill_after_falling_back_leaves_the_good_one(tmp_path, monkeypatch, keep, num_damaged):
    """Also in the moment in which the older ones have moved on and the new one has not yet taken its name."""
    for value in range(3):
        save_last(tmp_path, content(value), keep=3)
    for name in ("last.pt", "last.1.pt")[:num_damaged]:
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(b"damaged")
    good = 2 - num_damaged
    assert find_last(tmp_path)[1]["value"] == good
    make_older = checkpoint._make_older

    def die(*arguments):
        make_older(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_make_older", die)
    with pytest.raises(KeyboardInterrupt):
        save_last(tmp_path, content(9), keep=keep)
    assert find_last(tmp_path)[1]["value"] == good
    assert {p.name for p in tmp_path.iterdir() if "damaged" in p.name} == {
        "last.damaged.pt", "last.1.damaged.pt"} - ({"last.1.damaged.pt"} if num_damaged == 1 else set())  # fmt: skip


def test_lowering_how_many_are_kept_removes_older_ones(tmp_path):
    for value in range(5):
        save_last(tmp_path, content(value), keep=4)
    (tmp_path / "last.damaged.pt").write_bytes(b"")
    save_last(tmp_path, content(5), keep=2)
    assert {p.name for p in tmp_path.iterdir()} == {"last.pt", "last.1.pt", "last.damaged.pt"}
    assert [load_checkpoint(tmp_path / name)["value"] for name in ("last.pt", "last.1.pt")] == [5, 4]


@pytest.mark.parametrize("keep", [2, 3])
def test_full_disk_without_hard_links_leaves_all_as_they_were(tmp_path, monkeypatch, keep):
    def no_links(path, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    for value in range(4):
        save_last(tmp_path, content(value), keep=keep)
    before = {p.name: load_checkpoint(p)["value"] for p in tmp_path.iterdir()}
    assert before == dict(list({"last.pt": 3, "last.1.pt": 2, "last.2.pt": 1}.items())[:keep])

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_last(tmp_path, content(4), keep=keep)
    assert {p.name: load_checkpoint(p)["value"] for p in tmp_path.iterdir()} == before


def test_all_damaged_is_told(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(1 tried\)"):
        find_last(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_no_checkpoint_is_none(tmp_path):
    assert find_last(tmp_path) is None


def test_only_best_or_others_are_left(tmp_path):
    (tmp_path / "last.damaged.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no last.pt to continue from, only last.damaged.pt; choose another data.save"):
        find_last(tmp_path)
    save_checkpoint(tmp_path / "best.pt", content(1))
    with pytest.raises(UserError, match=r"only best.pt; continue with model.resume .*/best.pt$"):
        find_last(tmp_path)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_pickle_is_not_run(tmp_path, writer):
    trap = tmp_path / "trap"
    if writer == "torch":
        torch.save({"state": _Evil(trap)}, tmp_path / "evil.pt")
    else:
        (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state": _Evil(trap)}))
    with pytest.raises(UserError, match=r"evil.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not trap.exists()


def test_foreign_and_missing_files_are_told(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(tmp_path / "foreign.pt")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize("version", [99, 0, None, "2", True, [2], torch.zeros(99, 99)])
def test_other_versions_are_told(tmp_path, version):
    save_checkpoint(tmp_path / "c.pt", {"version": version})
    with pytest.raises(UserError, match=r"version .*; this program reads 1 to 2") as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


def test_version_1_without_a_seal_loads(tmp_path):
    """As it was written before there were checksums."""
    torch.save({"format": checkpoint.FORMAT, "version": 1, **content(3)}, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt")["value"] == 3


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    save_last(tmp_path, content(0), keep=2)
    save_last(tmp_path, content(1), keep=2)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*last.pt: No space left on device"):
        save_last(tmp_path, content(2), keep=2)
    assert {p.name: load_checkpoint(p)["value"] for p in tmp_path.iterdir()} == {"last.pt": 1, "last.1.pt": 0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_inside_torch_save_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files.Path, "open", lambda path, mode: open("/dev/full", mode.replace("x", "w")))  # noqa: PTH123, SIM115
    with pytest.raises(UserError, match=r"cannot write .*c.pt: No space left on device$"):
        save_checkpoint(tmp_path / "c.pt", content(1))
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "missing" / "file", "text")


def test_file_permissions_follow_the_umask(tmp_path):
    write_atomically(tmp_path / "file", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
