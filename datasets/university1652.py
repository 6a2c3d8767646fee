"""University-1652 (Zheng et al., ACM MM 2020): buildings instead of people, seen by drone, satellite and street."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, require_images
from datasets.files import list_folder_names, list_image_names, parse_number
from utils.errors import UserError


def read_university1652(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/university1652/University-Release``: ``train/VIEW/ID``, ``test/{query_drone,gallery_satellite}/ID``.

    There are no cameras, and the protocol leaves nothing out: each image counts as its own camera.

    Raises:
        UserError: a folder is missing or empty, or a folder of images is not named by a number.
    """
    folder = root / "university1652" / "University-Release"
    camids = count()
    views = list_folder_names(folder / "train", "University-1652's views: drone, google, satellite, street")
    train = [s for view in views for s in _read_buildings(folder / "train" / view, camids)]
    query = list(_read_buildings(folder / "test" / "query_drone", camids))
    gallery = list(_read_buildings(folder / "test" / "gallery_satellite", camids))
    return require_images(folder, Splits(train, query, gallery))


def _read_buildings(folder: Path, camids: Iterator[int]) -> Iterator[Sample]:
    """Yields the images in the numbered folders of ``folder``, each with the next camera."""
    expected = "University-1652's folders of images, one per building, named by its number as in 0839"
    for building in list_folder_names(folder, expected):
        if not building.isdecimal():
            raise UserError(f"folder {folder / building} is not named by a number: expected {expected}")
        pid = parse_number(building, folder / building)
        for name in list_image_names(folder / building, "images of one building", allow_empty=True):
            yield Sample(f"{folder}/{building}/{name}", pid, next(camids))
