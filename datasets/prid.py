"""PRID 2011, single shot (Hirzer et al., SCIA 2011)."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, check_split_id, require_folder
from datasets.files import match_images
from datasets.random_splits import SPLITS_FILE, share_halves
from utils.errors import UserError
from utils.label_names import LabelNames

_CAMERAS = ("cam_a", "cam_b")
_NAME = re.compile(r"person_(\d{4})\.")
_EXPECTED = "prid's images named person_NNNN, as in person_0001.png"
_LAST_SHARED_PID = 200  # above it the two cameras number different people


def read_prid(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/prid2011/prid_2011/single_shot/{cam_a,cam_b}``.

    The people that both cameras saw are halved at random, ten times (``options.split_id``); camera a is the query. The
    other people of camera b are distractors in the gallery, those of camera a are not used.

    Raises:
        UserError: a folder is missing or empty, a name cannot be parsed, one of the first 200 is in one camera only,
            or ``split_id`` is out of range.
    """
    folder = require_folder(root / "prid2011", "PRID 2011's folder prid_2011 with single_shot")
    by_camera = [
        [
            Sample(path, int(match[1]), camid)
            for path, match in match_images(folder / "prid_2011" / "single_shot" / camera, _NAME, _EXPECTED)
        ]
        for camid, camera in enumerate(_CAMERAS)
    ]
    shared = [{s.pid for s in samples if s.pid <= _LAST_SHARED_PID} for samples in by_camera]
    if shared[0] != shared[1]:
        wrong = min(shared[0] ^ shared[1])
        raise UserError(
            f"person_{wrong:04} of {folder} is in one camera only; the first 200 should be in both: copy it again"
        )
    draws = share_halves(folder / SPLITS_FILE, [str(pid) for pid in shared[0]])
    check_split_id("prid", options.split_id, len(draws))
    train_pids, test_pids = ({int(pid) for pid in draws[options.split_id][part]} for part in ("train", "test"))
    distractor_pids = frozenset({s.pid for s in by_camera[1]} - shared[1])
    return Splits(
        train=[s for samples in by_camera for s in samples if s.pid in train_pids],
        query=[s for s in by_camera[0] if s.pid in test_pids],
        gallery=[s for s in by_camera[1] if s.pid in test_pids | distractor_pids],
        distractor_pids=distractor_pids,
        split_ids=range(len(draws)),
        names=LabelNames(cameras=dict(enumerate(_CAMERAS))),
    )
