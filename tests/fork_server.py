"""Runs main.py's ``main``, or a test's, in forked processes, so that a test can kill many runs and import PyTorch once.

As a script: reads a line of JSON for each order from stdin and answers with a line on stdout.
``ForkServer`` is its other end.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


class ForkServer:
    """Starts runs of a module's ``main`` and waits for them."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(
        self,
        words: Sequence[object],
        log: Path,
        environment: Mapping[str, object] | None = None,
        module: str = "main",
    ) -> int:
        """Starts a run that writes stdout and stderr to ``log``; returns its process number."""
        order = {"words": [str(w) for w in words], "log": str(log), "module": module}
        pid = self._ask({**order, "environment": {k: str(v) for k, v in (environment or {}).items()}})
        assert pid is not None
        return pid

    def poll(self, pid: int) -> int | None:
        """Returns the run's exit code, minus the signal's number if one ended it, None while it runs."""
        return self._ask({"poll": pid})

    def wait(self, pid: int, timeout_sec: float = 300) -> int:
        """Waits for the exit code; kills a run that takes too long."""
        end = time.monotonic() + timeout_sec
        while (code := self.poll(pid)) is None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"run {pid} took longer than {timeout_sec} seconds")
            time.sleep(0.02)
        return code

    def run(self, words: Sequence[object], log: Path) -> int:
        """Runs to the end; returns the exit code."""
        return self.wait(self.start(words, log))

    def close(self) -> None:
        """Ends the server."""
        self.process.communicate("")

    def _ask(self, order: dict[str, object]) -> int | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def wait_for_text(file: Path, text: str, timeout_sec: float = 300) -> None:
    """Waits until a file that may not be there yet holds ``text``."""
    end = time.monotonic() + timeout_sec
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < end, file.read_text() if file.exists() else f"no {file}"
        time.sleep(0.05)


def run_forked(words: list[str], log: str, environment: dict[str, str], module: str) -> int:
    """Forks; the child runs the module's ``main`` and exits with its code as a process started by hand would."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            path = os.devnull if descriptor == 0 else log
            file = os.open(path, mode | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(file, descriptor)
        os.environ.update(environment)
        sys.argv = ["main.py", *words]
        code = importlib.import_module(module).main(words)
    except BaseException:  # noqa: BLE001 - what Python does at the end of a program, before os._exit
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Answers orders until stdin ends."""
    codes: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            pid = order["poll"]
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer = codes.get(pid)
        else:
            answer = run_forked(order["words"], order["log"], order["environment"], order["module"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    import torch

    import main  # noqa: F401 - once, for all that are forked
    import run  # noqa: F401 - what main imports when it needs it
    import search.ending  # noqa: F401 - what a search imports when it needs it

    torch.set_num_threads(1)
    serve()
