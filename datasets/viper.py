"""VIPeR (Gray et al., PETS 2007)."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, require_folder
from datasets.files import match_images, parse_number
from datasets.random_splits import split_two_cameras
from utils.errors import UserError

_CAMERAS = ("cam_a", "cam_b")
_NAME = re.compile(r"(\d+)_")
_EXPECTED = "viper's images named PPP_A (person, angle), as in 000_45.bmp"


def read_viper(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/viper/VIPeR/{cam_a,cam_b}``, one image of each person in each.

    Ten random half splits, each with either camera as the query: 20 values of ``options.split_id``.

    Raises:
        UserError: a folder is missing or empty, a name cannot be parsed, a person is not in both cameras exactly
            once, or ``split_id`` is out of range.
    """
    folder = require_folder(root / "viper", "VIPeR's folder VIPeR with cam_a and cam_b")
    samples = [
        Sample(path, parse_number(match[1], path), camid)
        for camid, camera in enumerate(_CAMERAS)
        for path, match in match_images(folder / "VIPeR" / camera, _NAME, _EXPECTED)
    ]
    seen = sorted((s.pid, s.camid) for s in samples)
    expected = [(pid, camid) for pid in sorted({s.pid for s in samples}) for camid in (0, 1)]
    if seen != expected:
        wrong = next(pid for pid, _ in expected if [c for p, c in seen if p == pid] != [0, 1])
        raise UserError(
            f"person {wrong:03} of {folder / 'VIPeR'} has not one image in each of cam_a and cam_b: copy it again"
        )
    return split_two_cameras(folder, samples, options.split_id, _CAMERAS)
