"""Faults of the machine that come as errors of other names."""

import torch

_FULL = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")  # in plain RuntimeErrors


def is_full_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory was not enough."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _FULL)


def is_out_of_threads(error: BaseException) -> bool:
    """Whether an error says that the system gives no further thread: limits of a user, a container, or the memory."""
    return "can't start new thread" in str(error)
