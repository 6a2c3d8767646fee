"""Runs many command lines, each in a process of its own: on this machine, or spread by Ray over many.

A command is one that can be repeated: where it was stopped, it goes on. So a machine that is lost costs what its
processes had not saved, and nothing else needs to know of it.
"""

import logging
import os
import queue
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError
from utils.launch import LAUNCHER_VARIABLE

logger = logging.getLogger(__name__)

CONNECT_SEC = 10
RETRIES = 3  # of a command whose machine was lost


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        name: The command's.
        exit_code: 0 for success.
        message: The last line that it wrote on stderr, "" for none.
    """

    name: str
    exit_code: int
    message: str


Launcher = Callable[[Mapping[str, Sequence[str]]], Iterator[Outcome]]  # yields outcomes as they come


@dataclass(frozen=True)
class LocalLauncher:
    """Runs commands on this machine, which share its processors unless OMP_NUM_THREADS says how many threads each has.

    Attributes:
        jobs: Processes at a time, at least 1.
        gpus: Names of the GPUs to share out among them, as in CUDA_VISIBLE_DEVICES; none: CPU.
    """

    jobs: int
    gpus: Sequence[str] = ()

    def __call__(self, commands: Mapping[str, Sequence[str]]) -> Iterator[Outcome]:
        """Yields each command's outcome when it has ended.

        Whatever ends the iteration early, a signal above all, asks the commands that still run to stop, and waits.
        """
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // self.jobs))
        jobs = max(1, min(self.jobs, len(commands)))
        places: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for place in range(jobs):
            gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[place % len(self.gpus)]} if self.gpus else {}
            places.put({"OMP_NUM_THREADS": threads, **gpu})
        running: set[subprocess.Popen[str]] = set()

        def run_in_place(name: str, command: Sequence[str]) -> Outcome:
            place = places.get()
            try:
                return run_command(name, command, place, running)
            finally:
                places.put(place)

        pool = ThreadPoolExecutor(jobs)
        try:
            left = {pool.submit(run_in_place, name, command) for name, command in commands.items()}
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.send_signal(signal.SIGTERM)
            pool.shutdown(wait=True)


@dataclass(frozen=True)
class RayLauncher:
    """Runs commands on a Ray cluster, in one thread each; every machine sees the same folders under the same paths.

    Attributes:
        address: ``auto`` for the cluster that this machine is part of, or HOST:PORT.
        gpus_per_job: GPUs for each process, a fraction where several share one; 0: CPU.
    """

    address: str
    gpus_per_job: float

    def __call__(self, commands: Mapping[str, Sequence[str]]) -> Iterator[Outcome]:
        """Yields each command's outcome when it has ended; commands of lost machines are started again elsewhere.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached.
        """
        ray = self._connect()
        try:
            run = ray.remote(num_cpus=1, num_gpus=self.gpus_per_job, max_retries=RETRIES, retry_exceptions=False)(
                run_command
            )
            threads = {"OMP_NUM_THREADS": "1"}
            left = [run.remote(name, list(command), threads) for name, command in commands.items()]
            while left:
                done, left = ray.wait(left)
                yield from ray.get(done)
        finally:
            ray.shutdown()

    def _connect(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "nas.design.cluster needs Ray, which is not installed: pip install -r requirements-cluster.txt"
            ) from error
        problem = f"no Ray cluster at {self.address!r}; start one with ray start --head"
        try:
            if self.address != "auto":  # Ray itself ends the process where nobody answers
                host, _, port = self.address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SEC).close()
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise UserError(problem) from error
        return ray


def run_command(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    running: set[subprocess.Popen[str]] | None = None,
) -> Outcome:
    """Runs a command to its end.

    Args:
        name: The command's.
        command: Program and arguments.
        environment: What is set beside the environment of this process.
        running: The process is in here while it runs.
    """
    with subprocess.Popen(
        list(command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **environment, LAUNCHER_VARIABLE: "1"},
        # a Ctrl-C at the terminal reaches it through the launcher, once; a new session would get a share of the
        # processors of its own (Linux's autogroups), whatever ``nice`` the launcher runs under
        process_group=0,
        stdin=subprocess.DEVNULL,  # reading from the terminal would stop a group in its background for ever
    ) as process:
        if running is not None:
            running.add(process)
        assert process.stderr is not None
        lines = deque((line.strip() for line in process.stderr if line.strip()), maxlen=1)
    if running is not None:
        running.discard(process)
    return Outcome(name, process.returncode, lines[-1] if lines else "")
