"""MATLAB 5 files, read in a process of their own: on some damaged ones SciPy's reader crashes."""

import multiprocessing
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

# not a MATLAB 5 file, or cut off
_DAMAGE = (OSError, EOFError, zlib.error, MatReadError, NotImplementedError, TypeError, OverflowError, MemoryError)


def load_matlab(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Reads variables of a MATLAB 5 file.

    Returns:
        By name, those that are there.

    Raises:
        ValueError: it cannot be read, is another kind of file, or damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; this one only reads
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            try:
                return pool.submit(_load, file, list(names)).result()
            except BrokenExecutor as error:
                raise ValueError("damaged so that SciPy's reader crashes") from error
            except _DAMAGE as error:
                raise ValueError(str(error) or type(error).__name__) from error


def _load(file: Path, names: list[str]) -> dict[str, Any]:
    return loadmat(file, variable_names=names)
