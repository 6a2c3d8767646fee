"""What the environment says of this process: torchrun's variables, and the GPUs that it may use. Needs no PyTorch."""

import ctypes
import os
import signal
import socket
from dataclasses import dataclass

from utils.errors import UserError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
LAUNCHER_VARIABLE = "OSNET_NAS_LAUNCHER"  # set where a launcher of ours started the process
_NUM_SPINS = "30000"  # about 0.1 ms; measured: longer is slower beside other programs, shorter on an idle machine
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Launch:
    """A process among several, as torchrun starts them.

    Attributes:
        rank: Of this process among all, from 0.
        world_size: Processes in all.
        local_rank: Of this process among those of its machine, from 0.
        local_world_size: Processes on this machine.
        address: Where all of them meet.
        port: The same.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int


def read_launch() -> Launch | None:
    """Reads the variables that torchrun sets; None where ``RANK`` is not among them, whatever else a shell holds.

    Raises:
        UserError: they are incomplete, contradict each other, or name a machine that nobody knows.
    """
    if "RANK" not in os.environ:
        return None
    advice = "start with torchrun, or unset RANK to run alone"
    if missing := [name for name in (*_NUMBERS, "MASTER_ADDR") if not os.environ.get(name)]:
        raise UserError(f"RANK is set, as torchrun does, but not {', '.join(missing)}; {advice}")
    for name in _NUMBERS:
        if not _is_number(os.environ[name]):
            raise UserError(f"{name} is {os.environ[name]!r} in the environment, a whole number is expected; {advice}")
    rank, world_size, local_rank, local_world_size, port = (int(os.environ[name]) for name in _NUMBERS)
    if not (local_rank <= rank < world_size and local_rank < local_world_size <= world_size and port < 2**16):
        shown = ", ".join(f"{name} {os.environ[name]}" for name in _NUMBERS)
        raise UserError(f"the environment contradicts itself ({shown}); {advice}")
    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f"MASTER_ADDR is {address!r} in the environment, no such machine is known; {advice}") from error
    return Launch(rank, world_size, local_rank, local_world_size, address, port)


def is_first_on_machine() -> bool:
    """Whether this process reports what each process here finds: it is the only one, or torchrun's first."""
    try:
        launch = read_launch()
    except UserError:
        return True
    return launch is None or launch.local_rank == 0


def stop_with_launcher() -> None:
    """Has the kernel send SIGTERM to this process when what started it is killed: as an orphan it would train on.

    That is torchrun, or a search that trains many networks (``LAUNCHER_VARIABLE``); never a shell.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or LAUNCHER_VARIABLE in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_briefly() -> None:
    """Lets OpenMP's threads sleep soon when they wait for each other; must come before PyTorch is imported.

    GCC's OpenMP has them wait busily for milliseconds. Where other programs use the cores too, each then keeps from its
    core the very thread that it waits for, and a step takes many times as long. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _NUM_SPINS)


def select_gpus(devices: str) -> None:
    """Makes only the listed GPUs visible; must come before CUDA is first used.

    Args:
        devices: Numbers or names separated by commas, such as "0,1". Where ``CUDA_VISIBLE_DEVICES`` already lists what
            a scheduler has given, numbers count in that list, and names (``GPU-…``, ``MIG-…``) must be in it.

    Raises:
        UserError: neither numbers nor such names, one twice, or one that is not in the list.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = None if given is None else [name.strip() for name in given.split(",") if name.strip()]
    chosen = [_find_gpu(part.strip(), visible, devices) for part in devices.split(",")]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--gpu-devices {devices}: names a GPU twice")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)


def _find_gpu(part: str, visible: list[str] | None, devices: str) -> str:
    """Returns a GPU as ``CUDA_VISIBLE_DEVICES`` names it; raises what ``select_gpus`` does."""
    is_number = _is_number(part)
    if not is_number and not part.startswith(("GPU-", "MIG-")):
        raise UserError(f"--gpu-devices {devices}: expected numbers separated by commas, such as 0,1")
    if visible is None:
        return str(int(part)) if is_number else part
    found = visible[int(part) : int(part) + 1] if is_number else [name for name in visible if name.startswith(part)]
    if len(found) != 1:
        listed = f"CUDA_VISIBLE_DEVICES={','.join(visible)}"
        numbers = f"the numbers 0 to {len(visible) - 1} count in it" if visible else "there is no GPU for this run"
        raise UserError(f"--gpu-devices {devices}: {part} is not in {listed}; {numbers}")
    return found[0]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
