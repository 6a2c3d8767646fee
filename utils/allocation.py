"""The memory that a CPU computes in: kept for the next step once it is there."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_PAD = 2**26  # bytes by which the heap grows at least


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, and take large tensors from there, where the C library can.

    Otherwise glibc gives large tensors back to the system and gets them anew, page by page, in every step; these pages
    took a fifth of a training step at x1.0 and 256×128. What a process needs at most hardly grows.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system, another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, _PAD)
