"""Files of arrays: what is whole is read, and whatever a file holds instead is one line."""

import io
import random
import zipfile

import numpy as np
import pytest

from utils.errors import UserError
from utils.read_arrays import read_arrays

VALUES = np.arange(500) / 7


def make_file(compressed: bool = True) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, scores=VALUES, name=np.array("text"))
    return file.getvalue()


def make_header(shape: str, body: bytes = b"") -> bytes:
    """Makes a file whose array claims a shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - len(header) % 64) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("scores.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_are_read(tmp_path, compressed):
    (tmp_path / "a.npz").write_bytes(make_file(compressed))
    name, scores = read_arrays(tmp_path / "a.npz", "ranking", ["name", "scores"])
    assert str(name) == "text"
    assert (scores == VALUES).all()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"text", b"\x80\x04N.", make_file()[:-100], make_header(f"({10**30},)"), make_header("(True,)"),
        make_header(f"({10**12},)"), make_header("(-500,)"), make_header("(500,)"), make_header("(__import__('os'),)"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_one_line(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"is no ranking, or damaged: expected is an \.npz file with 'scores'"):
        read_arrays(tmp_path / "a.npz", "ranking", ["scores"])


def test_a_single_array_or_objects_are_refused(tmp_path):
    for save in (lambda file: np.save(file, VALUES), lambda file: np.savez(file, scores=np.array([None]))):
        with (tmp_path / "a.npz").open("wb") as file:
            save(file)
        with pytest.raises(UserError, match="is no ranking"):
            read_arrays(tmp_path / "a.npz", "ranking", ["scores"])


def test_what_would_fill_the_memory_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(make_file())
    with pytest.raises(UserError, match="unpacked it has more than 4,000 bytes"):
        read_arrays(tmp_path / "a.npz", "ranking", ["scores"], max_bytes=4000)


def test_other_arrays_may_be_of_any_size(tmp_path):
    """A one-shot search's ranking also keeps what each of thousands of queries says of each of 4,096 networks."""
    np.savez(tmp_path / "a.npz", scores=VALUES, ap=np.zeros(10_000))
    (scores,) = read_arrays(tmp_path / "a.npz", "ranking", ["scores"], max_bytes=5000)
    assert (scores == VALUES).all()


@pytest.mark.filterwarnings("ignore")  # of zipfile about names
def test_any_flipped_byte_gives_the_right_values_or_one_line(tmp_path):
    whole, generator, path = make_file(), random.Random(0), tmp_path / "a.npz"
    for _ in range(300):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= generator.randrange(1, 256)
        path.write_bytes(content)
        try:
            (scores,) = read_arrays(path, "ranking", ["scores"])
        except UserError:
            continue
        assert (scores == VALUES).all()
