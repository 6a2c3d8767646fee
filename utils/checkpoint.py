"""Checkpoints: saved all or nothing, of tensors and plain values only, loaded without executing pickled code."""

import contextlib
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import name_unfinished, write_atomically
from utils.torch_file import pack, read_torch_file

logger = logging.getLogger(__name__)

FORMAT = "osnet-nas-checkpoint"
VERSION = 2
_EARLIER = re.compile(r"last\.(\d+)\.pt")


def save_checkpoint(path: Path, content: dict[str, Any], before_replacing: Callable[[], object] = lambda: None) -> None:
    """Writes a checkpoint; ``content`` holds tensors and plain values in dicts, lists and tuples.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file of that name is then untouched.
    """
    write_atomically(path, pack({"format": FORMAT, "version": VERSION, **content}), before_replacing)


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
    """Loads a checkpoint onto the CPU without executing code that a pickle may hold; older versions are upgraded.

    Raises:
        UserError: no such file, truncated, damaged, holding code, or not a checkpoint of this project.
    """
    return open_document(read_torch_file(path), path)


def open_document(document: Any, path: str | Path) -> dict[str, Any]:
    """Returns a file's content as a checkpoint of the newest version.

    Raises:
        UserError: it is not a checkpoint of this project, or of a version that this program does not know.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this project")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        told = repr(version) if isinstance(version, int | str | None) else f"a {type(version).__name__}"
        raise UserError(f"{path}: checkpoint version {told}; this program reads 1 to {VERSION}")
    if version == 1:
        for key in ("optimizer", "scheduler"):  # there was one of each
            if key in document:
                document[f"{key}s"] = {"weights": document.pop(key)}
        document["version"] = VERSION
    return document


def find_last(
    folder: Path, load: Callable[[Path], dict[str, Any]] = load_checkpoint
) -> tuple[Path, dict[str, Any]] | None:
    """Finds the newest checkpoint in ``folder`` to continue from, None where there is none at all.

    A damaged one is named in the log and passed over for the one before it. It is also renamed, so that it never
    takes the place of a good one when the next is saved.

    Args:
        folder: The run's checkpoints.
        load: Loads one and checks it; raises UserError for one that cannot be continued from.

    Returns:
        The checkpoint's path and content.

    Raises:
        UserError: there are checkpoints, but all are damaged; or a damaged one cannot be renamed; or there is only a
            checkpoint of another kind.
    """
    candidates = [p for p in (folder / "last.pt", *(path for _, path in _find_earlier(folder))) if p.exists()]
    problems: list[tuple[Path, UserError]] = []
    for path in candidates:
        try:
            document = load(path)
        except UserError as error:
            problems.append((path, error))
            continue
        for damaged, problem in problems:
            _set_aside(damaged, problem)
        return path, document
    if candidates:
        raise UserError(f"no checkpoint in {folder} can be read ({len(candidates)} tried): {problems[0][1]}")
    _refuse_others(folder)
    return None


def _refuse_others(folder: Path) -> None:
    """Raises UserError where a folder without ``last.pt`` holds other checkpoints, which a new run would replace."""
    if (best := folder / "best.pt").exists():
        raise UserError(f"{folder} has no last.pt to continue from, only best.pt; continue with model.resume {best}")
    if others := sorted(path.name for path in folder.glob("*.pt")):
        raise UserError(
            f"{folder} has no last.pt to continue from, only {', '.join(others)}; choose another data.save_dir"
        )


def _set_aside(damaged: Path, problem: UserError) -> None:
    aside = damaged.with_suffix(".damaged.pt")
    try:
        damaged.replace(aside)
    except OSError as error:
        raise UserError(f"{problem}; it cannot be renamed to {aside.name}: {error.strerror or error}") from error
    logger.warning("%s; it is now %s; trying the checkpoint before it", problem, aside.name)
