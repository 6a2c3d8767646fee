"""Finds image files that are broken, before a training run meets them."""

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils.images import CorruptImageError, ImageError, check_size, find_jpeg_size
from utils.printable import make_printable
from utils.work_share import WHOLE, WorkShare

_HEAD_BYTES = 1 << 16  # one read takes in the whole of most images of people
_TAIL_BYTES = 1 << 12  # how much may follow the end marker: some cameras and tools add data there
_BLOCK = 256  # files per thread at a time
_FILL = bytes(16)
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB\x60\x82"
_NO_JPEG_END = "JPEG without its end marker: cut off"
_OTHER_KINDS = (b"II*\0", b"MM\0*", b"P5", b"P6")  # TIFF, PGM, PPM: known by their first bytes alone


def find_broken(
    paths: Sequence[str], workers: int = 4, thorough: bool = False, share: WorkShare = WHOLE
) -> list[tuple[str, str]]:
    """Finds the files that are not whole images, as ``decode_image`` judges them.

    The quick check decodes only what looks suspicious: it reads a file's beginning and end, and checks that
    the first bytes are those of a kind it knows, whichever ending the name has, then the size in pixels and the end
    marker (JPEG, PNG) or the length that the header gives (BMP, WebP). It does not see damage in between.

    One fault counts that the decoder may miss: a JPEG filled up with zeros, which it takes for grey pixels.

    Args:
        paths: Files to check.
        workers: Threads; they help where the files come from a slow disk, and gain nothing once files are cached.
        thorough: Decode every image, which is far slower.
        share: This process's share of the files, which are the same in all processes; all get all findings.

    Returns:
        Path and reason of each broken file, in the order of ``paths`` for any number of threads.
    """
    own = paths[share.index :: share.count]
    blocks = [own[start : start + _BLOCK] for start in range(0, len(own), _BLOCK)]

    def check_block(block: Sequence[str]) -> list[tuple[str, str]]:
        return [(path, reason) for path in block if (reason := _find_fault(path, thorough))]

    with ThreadPoolExecutor(workers) as pool:
        found = [finding for findings in pool.map(check_block, blocks) for finding in findings]
    reasons = dict(finding for findings in share.gather(found) for finding in findings)
    return [(path, reasons[path]) for path in paths if path in reasons]


def _find_fault(path: str, thorough: bool) -> str:
    """Says what is wrong with a file; empty if nothing."""
    suspicion = _inspect(path)
    if not suspicion and not thorough:
        return ""
    if suspicion == _NO_JPEG_END and _is_filled_up(path):
        return suspicion
    from datasets.decode import decode_image  # PyTorch, which most data sets are checked without

    try:
        decode_image(path)
    except CorruptImageError as error:
        return suspicion or f"cannot be decoded: {str(error).partition(f'{make_printable(path)}: ')[2]}"
    return ""


def _inspect(path: str) -> str:
    """Says what looks wrong with a file by its beginning and end; empty if nothing."""
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
    """Says what looks wrong with a file of ``size`` bytes that begins with ``head`` and ends with ``tail``."""
    if head.startswith(b"\xff\xd8\xff"):
        return _find_excess(find_jpeg_size(head)) or ("" if _JPEG_END in tail else _NO_JPEG_END)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        excess = _find_excess(struct.unpack(">II", head[16:24]) if len(head) >= 24 else None)
        return excess or ("" if _PNG_END in tail else "PNG without its last chunk: cut off")
    if head.startswith(b"BM") and size >= 6:
        return _judge_size("BMP", int.from_bytes(head[2:6], "little"), size)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _judge_size("WebP", int.from_bytes(head[4:8], "little") + 8, size)
    if head.startswith(_OTHER_KINDS):
        return ""
    return f"not an image: begins with {head[:8]!r}" if head else "empty file"


def _find_excess(size: tuple[int, int] | None) -> str:
    """Says that an image of this width and height is too large; empty if it is not."""
    try:
        check_size(*(size or (0, 0)))
    except ImageError as error:
        return str(error)
    return ""


def _judge_size(kind: str, expected: int, size: int) -> str:
    return f"{kind} of {size} bytes, its header says {expected}: cut off" if size < expected else ""


def _is_filled_up(path: str) -> bool:
    """Whether a JPEG ends in zeros, as a copy leaves it that reserved the space and then stopped."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    return content.endswith(_FILL) and _JPEG_END not in content
