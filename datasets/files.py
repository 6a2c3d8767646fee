"""How the readers list image files and take their names apart."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.base import MissingDataError, require_folder
from utils.errors import UserError

_MOST_DIGITS = 18  # what fits into 64 bits
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


def is_image_name(name: str) -> bool:
    """Whether a file counts as an image by its ending, in either case; hidden files (``._0001.jpg``) never do."""
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    return ending in IMAGE_ENDINGS and not name.startswith(".")


@contextmanager
def tell_read_errors(path: Path, where: str = "") -> Iterator[None]:
    """Turns an error of the system on reading ``path``, or what is in it, into one line that begins with ``where``.

    Raises:
        UserError: no permission, links in a circle, a name that is too long, …
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{where}cannot read {error.filename or path}: {error.strerror or error}") from error


def list_image_names(folder: Path, expected: str, *, allow_empty: bool = False) -> list[str]:
    """Lists the names of the image files in ``folder``, sorted, without looking into the files.

    Links are followed; folders and files of other endings are passed over.

    Args:
        folder: Where to look; folders below it are not entered.
        expected: What should be there, for the message.
        allow_empty: Return an empty list instead of raising an error where there is no image.

    Raises:
        MissingDataError: no such folder, or no image in it.
        UserError: something that cannot be read, a link that leads nowhere, or a pipe or the like in an image's place.
    """
    names = []
    with tell_read_errors(folder):
        require_folder(folder, expected)
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_image_name(entry.name):
                    continue
                if entry.is_file():
                    names.append(entry.name)
                elif not entry.is_dir():
                    kind = "a link that leads to no file" if entry.is_symlink() else "not a file but a pipe or the like"
                    raise UserError(f"{entry.path} is {kind}: put the image there, or remove it")
    if not names and not allow_empty:
        raise MissingDataError(f"no image in {folder}: expected {expected}")
    return sorted(names)


def list_folder_names(folder: Path, expected: str) -> list[str]:
    """Lists the names of the folders in ``folder``, sorted; links are followed, hidden ones passed over.

    Raises:
        UserError: no such folder, where ``expected`` says what should be there, or something that cannot be read.
    """
    with tell_read_errors(folder):
        require_folder(folder, expected)
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def match_name(path: str, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
    """Matches ``pattern`` at the start of a path's file name.

    Raises:
        UserError: no match; the message names the file and says what was ``expected``.
    """
    match = pattern.match(path.rsplit("/", 1)[-1])
    if match is None:
        raise UserError(f"cannot read person and camera from the name of {path}: expected {expected}")
    return match


def parse_number(digits: str, source: object) -> int:
    """Reads the number of a person or a camera.

    Args:
        digits: Decimal digits, or −1.
        source: The file that it stands in or is named by, for the message.

    Raises:
        UserError: it has more digits than labels can hold.
    """
    digits = digits.lstrip("0")
    if len(digits) > _MOST_DIGITS:
        raise UserError(f"{source}: the number {digits[:8]}… has {len(digits)} digits, more than {_MOST_DIGITS}")
    return int(digits or "0")


def match_images(folder: Path, pattern: re.Pattern[str], expected: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yields path and match of each image in ``folder``, in the order of the names.

    Raises:
        UserError: as ``list_image_names`` and ``match_name``.
    """
    for name in list_image_names(folder, expected):
        path = f"{folder}/{name}"
        yield path, match_name(path, pattern, expected)
