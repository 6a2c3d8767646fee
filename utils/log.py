"""The log, to the terminal and to a file in the run's folder; and progress: a bar on a terminal, lines in the log."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from utils.errors import UserError
from utils.printable import make_printable

try:
    from tqdm import tqdm
except ValueError:  # a variable of its own, such as TQDM_MININTERVAL, is no number
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]
    from tqdm import tqdm

logger = logging.getLogger(__name__)

LOG_EVERY_SEC = 30.0

T = TypeVar("T")


class _BesideBars(logging.StreamHandler):
    """Writes a line above any progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone does not end a run
            tqdm.write(self.format(record), file=sys.stdout)


class _OwnFile(logging.FileHandler):
    """Writes to the end of a file that no other process writes to; says once where it cannot, and goes on."""

    failed = False

    def __init__(self, file: Path) -> None:
        if file.is_fifo():  # and would be waited for
            raise UserError(f"cannot write {file}: there is a pipe of that name")
        super().__init__(file, encoding="utf-8", errors="backslashreplace")  # of file names in other encodings
        self.owner = os.getpid()
        assert self.stream is not None
        try:
            # unlike flock's lock, this one ends with the process though others that it forked may live on
            fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                self.close()
                raise UserError(
                    f"another run is still writing to {file}; wait for its end, or choose another data.save_dir"
                ) from error
            # otherwise the file system has no locks

    def is_of(self, file: Path) -> bool:
        """Whether it writes to ``file`` and was opened by this process."""
        return self.owner == os.getpid() and Path(self.baseFilename) == file.absolute()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been reported
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            sys.stderr.write(f"cannot write {self.baseFilename}: {error.strerror}; the run goes on\n")


def start_log(file: Path | None) -> None:
    """Sends the log to the terminal (stdout) and, where a file is given, to its end with the time of each line.

    Raises:
        UserError: another process's log goes to this file, or it is a pipe.
        OSError: it cannot be written.
    """
    root = logging.getLogger()
    if file is not None and any(isinstance(h, _OwnFile) and h.is_of(file) for h in root.handlers):
        return  # closing it would let another process have it for a moment
    for handler in root.handlers[:]:
        if getattr(handler, "from_start_log", False):
            root.removeHandler(handler)
            handler.close()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handlers: list[logging.Handler] = [_BesideBars()]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if file is not None:
        handlers.append(_OwnFile(file))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for handler in handlers:
        handler.from_start_log = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    root.setLevel(logging.INFO)


def progress(items: Iterable[T], total: int | None, label: str, in_log: bool = True) -> Iterator[T]:
    """Yields the items, and shows how far they are unless this process's log is silenced.

    On a terminal a bar on stderr shows it. What takes long also has a line in the log every 30 seconds, with the
    time that is left.

    Args:
        items: What is worked through.
        total: Their number, None if unknown.
        label: What is being done.
        in_log: Whether the log gets these lines; not where the work writes its own.
    """
    is_quiet = not logging.getLogger().isEnabledFor(logging.INFO)
    disable = is_quiet or not sys.stderr.isatty()
    bar = tqdm(items, total=total, desc=label, leave=False, dynamic_ncols=True, disable=disable)
    return iter(bar) if is_quiet or not in_log else _log_progress(bar, total, label)


def _log_progress(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Yields the items; logs a line after those that end ``LOG_EVERY_SEC`` or more after the last line."""
    started = logged = time.monotonic()
    for number, item in enumerate(items):  # so many are done by now
        now = time.monotonic()
        if number and now - logged >= LOG_EVERY_SEC:
            logged = now
            if total:
                left = format_duration((now - started) / number * (total - number))
                logger.info("%s: %d of %d (%d%%) done, %s left", label, number, total, 100 * number // total, left)
            else:
                logger.info("%s: %d done", label, number)
        yield item


def format_duration(seconds: float) -> str:
    """Writes a duration as 1:02:03 (hours, minutes, seconds)."""
    minutes, sec = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{sec:02d}"


def format_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Sets a table in plain text, a row a line: the first column to the left, the others to the right."""
    lines = [[make_printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join([c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))])
            for line in lines]  # fmt: skip
    return "\n".join([text[0], "  ".join("-" * w for w in widths), *text[1:]])
