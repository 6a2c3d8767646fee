"""A device named by the user, checked before anything is computed on it."""

import os

import torch

from utils.errors import UserError


def list_gpus() -> list[str]:
    """Lists the GPUs of this machine that a process may be given, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]


def open_device(name: str | torch.device) -> torch.device:
    """Returns the device after a computation on it has worked.

    Args:
        name: As PyTorch names it: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"device {str(name)!r} cannot be used: {reason}; cpu always works") from error
    return device
