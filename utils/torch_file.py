"""Torch files: what a file is, whether it is whole, and the tensors and plain values in it; its code is never run.

A file that this project writes is sealed: the comment at the end of its zip archive holds a checksum of all bytes
before it, so that a changed bit anywhere is found before anything is unpickled. Other torch files are zip archives with
a checksum for each entry, which PyTorch does not compare; here it is compared. Files older than PyTorch 1.6 have none.
"""

import io
import logging
import os
import pickle
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from utils.errors import UserError

logger = logging.getLogger(__name__)

_SEAL = b"osnet-nas crc32 "  # eight hexadecimal digits follow
_SEAL_LENGTH = len(_SEAL) + 8
_CHUNK = 1 << 20  # bytes checked at once
_HEAD = 1024  # bytes that tell what a file is
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_ZIP_END, _ZIP_END_LENGTH = b"PK\x05\x06", 22  # of an archive without a comment

# what a reader raises for a file that is cut off or changed, depending on where
_DAMAGE = (
    RuntimeError, EOFError, LookupError, ValueError, AttributeError, AssertionError, TypeError, ArithmeticError,
    MemoryError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip

_KINDS = [  # how a file of another kind begins
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind)
    for pattern, kind in (
        (rb"version https://git-lfs", "a git-lfs pointer to the file; fetch the file itself with git lfs pull"),
        (rb"\W*<(!doctype html|html|head|body|\?xml)", "a web page; what the download brought is not the file itself"),
        (rb"\x93NUMPY", "a NumPy array (.npy)"),
        (rb"\x89HDF\r\n", "an HDF5 file"),
        (rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x3a\x42]", "an ONNX model, which cannot be turned back into weights"),
        (rb"[^\0].{0,6}\0+\{\s*\"", "a safetensors file; convert it with "
         "torch.save(safetensors.torch.load_file(FILE), 'weights.pth')"),
        (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar", "a compressed archive; unpack it first"),
        (rb"\xff\xd8\xff|\x89PNG|GIF8|BM.{4}\0{4}", "an image"),
    )
]  # fmt: skip


class _Ignored:
    """Stands in for the NumPy scalars of a Torchreid checkpoint (its scores), so that no code of NumPy's runs."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_IGNORED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
    )
]


def pack(document: Any) -> bytes:
    """Returns tensors and plain values as a sealed torch file, which ``torch.load`` reads too."""
    buffer = io.BytesIO()
    torch.save(document, buffer)
    body = buffer.getvalue()[:-2] + struct.pack("<H", _SEAL_LENGTH)  # a zip archive's end says how long its comment is
    return body + _SEAL + b"%08x" % zlib.crc32(body)


def read_torch_file(path: str | Path) -> Any:
    """Reads a torch file of tensors and plain values onto the CPU, once it is known to be whole.

    NumPy's scalars and arrays in it become placeholders.

    Raises:
        UserError: no such file, no torch file (the message says what it is), damaged, or holding code.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UserError(f"cannot read {path}: it is no regular file")
        with Path(path).open("rb") as file:
            _check_kind(path, file)
            return _unpickle(path, _verify(path, file))
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is truncated or damaged: {reason}") from error


def _check_kind(path: str | Path, file: BinaryIO) -> None:
    """Raises UserError, which says what the file is, unless it begins as a torch file does."""
    head = file.read(_HEAD)
    if head.startswith((_ZIP, _PICKLE)):
        return
    kind = next((kind for pattern, kind in _KINDS if pattern.match(head)), None)
    if kind is None:
        kind = "empty" if not head else "a text file" if _is_text(head) else "not a torch file, or it is damaged"
    raise UserError(f"{path} is {kind}" + ("" if ";" in kind or "torch" in kind else "; weights come in torch files"))


def _is_text(head: bytes) -> bool:
    try:
        return head.decode("utf-8").replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()
    except UnicodeDecodeError as error:
        return error.start > _HEAD - 4 and head[: error.start].isascii()  # the head ends inside a character


def _verify(path: str | Path, file: BinaryIO) -> BinaryIO:
    """Compares the checksums that the file has; raises UserError or one of ``_DAMAGE`` where they differ.

    Returns:
        What PyTorch may read: the file, or a copy of what the checksums stand for.
    """
    length = file.seek(0, os.SEEK_END)
    body_length = file.seek(max(length - _SEAL_LENGTH, 0))
    ending = file.read()
    file.seek(0)
    if ending.startswith(_SEAL):
        if ending[len(_SEAL) :] != b"%08x" % _compute_checksum(file, body_length):
            raise UserError(f"{path} is damaged: its content is not what was written (checksum)")
    elif file.read(len(_ZIP)) == _ZIP:
        if not ending[-_ZIP_END_LENGTH:].startswith(_ZIP_END):
            raise UserError(f"{path} is truncated or damaged: its end is missing")
        return _copy_entries(path, file, length)
    else:
        logger.info("%s is in the format before PyTorch 1.6, which has no checksums: changed bits go unnoticed", path)
    file.seek(0)
    return file


def _compute_checksum(file: BinaryIO, length: int) -> int:
    """Returns the CRC-32 of the next ``length`` bytes."""
    checksum, chunk = 0, memoryview(bytearray(_CHUNK))
    while length > 0 and (count := file.readinto(chunk[: min(length, _CHUNK)])):  # type: ignore[attr-defined]
        checksum, length = zlib.crc32(chunk[:count], checksum), length - count
    return checksum


def _copy_entries(path: str | Path, file: BinaryIO, length: int) -> BinaryIO:
    """Copies a torch file's zip archive, each entry compared with its checksum.

    The copy's directory is a new one: the checksums leave out the old one, from which PyTorch may read otherwise than
    Python does (a changed bit can make a folder of a tensor, whose numbers are then whatever the memory holds).
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as target:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        inner = {name.partition("/")[2] for name in names}
        if "constants.pkl" in inner:
            raise UserError(f"{path} is a TorchScript archive: it holds code, which is not run; save the state_dict")
        if "data.pkl" not in inner:
            kind = "a NumPy archive (.npz)" if any(name.endswith(".npy") for name in names) else "a zip archive"
            raise UserError(f"{path} is {kind}, not a torch file")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or len(names) < len(entries):
            raise UserError(f"{path} is damaged: PyTorch stores entries once and not compressed")
        if sum(entry.file_size for entry in entries) > length:
            raise UserError(f"{path} is damaged: its entries are larger than the file")
        for entry in entries:
            target.writestr(entry.filename, archive.read(entry))
    copy.seek(0)
    return copy


def _unpickle(path: str | Path, file: BinaryIO) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_IGNORED_GLOBALS):
            warnings.simplefilter("ignore")  # an error says more, and everything that is read is checked afterwards
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file) or "unsupported" in str(error).lower():
            raise UserError(f"{path} holds more than tensors and plain values; its code was not run") from error
        raise UserError(f"{path} is not a torch file, or it is damaged") from error
