"""The other processes of a run: meeting them and nobody else, and ending together with them."""

import contextlib
import os
import threading
import time
import uuid

from torch import distributed
from torch.distributed.distributed_c10d import default_pg_timeout

_POLL_SEC = 0.5  # between two looks for another process's end
_HEARD_SEC = 10.0  # at most, for the others to hear of the end of the process that the store ends with
_ENDING = "ending"  # rank and exit code of the first process that ends early


def private_store(store: distributed.Store, rank: int, world_size: int) -> distributed.Store:
    """Returns a part of ``store`` that only these processes use; waits until all of them are there.

    torchrun keeps its store over a restart, with what earlier processes left in it, and nothing in the environment
    that is the same on all machines tells two rounds apart. So rank 0 offers a name that nobody had before, and
    confirms it when all have answered. A name that a killed rank 0 left on offer is never confirmed.

    Raises:
        torch.distributed.DistStoreError: a process does not come within half an hour.
    """
    if rank == 0:
        name = uuid.uuid4().hex
        store.set("offer", name)
        if world_size > 1:
            store.wait([f"{name}/{other}" for other in range(1, world_size)], default_pg_timeout)
        store.set("offer", "")
        store.set(f"{name}/confirmed", "")
        return distributed.PrefixStore(name, store)
    name, end = "", time.monotonic() + default_pg_timeout.total_seconds()
    while not store.check([f"{name}/confirmed"]):
        if time.monotonic() > end:
            raise distributed.DistStoreError("rank 0 did not come")
        time.sleep(0.02)
        name = store.get("offer").decode() or name
        store.set(f"{name}/{rank}", "")
    return distributed.PrefixStore(name, store)


class Peers:
    """The other processes of a run: when one of them ends early, this one ends too, with the same exit code.

    Without it the others would wait for the lost one in their next exchange, with NCCL for minutes.

    Args:
        store: What all processes, and they alone, can read and write.
        rank: This process among all.
        world_size: Processes in all.
    """

    def __init__(self, store: distributed.Store, rank: int, world_size: int) -> None:
        self._store = store.clone()  # a connection of its own: another thread may wait for an answer on the given one
        self._rank, self._others = rank, [f"heard/{other}" for other in range(world_size) if other != rank]
        self._has_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops looking for the others' ends."""
        self._closed.set()
        self._thread.join()

    def end(self, exit_code: int) -> None:
        """Ends this process, without a word and with the first one's exit code, unless it is the first to end.

        The first one returns, for it to say why.
        """
        self.close()
        mine = f"{self._rank} {exit_code}"
        try:
            if self._store.compare_set(_ENDING, "", mine).decode() != mine:
                self._follow()
            elif self._has_store:
                end = time.monotonic() + _HEARD_SEC
                while time.monotonic() < end and not all(self._store.check([other]) for other in self._others):
                    time.sleep(0.02)
        except RuntimeError:  # rank 0 was killed, and the store went with it: the next one says so
            if self._rank > 1:
                os._exit(exit_code)

    def _follow(self) -> None:
        """Ends this process as the first one to end does, and lets that one know before."""
        exit_code = int(self._store.get(_ENDING).split()[1])
        with contextlib.suppress(RuntimeError):
            self._store.set(f"heard/{self._rank}", "")
        os._exit(exit_code)

    def _watch(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store goes with a process, with which exchanges then fail
            while not self._closed.wait(_POLL_SEC):
                if self._store.check([_ENDING]):
                    self._follow()
