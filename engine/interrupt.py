"""Leaving cleanly when asked to: at once where nothing would be lost, else when the step is done and saved."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}


class Interrupted(Exception):  # noqa: N818 - not an error: a way out
    """The run was left on request.

    Attributes:
        exit_code: What the process should end with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Listens for SIGTERM, SIGINT and SIGUSR1 while it is entered; needs a process's main thread.

    A signal raises ``Interrupted`` wherever the program is, except inside of ``held()``: there it is remembered, and
    whoever holds it asks ``received`` at a place where the run is saved. A second signal of the same number ends the
    process at once, as without a listener. (Of the same number, because torchrun follows a Ctrl-C by SIGTERM.) Forked
    processes, such as those that load images, are deaf to what they inherit.

    Args:
        last: Where the run's newest checkpoint goes, for the line that says how to continue; None for no such file.
        announce: Say on stderr that a held signal was heard.
    """

    def __init__(self, last: Path | None, announce: bool = True) -> None:
        self.last, self.announce = last, announce
        self.received: signal.Signals | None = None
        self._held = False
        self._owner = os.getpid()
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in EXIT_CODES:
            self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds signals back: they are remembered until ``received`` is looked at."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

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
        """Makes the exception that ends the run and says how to continue."""
        if self.last is not None and self.last.exists():
            return Interrupted(f"stopped; continue with: model.resume {self.last}", exit_code)
        return Interrupted("stopped before anything was saved; start again in the same way", exit_code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        signal.signal(number, signal.SIG_DFL)
        self.received = signal.Signals(number)
        if not self._held:
            raise self.interrupted(self.exit_code)
        if self.announce:  # not through the log, which may be what was interrupted
            text = f"{self.received.name} received: saving after this step; once more to stop at once\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
