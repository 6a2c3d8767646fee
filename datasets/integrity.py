"""Finds image files that are broken, before a training run meets them."""

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

_HEAD_BYTES = 1 << 16  # one read takes in the whole of most images of people
_TAIL_BYTES = 1 << 12  # how much may follow the end marker: some cameras and tools add data there
_BLOCK = 256  # files a thread takes at a time
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB\x60\x82"
_OTHER_KINDS = (b"II*\0", b"MM\0*", b"P5", b"P6")  # TIFF, PGM, PPM: known by their first bytes alone
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def find_broken(paths: Sequence[str], workers: int = 4, thorough: bool = False) -> list[tuple[str, str]]:
    """Finds the files that are no whole images.

    The quick check reads a file's beginning and end: its kind by the first bytes, whatever its name ends in, then
    the end marker (JPEG, PNG) or the length that the header tells (BMP, WebP). It does not see damage in between.

    Args:
        paths: Files to check.
        workers: Threads; they help where the files come from a slow disk, and gain nothing once files are cached.
        thorough: Decode each image as well, which sees all damage that Pillow sees and is far slower.

    Returns:
        Path and reason of each broken file, in the order of ``paths`` whatever the number of threads.
    """
    check = _decode if thorough else _inspect
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]

    def check_block(block: Sequence[str]) -> list[tuple[str, str]]:
        return [(path, reason) for path in block if (reason := check(path))]

    with ThreadPoolExecutor(workers) as pool:
        return [finding for findings in pool.map(check_block, blocks) for finding in findings]


def _inspect(path: str) -> str:
    """Says what is wrong with a file by its beginning and end; empty if nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            head = os.read(descriptor, _HEAD_BYTES)
            if len(head) < _HEAD_BYTES:
                return _judge(head, head[-_TAIL_BYTES:], len(head))
            size = os.fstat(descriptor).st_size
            return _judge(head, os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES)), size)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _judge(head: bytes, tail: bytes, size: int) -> str:
    """Says what is wrong with a file of ``size`` bytes that begins with ``head`` and ends with ``tail``."""
    if head.startswith(b"\xff\xd8\xff"):
        return "" if _JPEG_END in tail else "JPEG without its end marker: cut off"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "" if _PNG_END in tail else "PNG without its last chunk: cut off"
    if head.startswith(b"BM") and size >= 6:
        return _judge_size("BMP", int.from_bytes(head[2:6], "little"), size)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _judge_size("WebP", int.from_bytes(head[4:8], "little") + 8, size)
    if head.startswith(_OTHER_KINDS):
        return ""
    return f"not an image: begins with {head[:8]!r}" if head else "empty file"


def _judge_size(kind: str, expected: int, size: int) -> str:
    return f"{kind} of {size} bytes, its header says {expected}: cut off" if size < expected else ""


def _decode(path: str) -> str:
    """Says what is wrong with a file by decoding it; empty if nothing."""
    reason = _inspect(path)
    if reason:
        return reason
    try:
        with Image.open(path) as image:
            image.load()
    except _DECODE_ERRORS as error:
        return f"cannot be decoded: {error}"
    return ""
