"""What the environment says of this process: torchrun's variables. Needs no PyTorch."""

import os


def is_first_on_machine() -> bool:
    """Whether this process reports what each process here finds: it is the only one, or torchrun's first.

    A ``LOCAL_RANK`` that a shell was left with makes no process one of several: torchrun sets all of its variables.
    """
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    if not all(n.isascii() and n.isdecimal() and len(n) < 10 for n in numbers):
        return True
    rank, world_size, local_rank, local_world_size = map(int, numbers)
    is_launched = local_rank <= rank < world_size and local_rank < local_world_size <= world_size
    return not is_launched or local_rank == 0
