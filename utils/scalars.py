"""Numbers over time for TensorBoard, in its event files."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

logger = logging.getLogger(__name__)


class Scalars:
    """Writes an event file, each call's numbers at once; says once where it cannot, and goes on, as the log does.

    TensorBoard's own writer does so in a thread: a full disk ends that thread with a traceback on stderr, and each
    call after it, closing included, with the same error again.

    Args:
        folder: Where TensorBoard looks.
        first_step: What earlier files hold from this step on no longer counts.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file, self._failed = None, False
        with self._tolerating_faults():
            self._file = self.path.open("ab", buffering=0)
        start = SessionLog(status=SessionLog.START)
        self._append([Event(file_version="brain.Event:2"), Event(step=first_step, session_log=start)])

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Appends the numbers, by name."""
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in scalars.items()]
        self._append([Event(step=step, summary=Summary(value=values))])

    def _append(self, events: list[Event]) -> None:
        """Writes all of the events or nothing: readers stop at half an event."""
        if self._file is None:
            return
        records = BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(records).write(event.SerializeToString())
        content, end = records.getvalue(), os.fstat(self._file.fileno()).st_size
        with self._tolerating_faults():
            try:
                while content:  # a disk that becomes full takes a part first
                    content = content[self._file.write(content) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise

    @contextlib.contextmanager
    def _tolerating_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                logger.warning("cannot write %s: %s; the run goes on", self.path, error.strerror or error)
            self._failed = True

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written was told
                self._file.close()
