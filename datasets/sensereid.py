"""SenseReID (Zhao et al., CVPR 2017), for testing only."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits
from datasets.files import match_images, parse_number
from utils.label_names import LabelNames

_NAME = re.compile(r"(\d+)_(\d+)\.")
_EXPECTED = "sensereid's images named PID_CAM, as in 00001_0.jpg"


def read_sensereid(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/sensereid/SenseReID/{test_probe,test_gallery}``.

    Raises:
        UserError: a folder is missing or empty, or an image's name cannot be parsed.
    """
    query, gallery = (
        [
            Sample(path, *(parse_number(digits, path) for digits in match.groups()))
            for path, match in match_images(folder, _NAME, _EXPECTED)
        ]
        for folder in (root / "sensereid" / "SenseReID" / part for part in ("test_probe", "test_gallery"))
    )
    camera_names = {s.camid: str(s.camid) for s in [*query, *gallery]}  # from 0 in the files too
    return Splits([], query, gallery, names=LabelNames(cameras=camera_names))
