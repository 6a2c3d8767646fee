"""CUHK03's ``cuhk-03.mat``: a MATLAB 7.3 file, that is HDF5, of cells that hold references to cells.

MATLAB stores by columns and HDF5 by rows, so every array is read transposed: an image of shape (H, W, 3) is kept as
(3, W, H). ``detected`` and ``labeled`` are five cells, one per pair of cameras, each of (people, 10) cells of images;
an empty cell is a vector. ``testsets`` are 20 cells of (100, 2): pair and person of the test identities, from 1.
"""

import logging
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from datasets.base import MissingDataError, check_split_id
from utils.errors import UserError

_IMAGES_PER_VIEW = 5

_logger = logging.getLogger(__name__)


def extract_images(mat: Path, kind: str, target: Path) -> None:
    """Writes the images of ``mat`` to the folder ``target`` as PNG unless the folder is there already.

    The folder appears only when complete, so an interrupted run leaves none, and several may run at once.

    Args:
        mat: ``cuhk-03.mat``.
        kind: ``detected`` or ``labeled``.
        target: Images are named P_NNN_V_II.png: pair, person, view (1: the first five images) and image, from 1.

    Raises:
        UserError: ``mat`` is missing or damaged, or the folder cannot be written.
    """
    if target.is_dir():
        return
    with _open(mat) as content:
        _logger.info("extracting the %s images of %s to %s, once", kind, mat, target)
        try:
            partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        except OSError as error:
            raise UserError(f"cannot write {target} ({error}): extract CUHK03 where the folder is writable") from error
        try:
            _write_images(content, kind, partial)
            partial.chmod(0o755)
            partial.rename(target)
        except OSError as error:
            if not target.is_dir():  # otherwise another process was faster
                raise UserError(f"cannot extract {mat} to {target}: {error}") from error
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{mat} is not CUHK03's file of images ({error!r}): copy it again") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def read_test_identities(mat: Path, split_id: int) -> tuple[list[tuple[int, int]], int]:
    """Reads the test identities (pair, person), from 1, of a classic split, and the number of splits.

    Raises:
        UserError: ``mat`` is missing or damaged, or has no split ``split_id``.
    """
    with _open(mat) as content:
        try:
            references = np.ravel(content["testsets"][()])
            check_split_id("cuhk03", split_id, len(references))
            identities = [(int(pair), int(person)) for pair, person in content[references[split_id]][()].T]
            return identities, len(references)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{mat} does not hold CUHK03's classic splits ({error!r}): copy it again") from error


def _open(mat: Path) -> h5py.File:
    if not mat.is_file():
        raise MissingDataError(f"no file {mat}: expected CUHK03's images and classic splits")
    try:
        return h5py.File(mat, "r")
    except OSError as error:
        raise UserError(f"{mat} is not an HDF5 file, or is cut off ({error}): copy it again") from error


def _write_images(content: h5py.File, kind: str, folder: Path) -> None:
    """Writes every image of a group."""
    for pair, people in enumerate(np.ravel(content[kind][()]), start=1):
        for person, cells in enumerate(content[people][()].T, start=1):
            for number, cell in enumerate(cells, start=1):
                pixels = content[cell]
                if pixels.ndim < 3:
                    continue  # an empty cell
                view = 1 if number <= _IMAGES_PER_VIEW else 2
                image = Image.fromarray(np.ascontiguousarray(pixels[()].T))
                image.save(folder / f"{pair}_{person:03}_{view}_{number:02}.png")
