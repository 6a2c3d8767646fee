"""Faults of the machine that come as errors of other names."""

import errno
import sys

_FULL = (  # in plain RuntimeErrors
    *("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED"),
    "Storage size calculation overflowed",
)


def is_full_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory was not enough."""
    torch = sys.modules.get("torch")  # loading it takes seconds, which a tool that needs none is spared
    kinds = (MemoryError, torch.OutOfMemoryError) if torch else MemoryError
    return isinstance(error, kinds) or any(words in str(error) for words in _FULL)


def is_out_of_threads(error: BaseException) -> bool:
    """Whether an error says that the system gives no further thread: limits of a user, a container, or the memory."""
    return "can't start new thread" in str(error)


def is_out_of_shared_memory(error: BaseException) -> bool:
    """Whether an error says that there is no room for what processes share, or that no further file can be opened."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE) and error.filename is None
    return any(words in str(error) for words in ("shared memory", "unable to write to file </torch_"))
