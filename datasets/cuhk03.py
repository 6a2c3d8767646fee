"""CUHK03 (Li et al., CVPR 2014), with its classic splits and the new protocol (Zhong et al., CVPR 2017)."""

import re
from pathlib import Path

import numpy as np

from datasets.base import MissingDataError, ReadOptions, Sample, Splits, require_folder, require_images
from datasets.cuhk03_mat import extract_images, read_test_identities
from datasets.files import list_image_names, match_name, tell_read_errors
from datasets.matlab import load_matlab
from utils.errors import UserError

_NAME = re.compile(r"([1-5])_(\d{3})_([12])_(\d{2})\.")
_EXPECTED = "cuhk03's images named P_NNN_V_II (pair, person, view, image), as in 1_001_1_01.png"
_PIDS_PER_PAIR = 1_000  # three digits
_LARGEST_LABEL = 2**62
_DAMAGE = (ValueError, OverflowError, KeyError, TypeError)  # also another structure


def read_cuhk03(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/cuhk03``; a camera is one of a pair's two views.

    On first use the images are extracted from ``cuhk03_release/cuhk-03.mat`` to ``images_detected`` or, with
    ``options.cuhk03_labeled``, ``images_labeled``. With ``options.cuhk03_classic_split``, ``split_id`` is one of 20,
    and query and gallery are the same images; the new protocol has one split, so ``split_id`` does not matter.

    Raises:
        UserError: a file or folder is missing, damaged or cannot be written, the images do not fit the splits, or
            ``split_id`` is out of range.
    """
    folder = require_folder(root / "cuhk03", "CUHK03 with its folder cuhk03_release")
    mat = folder / "cuhk03_release" / "cuhk-03.mat"
    kind = "labeled" if options.cuhk03_labeled else "detected"
    images = folder / f"images_{kind}"
    with tell_read_errors(folder):
        extract_images(mat, kind, images)
    names = list_image_names(images, f"the {kind} images of CUHK03")
    if options.cuhk03_classic_split:
        return _split_classic(mat, images, names, options.split_id)
    return _split_new(folder / f"cuhk03_new_protocol_config_{kind}.mat", images, names)


def _split_classic(mat: Path, images: Path, names: list[str], split_id: int) -> Splits:
    """Divides the images by the ``testsets`` in ``mat``."""
    samples = []
    for name in names:
        match = match_name(f"{images}/{name}", _NAME, _EXPECTED)
        samples.append(Sample(f"{images}/{name}", int(match[1]) * _PIDS_PER_PAIR + int(match[2]), int(match[3]) - 1))
    identities, num_splits = read_test_identities(mat, split_id)
    test_pids = {pair * _PIDS_PER_PAIR + person for pair, person in identities}
    missing = test_pids - {s.pid for s in samples}
    if missing:
        pair, person = divmod(min(missing), _PIDS_PER_PAIR)
        raise UserError(f"{images} has no image {pair}_{person:03}_…: delete the folder to extract the images again")
    test = [s for s in samples if s.pid in test_pids]
    train = [s for s in samples if s.pid not in test_pids]
    return require_images(images, Splits(train, test, test, split_ids=range(num_splits)))


def _split_new(config: Path, images: Path, names: list[str]) -> Splits:
    """Divides the images by the positions (from 1) that the new protocol's MATLAB 5 file gives."""
    if not config.is_file():
        raise MissingDataError(f"no file {config}: expected the configuration of CUHK03's new protocol")
    try:
        content = load_matlab(
            config, ["filelist", "labels", *(f"{part}_idx" for part in ("train", "query", "gallery"))]
        )
        files = [str(cell.item() if cell.size else "") for cell in content["filelist"].ravel()]
        pids = [int(label) for label in content["labels"].ravel()]
        chosen = [np.ravel(content[f"{part}_idx"]).astype(int) - 1 for part in ("train", "query", "gallery")]
        if pids and max(pids) > _LARGEST_LABEL:
            raise ValueError(f"label {max(pids)}")
        if len(files) != len(pids) or any(not len(i) or i.min() < 0 or i.max() >= len(files) for i in chosen):
            raise ValueError("positions, labels and files do not fit together")
    except _DAMAGE as error:
        raise UserError(f"{config} does not hold CUHK03's new protocol ({error!r}): copy it again") from error
    present = set(names)
    parts = []
    for positions in chosen:
        absent = [files[i] for i in positions if files[i] not in present]
        if absent:
            raise UserError(f"no image {images}/{min(absent)}: delete the folder to extract the images again")
        cameras = [int(match_name(files[i], _NAME, _EXPECTED)[3]) - 1 for i in positions]
        parts.append(
            sorted(Sample(f"{images}/{files[i]}", pids[i], c) for i, c in zip(positions, cameras, strict=True))
        )
    train, query, gallery = parts
    return Splits(train, query, gallery)
