"""The channels-last layout: a pixel's channels lie side by side in memory."""

import torch
from torch import Tensor

CHUNK = 2**19  # numbers of a map for a thread of a CPU at a time: more leave its cache, fewer cost too many calls


def is_channels_last(x: Tensor) -> bool:
    """Whether N×C×H×W maps lie in channels-last, and not in the contiguous layout as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def as_rows(x: Tensor) -> Tensor:
    """Returns maps in channels-last as (N, H · W, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def chunk_size(x: Tensor) -> int:
    """Returns how many numbers of ``x`` are to be worked on at a time: all on a GPU."""
    return x.numel() if x.is_cuda else CHUNK * torch.get_num_threads()


def images_per_chunk(x: Tensor) -> int:
    """Returns how many of the images of ``x`` (N, …) make such a chunk, at least one."""
    return max(1, chunk_size(x) // max(1, x.shape[1:].numel()))
