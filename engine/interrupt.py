"""Leaving cleanly when asked to: at once where nothing would be lost, else when the step is done and saved.

Imports nothing that takes time: main.py listens before it imports the rest.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 0}


class Interrupted(BaseException):
    """The run was left on request; not an error, and nothing that handles errors may stop it.

    Attributes:
        exit_code: What the process should end with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def leave_at_once_when_asked() -> None:
    """From here on a signal ends the process with one line: for what comes before the first thing worth saving."""
    for number in _find_signals():
        signal.signal(number, _leave)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Does so inside of the context alone; also where the main thread waits for another one."""
    earlier = {number: signal.getsignal(number) for number in _find_signals()}
    leave_at_once_when_asked()
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class StopRequest:
    """Listens for SIGTERM, SIGINT, SIGHUP and SIGUSR1 while it is entered; needs a process's main thread.

    A signal raises ``Interrupted`` wherever the program is, except inside of ``held()``: there it is remembered, and
    whoever holds it asks ``received`` at a place where the run is saved. A second signal of the same number ends the
    process at once, as without a listener. (Of the same number, because torchrun follows a Ctrl-C by SIGTERM.) Forked
    processes, such as those that load images, ignore these signals; a run under nohup ignores SIGHUP.

    Args:
        last: Where the run's newest checkpoint goes, for the line that says how to continue; None for no such file.
        announce: Say on stderr that a held signal was received.

    Attributes:
        resume: The command line that continues once there is a checkpoint.
        goes_on: Whether the same command goes on with what is finished; a designed search's does.
    """

    def __init__(self, last: Path | None = None, announce: bool = True) -> None:
        self.last, self.announce, self.goes_on = last, announce, False
        self.resume = "the same command and model.resume auto"
        self.received: signal.Signals | None = None
        self._held = self._quiet = self._leaving = False
        self._owner = os.getpid()
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in _find_signals():
            self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self, quietly: bool = False) -> Iterator[None]:
        """Holds signals back: they are remembered until ``received`` is looked at; ``quietly``: not announced."""
        before = self._held, self._quiet
        self._held, self._quiet = True, quietly
        try:
            yield
        finally:
            self._held, self._quiet = before

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Lets signals act at once inside of ``held()``.

        Raises:
            Interrupted: also for a signal that came before.
        """
        before, self._held = self._held, False
        try:
            if self.received:
                raise self.interrupted(self.exit_code)
            yield
        finally:
            self._held = before

    @property
    def exit_code(self) -> int:
        """Exit code that belongs to the signal received, 0 for none."""
        return EXIT_CODES[self.received] if self.received else 0

    def interrupted(self, exit_code: int) -> Interrupted:
        """Makes the exception that ends the run and says how to continue; later signals do not change it."""
        self._leaving = True
        stopped = f"stopped by {self.received.name}" if self.received else "stopped"
        if self.last is not None and self.last.exists():
            return Interrupted(f"{stopped}; continue with: {self.resume}", exit_code)
        if self.goes_on:
            return Interrupted(f"{stopped}; what was trained so far is kept: continue with the same command", exit_code)
        return Interrupted(f"{stopped} before anything was saved; start again in the same way", exit_code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        signal.signal(number, signal.SIG_DFL)
        if self._leaving:
            return
        self.received = signal.Signals(number)
        if not self._held:
            raise self.interrupted(self.exit_code)
        if self.announce and not self._quiet:
            _say(f"{self.received.name} received: saving after this step; once more to stop at once")


def _find_signals() -> list[signal.Signals]:
    """Returns what to listen for: nohup has SIGHUP ignored."""
    return [n for n in EXIT_CODES if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def _leave(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":
        _say("stopped, there was nothing to save")
    os._exit(EXIT_CODES[signal.Signals(number)])


def _say(text: str) -> None:
    """Writes a line to stderr, past the log, which may be what was interrupted; the terminal may be gone."""
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{text}\n".encode())
