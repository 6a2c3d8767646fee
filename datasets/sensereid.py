"""SenseReID (Zhao et al., CVPR 2017), for testing only."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits
from datasets.files import match_images

_NAME = re.compile(r"(\d+)_(\d+)\.")
_EXPECTED = "sensereid's images named PID_CAM, as in 00001_0.jpg"


def read_sensereid(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/sensereid/SenseReID/{test_probe,test_gallery}``.

    Raises:
        UserError: a folder is missing or empty, or an image's name cannot be parsed.
    """
    query, gallery = (
        [Sample(path, int(match[1]), int(match[2])) for path, match in match_images(folder, _NAME, _EXPECTED)]
        for folder in (root / "sensereid" / "SenseReID" / part for part in ("test_probe", "test_gallery"))
    )
    return Splits([], query, gallery)
