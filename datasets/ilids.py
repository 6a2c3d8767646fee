"""QMUL i-LIDS (Zheng et al., BMVC 2009)."""

import random
import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, check_split_id, require_folder
from datasets.files import match_images
from datasets.random_splits import NUM_DRAWS, SEED, SPLITS_FILE, Draw, require_two, share_draws, shuffled
from utils.errors import UserError

_NAME = re.compile(r"(\d{4})(\d{3})\D")
_EXPECTED = "ilids' images named PPPPNNN (person, sequence from 1), as in 0001001.jpg"


def read_ilids(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/ilids/i-LIDS_Pedestrian/Persons``; a sequence of a person counts as a camera.

    Ten random half splits (``options.split_id``); one image of a test identity is the query, one in the gallery.

    Raises:
        UserError: the folder is missing or empty, a name cannot be parsed, a person has one image only, or
            ``split_id`` is out of range.
    """
    folder = require_folder(root / "ilids", "i-LIDS' folder i-LIDS_Pedestrian with Persons")
    samples = {}
    for path, match in match_images(folder / "i-LIDS_Pedestrian" / "Persons", _NAME, _EXPECTED):
        if match[2] == "000":
            raise UserError(f"{path} is of sequence 0, but sequences count from 1: remove or rename the file")
        samples[path.rsplit("/", 1)[-1]] = Sample(path, int(match[1]), int(match[2]) - 1)
    images_of: dict[int, list[str]] = {}
    for image, sample in samples.items():
        images_of.setdefault(sample.pid, []).append(image)
    for pid, images in images_of.items():
        if len(images) < 2:
            raise UserError(f"person {pid:04} of {folder} has one image only; as a test identity it needs two")
    require_two(folder, images_of)
    draws = share_draws(folder / SPLITS_FILE, _draw(images_of), lambda draw: _fits(draw, samples))
    check_split_id("ilids", options.split_id, len(draws))
    draw = draws[options.split_id]
    train, query, gallery = (sorted(samples[image] for image in draw[part]) for part in ("train", "query", "gallery"))
    return Splits(train, query, gallery, split_ids=range(len(draws)))


def _draw(images_of: dict[int, list[str]]) -> list[Draw]:
    """Draws the splits as lists of image names: all of a training identity's, two of a test identity's."""
    generator = random.Random(SEED)
    draws = []
    for _ in range(NUM_DRAWS):
        order = [int(pid) for pid in shuffled([f"{pid:04}" for pid in images_of], generator)]
        half = len(order) // 2
        pairs = [shuffled(images_of[pid], generator)[:2] for pid in sorted(order[half:])]
        draws.append(
            {
                "train": sorted(image for pid in order[:half] for image in images_of[pid]),
                "query": [query for query, _ in pairs],
                "gallery": [gallery for _, gallery in pairs],
            }
        )
    return draws


def _fits(draw: Draw, samples: dict[str, Sample]) -> bool:
    """Whether a draw names known images, the same test identities on both sides, and no one to train and test on."""
    if not all(image in samples for part in draw.values() for image in part):
        return False
    train, query, gallery = ([samples[image].pid for image in draw[part]] for part in ("train", "query", "gallery"))
    every_pid = {s.pid for s in samples.values()}
    return (
        sorted(query) == sorted(gallery)
        and not set(draw["query"]) & set(draw["gallery"])
        and not set(train) & set(query)
        and set(train) | set(query) == every_pid
        and bool(train and query)
    )
