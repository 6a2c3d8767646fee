"""DukeMTMC-reID (Ristani et al., ECCVW 2016; Zheng et al., ICCV 2017)."""

from pathlib import Path

from datasets.base import ReadOptions, Splits, require_folder
from datasets.market1501 import read_market_layout


def read_dukemtmcreid(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/dukemtmc-reid/DukeMTMC-reID``, in Market-1501's layout; images are named ``PPPP_cC_f…``.

    Its 408 distractors are numbered people of one camera, and count as identities as in the literature.

    Raises:
        UserError: a folder is missing or empty, or an image's name cannot be parsed.
    """
    folder = root / "dukemtmc-reid" / "DukeMTMC-reID"
    require_folder(folder, "DukeMTMC-reID with bounding_box_train, query and bounding_box_test")
    return read_market_layout(folder, "dukemtmcreid", num_cameras=8)
