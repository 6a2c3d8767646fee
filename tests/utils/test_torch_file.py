"""Torch files: sealed, told from files of other kinds, checked for damage before anything is unpickled.

The environment variable FLIPS sets how many bits are flipped, one at a time (default 60; 2000 before a release).
"""

import io
import json
import os
import pickletools
import random
import struct
import zipfile

import numpy as np
import pytest
import torch

from osnet_child import build_child
from tests.same import assert_same
from utils.errors import UserError
from utils.printable import make_printable
from utils.seed import capture_random_states
from utils.torch_file import pack, read_torch_file

FLIPS = int(os.environ.get("FLIPS", "60"))


@pytest.fixture(scope="module")
def document():
    """A child's training checkpoint."""
    torch.manual_seed(0)
    model = build_child(4, width=0.25)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 32, 16)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizers": {"weights": optimizer.state_dict()},
        "random": capture_random_states(),
    }


def save(document, zipped):
    buffer = io.BytesIO()
    torch.save(document, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def assert_refused(path, *words):
    with pytest.raises(UserError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    shown = make_printable(str(path))
    assert message.startswith((f"{shown} ", f"cannot read {shown}", f"no checkpoint {shown}"))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_sealed_file_comes_back_and_is_an_ordinary_torch_file(tmp_path, document):
    path = tmp_path / "sealed.pt"
    path.write_bytes(pack(document))
    assert_same(read_torch_file(path), document)
    assert_same(torch.load(path, weights_only=True), document)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_without_a_seal_are_read(tmp_path, document, zipped, caplog):
    caplog.set_level("INFO")
    (tmp_path / "other.pt").write_bytes(save(document, zipped))
    assert_same(read_torch_file(tmp_path / "other.pt"), document)
    assert ("which has no checksums" in caplog.text) == (not zipped)


def draw_flips(content, count, seed):
    """Draws positions and bits, half of them outside of the tensors, where a file's structure is."""
    rng = random.Random(seed)
    start, end = content.index(b"PK\x03\x04", 4), content.index(b"PK\x01\x02")  # after the pickle; the directory
    for number in range(count):
        position = rng.randrange(len(content))
        if number % 2:
            position = rng.choice((rng.randrange(start), rng.randrange(end, len(content))))
        yield position, 1 << rng.randrange(8)


@pytest.mark.parametrize("kind", ["sealed", "zip"])
def test_any_flipped_bit_ends_in_the_right_content_or_in_one_line(tmp_path, document, kind):
    content = pack(document) if kind == "sealed" else save(document, zipped=True)
    path, num_refused = tmp_path / "flipped.pt", 0
    for position, bit in draw_flips(content, FLIPS, seed=1):
        changed = bytearray(content)
        changed[position] ^= bit
        path.write_bytes(changed)
        try:
            assert_same(read_torch_file(path), document, f"byte {position}, bit {bit}")
        except UserError as error:
            num_refused += 1
            assert "\n" not in str(error)
    assert num_refused == FLIPS if kind == "sealed" else num_refused > FLIPS / 2


def test_flipped_structure_of_a_legacy_file_ends_in_one_line_or_in_values(tmp_path, document):
    """It has no checksums, so that a flip in a tensor or in a name goes unnoticed here; but it comes to an end."""
    content = save({"state_dict": document["model"]}, zipped=False)
    stream = io.BytesIO(content)
    for _ in range(5):  # magic number, protocol, machine, content, keys of tensors
        for _ in pickletools.genops(stream):
            pass
    rng, path = random.Random(2), tmp_path / "flipped.pth"
    for _ in range(FLIPS // 3):
        changed = bytearray(content)
        changed[rng.randrange(stream.tell())] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            read_torch_file(path)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["sealed", "zip"])
def test_cut_off_anywhere(tmp_path, document, kind):
    whole = pack(document) if kind == "sealed" else save(document, zipped=True)
    path, rng = tmp_path / "cut.pt", random.Random(3)
    for length in (1, 4, len(whole) - 1, len(whole) - 8, len(whole) - 30, *rng.choices(range(len(whole)), k=6)):
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_changed_tensor_of_another_program_is_named(tmp_path, document):
    content = bytearray(save({"weight": torch.full((1000,), 3.0)}, zipped=True))
    content[content.index(struct.pack("<5f", *[3.0] * 5)) + 6] ^= 1
    (tmp_path / "other.pth").write_bytes(content)
    torch.load(tmp_path / "other.pth", weights_only=True)  # PyTorch takes it
    assert_refused(tmp_path / "other.pth", "damaged", "Bad CRC-32 for file 'archive/data/0'")


def test_a_tensor_called_a_folder_is_read_all_the_same(tmp_path):
    """No checksum covers a zip archive's directory; PyTorch gives uninitialised memory for such a tensor."""
    content = bytearray(save({"weight": torch.full((1000,), 3.0)}, zipped=True))
    name = content.index(b"archive/data/0", content.index(b"PK\x01\x02"))
    content[name - 8] ^= 0x10  # of the entry's attributes
    (tmp_path / "other.pth").write_bytes(content)
    assert torch.equal(read_torch_file(tmp_path / "other.pth")["weight"], torch.full((1000,), 3.0))


def test_entries_that_are_larger_than_the_file_or_compressed(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    assert_refused(tmp_path / "bomb.pth", "damaged", "not compressed")


SAFETENSORS = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html><head>", "a web page"),
        (b"\xef\xbb\xbf\n<html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (struct.pack("<Q", len(SAFETENSORS)) + SAFETENSORS + b"\0" * 4, "safetensors.torch.load_file"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x032.1", "an ONNX model"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
        (b"\x1f\x8b\x08\0\0", "unpack it first"),
        (b"\0" * 257 + b"ustar\x0000", "unpack it first"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"model:\n  width: 1.0\n", "a text file"),
        ("Gewichte für später".encode() * 200, "a text file"),
        (b"\x01\x02\x03\x04" * 9, "not a torch file"),
        (b"PK\x03\x04 and no more", "end is missing"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path, content, told):
    (tmp_path / "weights.pth").write_bytes(content)
    assert_refused(tmp_path / "weights.pth", told)


def test_arrays_and_archives_of_other_programs(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert_refused(tmp_path / "a.npy", "a NumPy array (.npy)")
    np.savez(tmp_path / "a.npz", features=np.zeros(3))
    assert_refused(tmp_path / "a.npz", "a NumPy archive (.npz)")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert_refused(tmp_path / "a.zip", "a zip archive")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save lays it out
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            archive.writestr(name, b"\x80\x02N.")
    assert_refused(tmp_path / "script.pt", "a TorchScript archive", "state_dict")


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        assert_refused(path, "no regular file")
    assert_refused(tmp_path / ("x" * 300), "File name too long")
    assert_refused(tmp_path / "missing.pt", "no checkpoint")
    assert_refused(f"{tmp_path}/a\0b", "null")


def test_reading_leaves_the_allowed_globals_as_they_were(tmp_path, document):
    allowed = set(torch.serialization.get_safe_globals())
    (tmp_path / "a.pt").write_bytes(pack({"score": np.float64(0.5)}))
    assert type(read_torch_file(tmp_path / "a.pt")["score"]) is not np.float64
    assert set(torch.serialization.get_safe_globals()) == allowed
