"""A device named by the user, checked before anything is computed on it."""

import torch

from utils.errors import UserError


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
