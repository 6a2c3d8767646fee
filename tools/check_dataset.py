"""Checks a data set: its counts beside the published ones, broken images, duplicates, leaks; draws a contact sheet.

    python -m tools.check_dataset market1501 --root reid-data --sheet people.png
    python -m tools.check_dataset --all --root reid-data
    python -m tools.check_dataset --layout market1501

Exit code 0: nothing wrong; 1: problems, each on a line; 2: the data set cannot be read, or a wrong argument.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from datasets import DATASETS, FOLDERS, find_reader, read_data_set
from datasets.audit import (
    Finding,
    choose_for_sheet,
    find_duplicates,
    find_shared_identities,
    find_unmatched,
    hash_contents,
)
from datasets.base import ReadOptions, Sample, Splits, check_protocol, count_identities
from datasets.files import tell_read_errors
from datasets.integrity import find_broken
from datasets.layouts import format_layout
from datasets.synthetic import SyntheticSize, find_domain
from tools.make_synthetic import SIZES, add_sizes, read_size
from utils.contact_sheet import Cell, check_sheet_name, draw_contact_sheet, save_contact_sheet
from utils.errors import UserError
from utils.images import CorruptImageError
from utils.printable import make_printable
from utils.thumbnails import shorten
from utils.tool import tool

Counts = dict[str, tuple[int | None, int | None]]
"""Identities (distractors not counted) and images by part; None: not the same in each split."""

# From the data sets' own documents; training includes what only combineall adds. Sets of random halves: any one split.
PUBLISHED: dict[str, Counts] = {
    "market1501": {"train": (751, 12_936), "query": (750, 3_368), "gallery": (750, 15_913)},
    "dukemtmcreid": {"train": (702, 16_522), "query": (702, 2_228), "gallery": (1_110, 17_661)},
    "msmt17": {"train": (1_041, 32_621), "query": (3_060, 11_659), "gallery": (3_060, 82_161)},
    "cuhk03": {"train": (767, 7_365), "query": (700, 1_400), "gallery": (700, 5_332)},
    "cuhk01": {"train": (485, 1_940), "query": (486, 972), "gallery": (486, 972)},
    "cuhk02": {"train": (1_577, 6_308), "query": (239, 478), "gallery": (239, 478)},
    "cuhksysu": {"train": (11_934, 34_574)},
    "viper": {"train": (316, 632), "query": (316, 316), "gallery": (316, 316)},
    "grid": {"train": (125, 250), "query": (125, 125), "gallery": (125, 900)},
    "prid": {"train": (100, 200), "query": (100, 100), "gallery": (100, 649)},
    "ilids": {"train": (59, None), "query": (60, 60), "gallery": (60, 60)},
    "sensereid": {"query": (522, 1_040), "gallery": (1_717, 3_388)},
    "university1652": {"train": (701, 50_218), "query": (701, 37_855), "gallery": (951, 951)},
}
CUHK03_LABELED: Counts = {"train": (767, 7_368), "query": (700, 1_400), "gallery": (700, 5_328)}

_CELL_PX = (64, 128)
_LABEL_LENGTH = 12  # what fits above a cell
_LISTED_CAMERAS = 16


def published_counts(name: str, options: ReadOptions) -> Counts:
    """Returns the published counts of a data set read with ``options``; empty where there are none."""
    counts = PUBLISHED.get(name, {})
    if name == "cuhk03" and options.cuhk03_classic_split:
        return {}
    if name == "cuhk03" and options.cuhk03_labeled:
        return CUHK03_LABELED
    if name == "market1501" and options.market1501_500k:
        return {**counts, "gallery": (750, None)}
    return counts


def compare_counts(splits: Splits, published: Counts) -> tuple[list[str], list[Finding]]:
    """Makes the lines of a table of counts, and a problem of each part that is not as published."""
    lines = [f"{'':8} {'identities':>10} {'published':>10} {'images':>9} {'published':>10} {'cameras':>8}"]
    findings = []
    parts = {"train": [*splits.train, *splits.extra_train], "query": splits.query, "gallery": splits.gallery}
    for part, samples in parts.items():
        pids = count_identities(s for s in samples if s.pid not in splits.distractor_pids)
        known_pids, known_images = published.get(part, (None, None))
        cells = (f"{known:,}" if known is not None else "-" for known in (known_pids, known_images))
        shown_pids, shown_images = cells
        cameras = len({s.camid for s in samples})
        lines.append(f"{part:8} {pids:>10,} {shown_pids:>10} {len(samples):>9,} {shown_images:>10} {cameras:>8,}")
        for what, known, found in (("identities", known_pids, pids), ("images", known_images, len(samples))):
            if known is not None and known != found:
                findings.append(Finding(True, f"{part}: {found:,} {what}, published are {known:,}"))
    camids = sorted({s.camid for samples in parts.values() for s in samples})
    if len(camids) <= _LISTED_CAMERAS:
        lines.append(f"cameras, as the files name them: {', '.join(map(splits.names.camera, camids))}")
    return lines, findings


def check_data_set(name: str, splits: Splits, thorough: bool, workers: int) -> list[Finding]:
    """Looks into the files and at the splits as a whole; the counts are not part of it."""
    everything = [*splits.train, *splits.extra_train, *splits.query, *splits.gallery]
    paths = sorted({s.path for s in everything})
    broken = find_broken(paths, workers=workers, thorough=thorough)
    findings = [Finding(True, f"broken image {path}: {reason}") for path, reason in broken]
    bad = {path for path, _ in broken}
    findings += find_duplicates(splits, hash_contents((path for path in paths if path not in bad), workers))
    findings += find_shared_identities(splits)
    findings += find_unmatched(splits)
    if splits.query or splits.gallery:
        try:
            check_protocol(name, splits.query, splits.gallery)
        except UserError as error:
            findings.append(Finding(True, str(error)))
    return findings


def draw_sheet(file: Path, rows: Sequence[Sequence[Sample]], splits: Splits) -> None:
    """Draws a row for each identity, one image per camera, named as the files of the data set name them.

    A broken image's cell is empty and crossed out.

    Raises:
        UserError: there is nothing to draw, or the file cannot be written.
    """
    if not rows:
        raise UserError("there is no image to draw a sheet of")
    sheet = draw_contact_sheet(
        [[_make_cell(sample, splits) for sample in row] for row in rows], _CELL_PX, max(map(len, rows))
    )
    save_contact_sheet(sheet, file)


def _make_cell(sample: Sample, splits: Splits) -> Cell:
    camera = splits.names.camera(sample.camid)
    label = f"{splits.names.person(sample.pid)} {f'c{camera}' if camera.isdecimal() else camera}"
    label = shorten(label, _LABEL_LENGTH)
    from datasets.decode import decode_image  # PyTorch, which the other checks do without

    try:
        pixels = decode_image(sample.path).permute(1, 2, 0).numpy()
    except CorruptImageError:
        return label, None
    return label, Image.fromarray(pixels).resize(_CELL_PX)


def check_one(name: str, given: argparse.Namespace, options: ReadOptions) -> bool:
    """Checks one data set, prints what is found, and returns whether all is well."""
    folder = given.root
    if name.startswith("synthetic"):
        folder = require_drawn(name, read_size(given), given.root)
    splits = read_data_set(name, given.root, options)
    lines, findings = compare_counts(splits, published_counts(name, options))
    for line in (f"{name} in {folder}", *lines):
        print(make_printable(line))
    findings += check_data_set(name, splits, not given.quick, given.workers)
    for finding in findings:
        print(f"{'PROBLEM' if finding.is_problem else 'note'}: {make_printable(finding.text)}")
    problems = sum(finding.is_problem for finding in findings)
    print(f"{problems} problem(s)" if problems else "no problem")
    if given.sheet:
        shown = [*splits.query, *splits.gallery] or splits.train
        shown = [s for s in shown if s.pid not in splits.distractor_pids]
        draw_sheet(given.sheet, choose_for_sheet(shown, given.sheet_identities), splits)
        print(f"sheet: {given.sheet}")
    return not problems


def require_drawn(name: str, size: SyntheticSize, root: Path) -> Path:
    """Returns the folder of a drawn data set, and draws nothing itself.

    Raises:
        UserError: it is not there; the message names those of other sizes that are.
    """
    domain = name.removeprefix("synthetic").removeprefix("_") or "a"
    folder = find_domain(domain, size, root)
    with tell_read_errors(root):
        if folder.is_dir():
            return folder
        others = sorted(path.name for path in (root / "synthetic").glob("*") if (path / domain).is_dir())
    told = f"; there are {', '.join(others)}: give the sizes of one of them, such as --train-ids" if others else ""
    raise UserError(f"no folder {folder}: draw it with python -m tools.make_synthetic{told}")


def check_all(root: Path) -> bool:
    """Prints which data sets are below ``root`` and how they count, and returns whether those that are there are well.

    Raises:
        UserError: there is none.
    """
    well, found = True, False
    for name in PUBLISHED:
        with tell_read_errors(root):
            is_there = (root / FOLDERS[name]).is_dir()
        if not is_there:
            print(f"{name}: not there")
            continue
        found = True
        try:
            splits = read_data_set(name, root, ReadOptions())
        except UserError as error:
            print(f"{name}: PROBLEM: {error}")
            well = False
            continue
        findings = compare_counts(splits, PUBLISHED[name])[1]
        print(f"{name}: {'PROBLEM: ' + '; '.join(f.text for f in findings) if findings else 'counts as published'}")
        well = well and not findings
    if not found:
        raise UserError(f"no data set in {root}: expected folders as {', '.join(FOLDERS[n] for n in PUBLISHED)}")
    return well


def check_arguments(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Checks what the command line asks for.

    Raises:
        UserError: an unknown data set, a number out of range, or together with --all what concerns one data set only.
    """
    if given.all == bool(given.name):
        raise UserError(f"give either the name of a data set or --all; names are {', '.join(DATASETS)}, folder:NAME")
    if given.name:
        find_reader(given.name)
    if given.name and given.layout:
        return
    if given.root is None:
        raise UserError("give the folder that holds the data sets with --root")
    if not (given.name or "").startswith("synthetic") and read_size(given) != SyntheticSize():
        raise UserError("the sizes of drawn data belong to synthetic data sets alone: leave them out")
    if given.workers < 1 or given.sheet_identities < 1:
        raise UserError("--workers and --sheet-identities must be at least 1")
    if given.sheet:
        check_sheet_name(given.sheet)
    others = {key: value for key, value in vars(given).items() if key not in ("all", "root")}
    unused = [f"--{key.replace('_', '-')}" for key, value in others.items() if value != parser.get_default(key)]
    if given.all and unused:
        raise UserError(f"--all only counts images: leave out {', '.join(unused)}, or name one data set instead")


@tool("check_dataset")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 1 after problems, 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_dataset",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--layout", action="store_true", help="print which folders and files are expected, and end")
    parser.add_argument("--all", action="store_true", help="say which data sets are in the root, and count them")
    parser.add_argument("--quick", action="store_true", help="decode only files whose beginning or end looks wrong")
    parser.add_argument("--workers", type=int, default=4, help="threads (default 4)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw some identities across cameras to this PNG")
    parser.add_argument("--sheet-identities", type=int, default=8, metavar="N", help="how many (default 8)")
    parser.add_argument("--split-id", type=int, default=0, metavar="N", help="which split, where there are several")
    parser.add_argument("--market1501-500k", action="store_true", help="with Market-1501's 500,000 distractors")
    parser.add_argument("--cuhk03-labeled", action="store_true", help="CUHK03 with hand-drawn boxes")
    parser.add_argument("--cuhk03-classic-split", action="store_true", help="CUHK03 with its classic splits")
    add_sizes(parser)
    given = parser.parse_args(arguments)
    options = ReadOptions(
        split_id=given.split_id,
        market1501_500k=given.market1501_500k,
        cuhk03_labeled=given.cuhk03_labeled,
        cuhk03_classic_split=given.cuhk03_classic_split,
        synthetic={name: getattr(given, name) for name in SIZES},
        check_contents=True,
    )
    check_arguments(parser, given)
    if given.layout:
        print(format_layout(given.name), end="")
        return 0
    if given.all:
        return 0 if check_all(given.root) else 1
    return 0 if check_one(given.name, given, options) else 1


if __name__ == "__main__":
    sys.exit(main())
