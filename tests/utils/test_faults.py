"""Errors of a machine at its limits."""

import errno

import torch

from utils.faults import is_full_memory, is_out_of_shared_memory, is_out_of_threads


def test_full_memory_is_told_from_other_errors():
    assert is_full_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"))
    assert is_full_memory(MemoryError())
    assert is_full_memory(RuntimeError("CUDA error: out of memory"))
    assert is_full_memory(RuntimeError("Storage size calculation overflowed with sizes=[1000000000000000000, 3]"))
    assert not is_full_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_missing_threads_are_told_from_other_errors():
    assert is_out_of_threads(RuntimeError("can't start new thread"))
    assert not is_out_of_threads(RuntimeError("can't allocate memory"))


def test_full_shared_memory_is_told_from_other_errors():
    assert is_out_of_shared_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert is_out_of_shared_memory(OSError(errno.EMFILE, "Too many open files"))
    assert is_out_of_shared_memory(RuntimeError("unable to write to file </torch_12_3>: No space left on device (28)"))
    assert not is_out_of_shared_memory(OSError(errno.ENOSPC, "No space left on device", "/x/last.pt"))
    assert not is_out_of_shared_memory(OSError(errno.EACCES, "Permission denied"))
