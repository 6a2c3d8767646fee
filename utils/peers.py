"""The other processes of a run: finding them, and ending together with them."""

import contextlib
import logging
import os
import signal
import threading
import time
import uuid

from torch import distributed
from torch.distributed.distributed_c10d import default_pg_timeout

from utils.errors import UserError

logger = logging.getLogger(__name__)

_POLL_SEC = 0.5  # how often a process looks whether another one has ended
_GRACE_SEC = 3.0  # for a process that is about to end by itself
_HEARD_SEC = 2.0  # the others have for hearing that a process ends, before it does and its store with it
_ENDING = "ending"  # here the first process to end early tells the others its rank and exit code


def keep_to_ourselves(store: distributed.Store, rank: int, world_size: int) -> distributed.Store:
    """Returns a part of ``store`` that only these processes know; waits until all of them are there.

    torchrun may keep its store over a restart, with what the processes before have left in it. Nothing in the
    environment tells two rounds apart that is the same on all machines: the restart count is each agent's own. So rank
    0 draws a name and gives it to whoever asks under a number drawn for this purpose.

    Raises:
        UserError: a process does not come.
    """
    end = time.monotonic() + default_pg_timeout.total_seconds()

    def wait() -> None:
        if time.monotonic() > end:
            raise UserError(f"the {world_size} processes of this run did not find each other within half an hour")
        time.sleep(0.02)

    if rank > 0:
        ticket = uuid.uuid4().hex
        store.set(f"ask/{rank}", ticket)
        while not store.check([f"answer/{ticket}"]):
            wait()
        name = store.get(f"answer/{ticket}").decode()
        store.set(f"{name}/met/{rank}", "")
        return distributed.PrefixStore(name, store)
    name = uuid.uuid4().hex
    missing = set(range(1, world_size))
    while missing := {other for other in missing if not store.check([f"{name}/met/{other}"])}:
        for other in missing:
            if store.check([f"ask/{other}"]):  # perhaps the question of a process before, then nobody reads the answer
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
        wait()
    return distributed.PrefixStore(name, store)


class Peers:
    """The other processes of a run: tells them when this one ends early, and ends this one when one of them has.

    Without it the others would wait for the lost one in their next exchange, with NCCL for minutes. Under torchrun it
    also asks this process to stop, as SIGTERM does, when its agent is gone: nobody else would end it.

    Args:
        store: What all processes can read and write.
        rank: This process among all.
        world_size: Processes in all.
    """

    def __init__(self, store: distributed.Store, rank: int, world_size: int) -> None:
        # its own connection: another thread may wait for an answer on the one that is there
        self._store = store.clone() if hasattr(store, "clone") else store
        self._rank, self._others = rank, [r for r in range(world_size) if r != rank]
        self._told: int | None = None
        self._agent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def announce(self, exit_code: int) -> int | None:
        """Tells the others that this process ends.

        Returns:
            None for the first to do so, which speaks for all and whose exit code counts; else that exit code.
        """
        if self._told is not None:  # and the store may be gone since
            return self._told
        mine = f"{self._rank} {exit_code}"
        try:
            if self._store.compare_set(_ENDING, "", mine).decode() == mine:
                self._wait_until_heard()
                return None
            return self._hear()
        except RuntimeError:  # the process that has the store is gone
            return None if self._rank == 0 else exit_code

    def close(self) -> None:
        """Stops to look after the others."""
        self._closed.set()
        self._thread.join()

    def _wait_until_heard(self) -> None:
        end = time.monotonic() + _HEARD_SEC
        with contextlib.suppress(RuntimeError):  # the process that has the store has heard it, and is gone
            while time.monotonic() < end and not all(self._store.check([f"heard/{other}"]) for other in self._others):
                time.sleep(0.02)

    def _hear(self) -> int:
        """Returns the exit code that another process has announced, and tells that process so."""
        self._told = int(self._store.get(_ENDING).split()[1])
        self._store.set(f"heard/{self._rank}", "")
        return self._told

    def _watch(self) -> None:
        has_store = True
        while not self._closed.wait(_POLL_SEC):
            self._look_after_agent()
            try:
                if has_store and self._store.check([_ENDING]):
                    exit_code = self._hear()
                    if not self._closed.wait(_GRACE_SEC):
                        os._exit(exit_code)
                    return
            except RuntimeError:  # it went with the process that had it; exchanges with that one fail by themselves
                has_store = False

    def _look_after_agent(self) -> None:
        if self._agent in (None, os.getppid()):
            return
        self._agent = None
        if callable(signal.getsignal(signal.SIGTERM)):  # else it came already: the second one would end at once
            if self._rank == 0:
                logger.warning("torchrun is gone, its processes stop")
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
