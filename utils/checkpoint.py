"""Checkpoints: saved all or nothing, of tensors and plain values only, loaded without executing pickled code."""

import contextlib
import logging
import pickle
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import name_unfinished, write_atomically

logger = logging.getLogger(__name__)

FORMAT = "osnet-nas-checkpoint"
VERSION = 1
# what torch.load raises for a file that is cut off or changed, depending on where
_DAMAGE = (
    RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, AssertionError, TypeError, struct.error
)  # fmt: skip
_EARLIER = re.compile(r"last\.(\d+)\.pt")


def save_checkpoint(path: Path, content: dict[str, Any], before_replacing: Callable[[], object] = lambda: None) -> None:
    """Writes a checkpoint; ``content`` holds tensors and plain values in dicts, lists and tuples.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file of that name is then untouched.
    """
    document = {"format": FORMAT, "version": VERSION, **content}
    try:
        write_atomically(path, lambda file: torch.save(document, file), before_replacing)
    except RuntimeError as error:  # PyTorch's writer, on its way out of the file's own error
        reason = getattr(error.__context__, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"cannot write {path}: {reason}") from error


def save_last(folder: Path, content: dict[str, Any], keep: int) -> None:
    """Writes ``last.pt`` and keeps the ``keep - 1`` checkpoints before it: ``last.1.pt`` is the newest of them.

    ``last.pt`` is a whole checkpoint at every moment, the old one or the new one, and no older one goes before the
    new one is safe on the disk.

    Raises:
        UserError: the disk is full or the folder cannot be written; all checkpoints are then as they were.
    """
    save_checkpoint(folder / "last.pt", content, lambda: _make_older(folder, keep))
    for age, path in _find_earlier(folder):
        if age >= keep:  # from when more were kept
            with contextlib.suppress(OSError):
                path.unlink()


def _make_older(folder: Path, keep: int) -> None:
    """Moves each checkpoint one place on; ``last.pt`` stays, under both names."""
    last = folder / "last.pt"
    if keep == 1 or not last.exists():
        return
    second_name = name_unfinished(folder / "last.1.pt")  # all that may need room comes before the first move
    try:
        _link_or_copy(last, second_name)
        for age in range(keep - 1, 1, -1):
            if (younger := folder / f"last.{age - 1}.pt").exists():
                younger.replace(folder / f"last.{age}.pt")
        second_name.replace(folder / "last.1.pt")
    finally:
        second_name.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _find_earlier(folder: Path) -> list[tuple[int, Path]]:
    """Lists ``last.1.pt`` and so on with their ages, the newest first."""
    return sorted((int(m[1]), p) for p in folder.glob("last.*.pt") if (m := _EARLIER.fullmatch(p.name)))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint onto the CPU without executing code that a pickle may hold.

    Raises:
        UserError: no such file, truncated, holding code, or not a checkpoint of this project.
    """
    document = read_tensors(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this project")
    if document.get("version") != VERSION:
        raise UserError(f"{path}: checkpoint version {document.get('version')!r}; this program reads {VERSION}")
    return document


def read_tensors(path: str | Path) -> Any:
    """Reads a torch file of tensors and plain values onto the CPU.

    Raises:
        UserError: no such file, truncated or damaged, or holding code.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # the error after it says more
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "unsupported" in str(error).lower() or "not an allowed global" in str(error):
            raise UserError(f"{path} holds more than tensors and plain values; its code was not run") from error
        raise UserError(f"{path} is not a torch file, or it is damaged") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is truncated or damaged: {reason}") from error


def find_last(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Finds the newest checkpoint in ``folder`` that loads, None where there is none at all.

    A damaged one is named in the log and passed over for the one before it. It is also renamed, so that it never
    takes the place of a good one when the next is saved.

    Returns:
        The checkpoint's path and content.

    Raises:
        UserError: there are checkpoints, but all are damaged; or a damaged one cannot be renamed.
    """
    candidates = [p for p in (folder / "last.pt", *(path for _, path in _find_earlier(folder))) if p.exists()]
    problems: list[tuple[Path, UserError]] = []
    for path in candidates:
        try:
            document = load_checkpoint(path)
        except UserError as error:
            problems.append((path, error))
            continue
        for damaged, problem in problems:
            _set_aside(damaged, problem)
        return path, document
    if candidates:
        raise UserError(f"no checkpoint in {folder} can be read ({len(candidates)} tried): {problems[0][1]}")
    return None


def _set_aside(damaged: Path, problem: UserError) -> None:
    aside = damaged.with_suffix(".damaged.pt")
    try:
        damaged.replace(aside)
    except OSError as error:
        raise UserError(f"{problem}; it cannot be renamed to {aside.name}: {error.strerror or error}") from error
    logger.warning("%s; it is now %s; trying the checkpoint before it", problem, aside.name)
