"""The folder that a run leaves everything in: one run at a time, nothing of an earlier one overwritten."""

import logging
from pathlib import Path

from utils.errors import UserError
from utils.files import remove_unfinished, write_atomically
from utils.log import start_log

TRAIN_LOG, EVALUATION_LOG = "train.log", "evaluate.log"
PLAN_NAME = "plan.json"  # what many trainings have in common


class RunFolder:
    """A run's folder (``data.save_dir``).

    Args:
        path: The folder; made by ``prepare``.
        log_name: ``TRAIN_LOG`` for a run that trains; ``EVALUATION_LOG`` for one that may share the folder.
        writes: Whether this process writes; the others only look.
    """

    def __init__(self, path: Path, log_name: str, writes: bool = True) -> None:
        self.path, self.log_name, self.writes = path, log_name, writes
        self.trains = log_name == TRAIN_LOG

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    def lock_if_started(self) -> None:
        """Keeps other runs out of a folder that has a log already, before a checkpoint in it is read.

        Raises:
            UserError: another run is writing to it.
        """
        if self.writes and self.trains and (self.path / self.log_name).is_file():
            self._open_log()

    def is_free_for(self, resume: str, has_checkpoint: bool) -> bool:
        """Whether a run that resumes in this way goes on in its own folder; so does a start killed before a save.

        Args:
            resume: The setting ``model.resume``.
            has_checkpoint: Whether there is one to go on from.
        """
        if resume == "auto":
            return has_checkpoint or not self.holds_run()
        return has_checkpoint and Path(resume).resolve().parent == self.checkpoints.resolve()

    def holds_run(self) -> bool:
        """Whether an earlier run has left checkpoints, results, or the plan of a designed search."""
        return any(self.checkpoints.glob("*.pt")) or any(
            (self.path / name).exists() for name in ("metrics.json", PLAN_NAME)
        )

    def refuse_earlier_run(self) -> None:
        """Checks that no earlier run would be overwritten.

        Raises:
            UserError: the folder already holds one.
        """
        if self.writes and self.trains and self.holds_run():
            if any(self.checkpoints.glob("last*.pt")):
                how = "; continue it with model.resume auto, or choose another data.save_dir"
            elif (self.path / PLAN_NAME).exists():
                how = " of a designed search; give its command again to continue it, or choose another data.save_dir"
            else:
                how = " that has left no checkpoint to continue from; choose another data.save_dir"
            raise UserError(f"{self.path} already holds a run{how}")

    def prepare(self) -> None:
        """Makes the folder and starts its log; in a process that does not write, only silences the log.

        Raises:
            UserError: it cannot be written, or another run is writing to it.
        """
        if not self.writes:
            logging.getLogger().setLevel(logging.WARNING)  # what only this process knows of its share of the data
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.trains:
                self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write data.save_dir {self.path}: {error.strerror}") from error
        self._open_log()
        if self.trains:
            remove_unfinished(self.path)
            remove_unfinished(self.checkpoints)

    def write(self, name: str, content: str) -> Path:
        """Writes a text file, all or nothing; in a process that does not write, only names it."""
        path = self.path / name
        if self.writes:
            write_atomically(path, content)
        return path

    def choose_metrics_name(self) -> str:
        """Returns the name for a file of results: of several evaluations each has its own."""
        number, name = 1, "metrics.json"
        while not self.trains and (self.path / name).exists():
            number += 1
            name = f"metrics-{number}.json"
        return name

    def _open_log(self) -> None:
        """Sends the log to the folder's file, which keeps other runs out."""
        try:
            start_log(self.path / self.log_name)
        except OSError as error:
            raise UserError(f"cannot write data.save_dir {self.path}: {error.strerror}") from error
