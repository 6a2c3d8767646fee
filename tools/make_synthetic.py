"""Draws the synthetic pedestrians ahead of a run, with several processes, and a contact sheet of them.

    python -m tools.make_synthetic --root reid-data --workers 4
    python -m tools.make_synthetic --root reid-data --train-ids 200 --domains a b --sheet people.png

Training draws what is missing by itself; the images are the same. What is there already is compared with its checksums.
A run uses the sizes of its own settings; the tool says which settings those are, where they are not the usual ones.
Exit code 2 after a wrong argument, or if images are not as they were drawn.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from PIL import Image

from datasets.base import ReadOptions, Sample
from datasets.files import tell_read_errors
from datasets.synthetic import SYNTHETIC_READERS, SyntheticSize, check_drawn, draw_domain, find_domain
from datasets.synthetic_domains import DOMAINS
from utils.contact_sheet import Cell, check_sheet_name, draw_contact_sheet, save_contact_sheet
from utils.errors import UserError
from utils.files import make_folder
from utils.tool import tool

MOST_WORKERS = 1024
SIZES = [f.name for f in fields(SyntheticSize)]


def draw_sheet(domains: Sequence[str], size: SyntheticSize, root: Path, num_identities: int) -> Image.Image:
    """Sets drawn people side by side: a row for each domain, in it people beside each other, each under all cameras.

    Args:
        domains: Keys of ``DOMAINS``; what is missing is drawn.
        size: Which drawn data.
        root: The data sets' folder.
        num_identities: People in a row, at most.

    Returns:
        An RGB image.
    """
    options = ReadOptions(synthetic={name: getattr(size, name) for name in SIZES})
    rows = []
    for domain in domains:
        name = f"synthetic_{domain}"
        samples = _first_images(SYNTHETIC_READERS[name](root, options).train)[: num_identities * size.cameras]
        rows.append([_make_cell("" if i else name, sample) for i, sample in enumerate(samples)])
    return draw_contact_sheet(rows, (size.width, size.height), size.cameras)


def _make_cell(label: str, sample: Sample) -> Cell:
    with Image.open(sample.path) as image:
        return label, image.convert("RGB")


def _first_images(samples: Sequence[Sample]) -> list[Sample]:
    """Chooses the first image of every person under every camera, person by person."""
    first: dict[tuple[int, int], Sample] = {}
    for sample in samples:
        first.setdefault((sample.pid, sample.camid), sample)
    return [first[key] for key in sorted(first)]


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds an argument for each of the sizes of drawn data."""
    group = parser.add_argument_group("sizes of drawn data")
    for name in SIZES:
        default = getattr(SyntheticSize, name)
        group.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")


def read_size(given: argparse.Namespace) -> SyntheticSize:
    """Takes the sizes of drawn data from the command line."""
    return SyntheticSize(**{name: getattr(given, name) for name in SIZES})


def format_settings(size: SyntheticSize) -> str:
    """Writes the sizes that are not the usual ones as a run's settings."""
    values = {name: getattr(size, name) for name in SIZES if getattr(size, name) != getattr(SyntheticSize, name)}
    return " ".join(f"synthetic.{name} {value}" for name, value in values.items())


def make_domain(domain: str, size: SyntheticSize, root: Path, workers: int) -> None:
    """Draws a domain unless it is there as it should be, and prints what was done.

    Raises:
        UserError: it cannot be drawn, or what is there is not as it was drawn.
    """
    folder = find_domain(domain, size, root)
    if folder.is_dir():
        check_drawn(folder, size, contents=True)
        print(f"{folder} is there already")
        return
    start = time.perf_counter()
    draw_domain(domain, size, folder, workers)
    num_images = sum(1 for _ in folder.glob("*/*.jpg"))
    print(f"{folder}: {num_images} images, {num_images / (time.perf_counter() - start):.0f} per second")


@tool("make_synthetic")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds the data sets; made if missing")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write people × cameras × domains to this PNG")
    parser.add_argument("--sheet-identities", type=int, default=4, metavar="N", help="people in a row (default 4)")
    add_sizes(parser)
    given = parser.parse_args(arguments)
    size = read_size(given)
    if not 1 <= given.workers <= MOST_WORKERS or given.sheet_identities < 1:
        raise UserError(f"--workers must be 1 to {MOST_WORKERS:,} and --sheet-identities at least 1")
    make_folder(given.root)
    if given.sheet:
        check_sheet_name(given.sheet)
    with tell_read_errors(given.root):
        for domain in given.domains:
            make_domain(domain, size, given.root, given.workers)
    if size != SyntheticSize():
        print(f"a run finds them with {format_settings(size)}")
    if given.sheet:
        save_contact_sheet(draw_sheet(given.domains, size, given.root, given.sheet_identities), given.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
