"""Several processes' shares of a piece of work, played by threads of one."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from utils.work_share import WorkShare

T = TypeVar("T")


def run_shares(count: int, work: Callable[[WorkShare], T]) -> list[T]:
    """Returns what each of ``count`` shares gives, all at work at the same time."""
    values: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def make(index: int) -> WorkShare:
        def gather(value: Any) -> list[Any]:
            values[index] = value
            barrier.wait()
            gathered = list(values)
            barrier.wait()
            return gathered

        return WorkShare(index, count, gather)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, [make(index) for index in range(count)]))
