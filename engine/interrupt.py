"""Leaving cleanly when asked to: a signal sets a flag, and the trainer saves and leaves at the end of its step."""

import logging
import signal
from types import FrameType

logger = logging.getLogger(__name__)

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}


class Interrupted(Exception):  # noqa: N818 - not an error: a way out
    """Training was saved and left on request.

    Attributes:
        exit_code: What the process should end with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Remembers the first stop signal; a second one ends the process at once, as without a handler."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def install(self) -> None:
        """Starts to listen; only the main thread of a process can."""
        for number in EXIT_CODES:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        logger.info("%s received: saving at the end of this step", self.received.name)
        signal.signal(number, signal.SIG_DFL)

    @property
    def exit_code(self) -> int:
        """Exit code that belongs to the signal received, 0 for none."""
        return EXIT_CODES[self.received] if self.received else 0
