"""A run's numbers over time: ``history.jsonl``, one line per epoch, and TensorBoard's event files beside it."""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from utils.errors import UserError
from utils.files import write_atomically
from utils.read_file import parse_json

logger = logging.getLogger(__name__)

FILE_NAME = "history.jsonl"


class History:
    """Writes numbers as they come; says once where it cannot, and goes on: a full disk costs numbers, never the run.

    Enter it around the training. Lines and events of a run that was stopped and goes on from an earlier epoch are
    replaced by what it computes anew.

    Args:
        folder: The run's folder.
        epochs_done: Epochs that are finished; later lines of an earlier attempt go.
        steps_done: Batches that are finished, over all epochs; TensorBoard forgets events after that.
    """

    def __init__(self, folder: Path, epochs_done: int, steps_done: int) -> None:
        self._path, self._folder = folder / FILE_NAME, folder
        self._epochs_done, self._steps_done = epochs_done, steps_done
        self._events: SummaryWriter | None = None
        self._failed: set[str] = set()

    def __enter__(self) -> "History":
        threading.excepthook = _leave_out_full_disks
        with self._tolerating_faults("TensorBoard's events"):
            self._events = SummaryWriter(
                str(self._folder), purge_step=self._steps_done + 1 if self._steps_done else None
            )
        with self._tolerating_faults(FILE_NAME):
            kept = [line for line in read_history(self._path) if line["epoch"] <= self._epochs_done]
            write_atomically(self._path, "".join(map(_format_line, kept)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._tolerating_faults("TensorBoard's events"):
            if self._events is not None:
                self._events.close()
        threading.excepthook = threading.__excepthook__

    def write_epoch(self, numbers: Mapping[str, float], epoch: int, step: int) -> None:
        """Appends an epoch's numbers, by name, to both; ``epoch`` and ``step`` count from 1."""
        with self._tolerating_faults(FILE_NAME), self._path.open("a", encoding="utf-8") as file:
            line = _format_line({"epoch": epoch, "step": step, **numbers})
            file.write(f"\n{line}" if FILE_NAME in self._failed else line)  # what failed may have left half a line
        self.write_step({name: value for name, value in numbers.items() if not name.startswith("train/")}, step)

    def write_step(self, numbers: Mapping[str, float], step: int) -> None:
        """Sends numbers to TensorBoard alone."""
        with self._tolerating_faults("TensorBoard's events"):
            if self._events is not None:
                for name, value in numbers.items():
                    self._events.add_scalar(name, value, step)
                self._events.flush()

    @contextlib.contextmanager
    def _tolerating_faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError, UnicodeError) as error:  # TensorBoard takes no names that are not UTF-8
            if what not in self._failed:
                logger.warning("cannot write %s in %s: %s; the run goes on", what, self._folder,
                               getattr(error, "strerror", None) or error)  # fmt: skip
            self._failed.add(what)
            if what != FILE_NAME:
                self._events = None


def read_history(path: Path) -> list[dict[str, float]]:
    """Reads the lines of a ``history.jsonl``, without those that are no epoch's numbers; [] where there is none."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # a full disk cut it off
            found.append(parse_json(line))
    return [numbers for numbers in found if _are_numbers(numbers)]


def _are_numbers(line: Any) -> bool:
    if not isinstance(line, dict) or type(line.get("epoch")) is not int:
        return False
    return all(isinstance(value, int | float) for value in line.values())


def _format_line(numbers: Mapping[str, float]) -> str:
    return json.dumps(numbers) + "\n"


def _leave_out_full_disks(arguments: threading.ExceptHookArgs) -> None:
    """Keeps quiet about TensorBoard's writing thread, which ends with the error that its next call raises again."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
