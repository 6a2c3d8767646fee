"""Synthetic pedestrians: drawn from a seed into Market-1501's layout, one data set for each domain.

People, cameras and images are random functions of their numbers: person 7 of domain b looks the same whatever else is
drawn, on every machine. Domains differ in style, and have people and cameras of their own. What is drawn is kept below
``<root>/synthetic`` and drawn only once; ``files.csv`` beside the images lists them with sizes and checksums, so that
a folder is noticed from which images were taken, to which some were added, or in which some were changed.
"""

import logging
import multiprocessing
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datasets.base import Reader, ReadOptions, Splits
from datasets.files import list_image_names, tell_read_errors
from datasets.market1501 import read_market_layout
from datasets.synthetic_camera import Camera
from datasets.synthetic_domains import DOMAINS
from datasets.synthetic_people import Draws, draw_person
from utils.errors import UserError
from utils.log import progress

logger = logging.getLogger(__name__)

RENDERER_VERSION = 3  # part of the cache's name: raised with every change to what is drawn
_FIRST_TEST_PID = 5001
_FIRST_STRANGER = 10_001  # people who are drawn as distractors, pid 0
_PERSON, _CAMERA, _IMAGE = 1, 2, 3  # second number of a random key, after the seed
_PARTS = ("bounding_box_train", "query", "bounding_box_test")
_MANIFEST = "files.csv"  # columns: file, bytes, crc32


@dataclass(frozen=True)
class SyntheticSize:
    """How much is drawn in each domain.

    Attributes:
        train_ids: People to train on, 2 to 5,000.
        test_ids: People to test on, 1 to 4,999; as many strangers are distractors in the gallery, an image each.
        cameras: Cameras, 2 to 9.
        images_per_camera: Images of a person under a camera, at least 2; of a test identity the first is a query.
        height: Of an image, px.
        width: Of an image, px.
        seed: Of everything.
    """

    train_ids: int = 60
    test_ids: int = 40
    cameras: int = 4
    images_per_camera: int = 4
    height: int = 128
    width: int = 64
    seed: int = 1

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            UserError: names the size, its value and its range.
        """
        ranges = {"train_ids": (2, 5000), "test_ids": (1, 4999), "cameras": (2, 9), "images_per_camera": (2, 1000),
                  "height": (32, 1024), "width": (16, 1024), "seed": (0, 2**31 - 1)}  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"synthetic.{name} = {getattr(self, name)}: must lie between {low} and {high}")

    @property
    def folder_name(self) -> str:
        """Names the cache: the same for the same images."""
        return (
            f"v{RENDERER_VERSION}-train{self.train_ids}-test{self.test_ids}-cameras{self.cameras}"
            f"-images{self.images_per_camera}-{self.height}x{self.width}-seed{self.seed}"
        )


class _Task(NamedTuple):
    """One image to draw: who, under which camera, which number, into which file."""

    person: int
    camera: int
    number: int
    file: str


def read_synthetic(domain: str, root: Path, options: ReadOptions) -> Splits:
    """Reads a drawn domain, drawing it first if it is not there yet.

    Args:
        domain: Key of ``DOMAINS``.
        root: Made if it does not exist.
        options: Sizes and seed are in ``options.synthetic``, by the names of ``SyntheticSize``;
            ``options.check_contents`` compares every byte.

    Raises:
        UserError: a size out of its range, the folder cannot be written, or it is not as it was drawn.
    """
    size = SyntheticSize(**options.synthetic)
    folder = find_domain(domain, size, root)
    if not folder.is_dir():
        draw_domain(domain, size, folder)
    check_drawn(folder, size, options.check_contents)
    return read_market_layout(folder, f"synthetic_{domain}")


def find_domain(domain: str, size: SyntheticSize, root: Path) -> Path:
    """Names the folder that holds a drawn domain, whether it is there or not."""
    return root / "synthetic" / size.folder_name / domain


def draw_domain(domain: str, size: SyntheticSize, folder: Path, workers: int = 1) -> None:
    """Draws a whole domain beside ``folder`` and puts it there when it is complete.

    Whoever draws the same at the same time is not disturbed: the first that is ready wins.

    Args:
        domain: Key of ``DOMAINS``.
        size: How much.
        folder: Does not exist yet.
        workers: Processes that draw; the images do not depend on it.

    Raises:
        UserError: a size out of its range, or the folder cannot be written.
    """
    size.check()
    tasks = list(_list_tasks(size))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            target = Path(temporary) / folder.name
            _draw_all(domain, size, tasks, target, workers)
            _write_manifest(target, tasks)
            try:
                target.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise UserError(f"cannot draw synthetic_{domain} into {folder}: {error.strerror or error}") from error
    except BrokenExecutor as error:
        raise UserError(
            f"cannot draw synthetic_{domain}: a drawing process was killed, most often for want of memory; use fewer"
        ) from error
    logger.info("drew %d images of synthetic_%s into %s", len(tasks), domain, folder)


def check_drawn(folder: Path, size: SyntheticSize, contents: bool = False) -> None:
    """Checks that a drawn folder holds the images that were drawn, by their names and lengths.

    A folder that was drawn before there was a list of files is checked by names alone, with a warning.

    Args:
        folder: As ``find_domain`` names it.
        size: How much was drawn.
        contents: Compare the checksums too, which reads every file.

    Raises:
        UserError: images are missing, added or changed; the message names the first of each kind.
    """
    anew = ", and it is drawn anew"
    drawn = {task.file for task in _list_tasks(size)}
    found = {
        f"{part}/{name}"
        for part in _PARTS
        for name in list_image_names(folder / part, f"drawn images; delete {folder}{anew}", allow_empty=True)
    }
    faults = {"missing": drawn - found, "added": found - drawn}
    manifest = folder / _MANIFEST
    with tell_read_errors(manifest):
        if manifest.is_file():
            lines = manifest.read_text("utf-8", errors="replace").splitlines()
            listed = dict(line.split(",", 1) for line in lines if "," in line)
            faults["changed"] = {
                name for name in drawn & found if not _is_as_listed(folder / name, listed.get(name, ""), contents)
            }
        else:
            logger.warning(
                "%s has no %s: only names of images are checked; delete the folder%s", folder, _MANIFEST, anew
            )
    told = [f"{len(names)} {kind} ({min(names)!r})" for kind, names in faults.items() if names]
    if told:
        raise UserError(f"{folder} is not as it was drawn: images {', '.join(told)}; delete the folder{anew}")


def _is_as_listed(file: Path, listed: str, contents: bool) -> bool:
    """Whether a file has the length, and with ``contents`` the checksum too, of its line in the list."""
    return _describe(file) == listed if contents else listed.split(",")[0] == str(file.stat().st_size)


def _describe(file: Path) -> str:
    content = file.read_bytes()
    return f"{len(content)},{zlib.crc32(content):08x}"


def _write_manifest(folder: Path, tasks: Iterable[_Task]) -> None:
    """Lists the drawn files."""
    rows = (f"{task.file},{_describe(folder / task.file)}" for task in tasks)
    (folder / _MANIFEST).write_text("\n".join(["file,bytes,crc32", *rows, ""]))


def _list_tasks(size: SyntheticSize) -> Iterator[_Task]:
    """Lists all images of a domain: training, query, gallery, distractors."""
    for pid in range(1, size.train_ids + 1):
        for camera in range(1, size.cameras + 1):
            for number in range(size.images_per_camera):
                yield _Task(pid, camera, number, f"bounding_box_train/{_file_name(pid, camera, number)}")
    for pid in range(_FIRST_TEST_PID, _FIRST_TEST_PID + size.test_ids):
        for camera in range(1, size.cameras + 1):
            for number in range(size.images_per_camera):
                part = "bounding_box_test" if number else "query"
                yield _Task(pid, camera, number, f"{part}/{_file_name(pid, camera, number)}")
    for index in range(size.test_ids):
        camera = 1 + index % size.cameras
        yield _Task(_FIRST_STRANGER + index, camera, 0, f"bounding_box_test/{_file_name(0, camera, index)}")


def _file_name(pid: int, camera: int, number: int) -> str:
    return f"{pid:04d}_c{camera}s1_{number:06d}_00.jpg"


def _draw_all(domain: str, size: SyntheticSize, tasks: list[_Task], folder: Path, workers: int) -> None:
    """Draws the images into a new folder, in as many processes as are asked for."""
    for part in _PARTS:
        (folder / part).mkdir(parents=True)
    label = f"drawing synthetic_{domain}"
    workers = min(workers, len(tasks))
    if workers == 1:
        _draw(domain, size, progress(tasks, len(tasks), label), folder)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(_draw, domain, size, tasks[i::workers], folder) for i in range(workers)]
        for share in progress(as_completed(shares), workers, label):
            share.result()


def _draw(domain: str, size: SyntheticSize, tasks: Iterable[_Task], folder: Path) -> None:
    code = DOMAINS[domain].code
    cameras = [
        Camera(DOMAINS[domain], size.height, size.width, Draws(size.seed, _CAMERA, code, number))
        for number in range(1, size.cameras + 1)
    ]
    person_of = lru_cache(1)(lambda number: draw_person(Draws(size.seed, _PERSON, code, number)))  # tasks go by people
    for task in tasks:
        draws = Draws(size.seed, _IMAGE, code, task.person, task.camera, task.number)
        pixels = cameras[task.camera - 1].photograph(person_of(task.person), draws)
        Image.fromarray(pixels).save(folder / task.file, quality=DOMAINS[domain].quality)


SYNTHETIC_READERS: dict[str, Reader] = {
    "synthetic": partial(read_synthetic, "a"),
    **{f"synthetic_{domain}": partial(read_synthetic, domain) for domain in DOMAINS},
}
