"""The data sets, by the name that a config gives."""

import re
from pathlib import Path

from datasets.base import MissingDataError, Reader, ReadOptions, Splits
from datasets.cuhk01 import read_cuhk01
from datasets.cuhk02 import read_cuhk02
from datasets.cuhk03 import read_cuhk03
from datasets.cuhksysu import read_cuhksysu
from datasets.dukemtmcreid import read_dukemtmcreid
from datasets.files import tell_read_errors
from datasets.folder import read_folder, read_own_data
from datasets.grid import read_grid
from datasets.ilids import read_ilids
from datasets.market1501 import read_market1501
from datasets.msmt17 import read_msmt17
from datasets.prid import read_prid
from datasets.sensereid import read_sensereid
from datasets.synthetic import SYNTHETIC_READERS
from datasets.university1652 import read_university1652
from datasets.viper import read_viper
from utils.errors import UserError
from utils.suggest import nearest

DATASETS: dict[str, Reader] = {
    "market1501": read_market1501,
    "dukemtmcreid": read_dukemtmcreid,
    "msmt17": read_msmt17,
    "cuhk03": read_cuhk03,
    "cuhk01": read_cuhk01,
    "cuhk02": read_cuhk02,
    "cuhksysu": read_cuhksysu,
    "viper": read_viper,
    "grid": read_grid,
    "prid": read_prid,
    "ilids": read_ilids,
    "sensereid": read_sensereid,
    "university1652": read_university1652,
    "folder": read_folder,
    **SYNTHETIC_READERS,
}

FOLDERS = {  # of each data set that is not drawn and not one's own: its folder below the root
    "market1501": "market1501",
    "dukemtmcreid": "dukemtmc-reid",
    "msmt17": "msmt17",
    "cuhk03": "cuhk03",
    "cuhk01": "cuhk01",
    "cuhk02": "cuhk02",
    "cuhksysu": "cuhksysu",
    "viper": "viper",
    "grid": "grid",
    "prid": "prid2011",
    "ilids": "ilids",
    "sensereid": "sensereid",
    "university1652": "university1652",
}

OWN = "folder:"  # and a name: one's own data in the folder of that name below the root, as many as are wanted
_OWN_NAME = re.compile(r"[\w-]+")


def find_folder(name: str) -> str | None:
    """Returns the folder below the root that must hold a data set; None if it is drawn, or may be the root itself."""
    return name.removeprefix(OWN) if name.startswith(OWN) else FOLDERS.get(name)


def find_reader(name: str) -> Reader:
    """Returns what reads the data set ``name``.

    Raises:
        UserError: there is no such data set, with the nearest name that there is.
    """
    if name.startswith(OWN):
        own = name.removeprefix(OWN)
        if not _OWN_NAME.fullmatch(own):
            raise UserError(
                f"data set {name!r}: {OWN} must be followed by a folder's name of letters, digits, _ and - only"
            )
        return lambda root, options: read_own_data(root / own)
    if name not in DATASETS:
        raise UserError(
            f"unknown data set {name!r}{nearest(name, DATASETS)}; valid: {', '.join(DATASETS)}, {OWN}NAME for your own"
        )
    return DATASETS[name]


def read_data_set(name: str, root: Path, options: ReadOptions) -> Splits:
    """Reads the data set ``name``.

    Raises:
        UserError: no such data set, or files that are missing, wrong or cannot be read.
    """
    reader = find_reader(name)
    try:
        with tell_read_errors(root):
            return reader(root, options)
    except MissingDataError as error:
        raise UserError(f"{error}; {point_to_layout(name)}") from error


def point_to_layout(name: str) -> str:
    """Returns the advice on how to see which files of a data set belong where."""
    return f"python -m tools.check_dataset --layout {name} shows what belongs where"
