"""The data sets, by the name that a config gives."""

from datasets.base import Reader
from datasets.cuhk01 import read_cuhk01
from datasets.cuhk02 import read_cuhk02
from datasets.cuhk03 import read_cuhk03
from datasets.cuhksysu import read_cuhksysu
from datasets.dukemtmcreid import read_dukemtmcreid
from datasets.folder import read_folder
from datasets.grid import read_grid
from datasets.ilids import read_ilids
from datasets.market1501 import read_market1501
from datasets.msmt17 import read_msmt17
from datasets.prid import read_prid
from datasets.sensereid import read_sensereid
from datasets.synthetic import SYNTHETIC_READERS
from datasets.university1652 import read_university1652
from datasets.viper import read_viper

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
