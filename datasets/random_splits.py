"""Splits drawn at random once, the same for every run and machine, and written beside the data."""

import json
import logging
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from datasets.base import Sample, Splits, check_split_id, require_images
from utils.errors import UserError
from utils.files import write_atomically
from utils.label_names import LabelNames
from utils.read_file import read_json

SPLITS_FILE = "random_splits.json"
NUM_DRAWS = 10
SEED = 0

_logger = logging.getLogger(__name__)

Draw = dict[str, list[str]]
"""One split: lists of names (identities or images), by part."""


def shuffled(items: Iterable[str], generator: random.Random) -> list[str]:
    """Returns ``items`` in random order: sorted by one number each from ``generator.random()``.

    Only that method's stream is guaranteed to stay the same from one version of Python to the next (Mersenne Twister
    with an integer seed); ``shuffle`` and ``sample`` are not, hence this function.
    """
    return [item for _, item in sorted((generator.random(), item) for item in items)]


def draw_halves(identities: Sequence[str]) -> list[Draw]:
    """Draws ``NUM_DRAWS`` splits into ``train`` (half of the identities, rounded down) and ``test`` (the rest)."""
    generator = random.Random(SEED)
    draws = []
    for _ in range(NUM_DRAWS):
        order = shuffled(identities, generator)
        half = len(order) // 2
        draws.append({"train": sorted(order[:half]), "test": sorted(order[half:])})
    return draws


def share_draws(file: Path, fresh: list[Draw], fits: Callable[[Draw], bool]) -> list[Draw]:
    """Returns the draws in ``file``, and writes ``fresh`` there first if there is none yet.

    Where the folder cannot be written the fresh draws are used; they come out the same each time.

    Args:
        file: JSON beside the data, ``{"splits": [{part: [name, …]}, …]}`` and a note on its origin.
        fresh: The draws of this version, from the data alone.
        fits: Whether a draw read from the file fits the data.

    Raises:
        UserError: the file is damaged or does not fit the data.
    """
    if not file.exists():
        _write(file, fresh)
        return fresh
    remedy = "restore it, or delete it to draw the splits again"
    try:
        document = read_json(file, "random splits")
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from error
    draws = document.get("splits") if isinstance(document, dict) else None
    if not isinstance(draws, list) or not draws:
        raise UserError(f"{file} holds no list of splits: {remedy}")
    for position, draw in enumerate(draws):
        if not _is_draw(draw, fresh[0].keys()) or not fits(draw):
            raise UserError(f"split {position} in {file} does not fit the images there: {remedy}")
    return draws


def require_two(folder: Path, identities: Collection[object]) -> None:
    """Checks that there are enough people to halve.

    Raises:
        UserError: fewer than two.
    """
    if len(identities) < 2:
        raise UserError(f"{folder} has {len(identities)} identity to split into train and test, which needs two")


def share_halves(file: Path, identities: Sequence[str]) -> list[Draw]:
    """Half splits of ``identities`` (``draw_halves``) by way of ``file`` (``share_draws``)."""
    require_two(file.parent, identities)
    known = sorted(identities)

    def fits(draw: Draw) -> bool:
        return bool(draw["train"] and draw["test"]) and sorted([*draw["train"], *draw["test"]]) == known

    return share_draws(file, draw_halves(known), fits)


def split_two_cameras(
    folder: Path, samples: Sequence[Sample], split_id: int, camera_names: Sequence[str] = ()
) -> Splits:
    """Halves the people of two cameras: split 2d is draw d with camera 0 as the query, 2d + 1 with camera 1.

    Args:
        folder: The data set's folder; its name is the data set's, and the file of splits is in it.
        samples: All images, of cameras 0 and 1.
        split_id: From 0 to twice the number of draws.
        camera_names: The cameras' names, if not 1 and 2.

    Raises:
        UserError: ``split_id`` is out of range, the file of splits does not fit, or a part has no image.
    """
    draws = share_halves(folder / SPLITS_FILE, [str(pid) for pid in {s.pid for s in samples}])
    check_split_id(folder.name, split_id, 2 * len(draws))
    train_pids = {int(identity) for identity in draws[split_id // 2]["train"]}
    query_camera = split_id % 2
    test = [s for s in samples if s.pid not in train_pids]
    splits = Splits(
        train=[s for s in samples if s.pid in train_pids],
        query=[s for s in test if s.camid == query_camera],
        gallery=[s for s in test if s.camid != query_camera],
        split_ids=range(query_camera, 2 * len(draws), 2),
        names=LabelNames(cameras=dict(enumerate(camera_names))),
    )
    return require_images(folder, splits)


def _is_draw(draw: object, parts: Iterable[str]) -> bool:
    """Whether ``draw`` has lists of strings under every one of ``parts``."""
    if not isinstance(draw, dict):
        return False
    return all(isinstance(draw.get(part), list) and all(isinstance(item, str) for item in draw[part]) for part in parts)


def _write(file: Path, draws: list[Draw]) -> None:
    """Writes the file whole or not at all; a folder that cannot be written is only logged."""
    note = f"drawn once from seed {SEED} (Python random.random, Mersenne Twister); keep it with the data"
    try:
        write_atomically(file, json.dumps({"note": note, "splits": draws}, indent=1) + "\n")
    except UserError as error:
        _logger.info("%s; the same splits are drawn again in each run", error)
