"""Writes the features of images into a table: a folder of images, or the files that a CSV manifest lists.

    python -m tools.extract_features PHOTOS --weights log/osnet_child/checkpoints/best.pt --output features.npz
    python -m tools.extract_features people.csv --weights osnet_ain_x1_0.pth --output features.npz features.csv

A manifest has a header line with a column ``path``, relative to the manifest's folder; its other columns go into the
table as they are. Tables: ``.npz`` holds ``features`` (N, 512) float32, ``paths`` and one array for each other column;
``.csv`` holds path, the other columns, f0 to f511. Parquet is left out, as it would need a further package.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from datasets.decode import CorruptImageError
from datasets.files import is_image_name
from engine.memory import check_inference
from feature_extractor import FeatureExtractor
from utils.distributed import Runtime
from utils.errors import UserError
from utils.feature_table import WRITERS, Manifest, read_manifest, write_table
from utils.files import check_writable
from utils.log import progress, start_log
from utils.tool import tool

logger = logging.getLogger(__name__)


def list_images(source: Path) -> Manifest:
    """Returns what is to be read: all images in a folder and the folders below, sorted, or a manifest's lines.

    Raises:
        UserError: neither a folder with images nor a readable manifest.
    """
    if not source.is_dir():
        return read_manifest(source)
    paths = sorted(str(path) for path in source.rglob("*") if is_image_name(path.name) and not path.is_dir())
    if not paths:
        raise UserError(f"no image in {source} or in the folders below it")
    return Manifest(paths, paths, {})


def extract(extractor: FeatureExtractor, files: Sequence[str], *, skip: bool, workers: int) -> tuple[Tensor, list[int]]:
    """Computes the features of image files; threads read the next batch at the same time.

    Args:
        extractor: Gives the batch size too.
        files: Images.
        skip: Leave broken images out with a warning for each, instead of stopping.
        workers: Threads, at least 1.

    Returns:
        Features (M, 512) float32 and the M positions in ``files``.

    Raises:
        CorruptImageError: an image is broken and may not be skipped.
        UserError: all images are broken, or features are not finite.
    """
    features, positions = [], list[int]()
    for first, images in progress(_read_batches(extractor, files, workers), None, "features"):
        readable = []
        for position, image in enumerate(images, first):
            if isinstance(image, Tensor):
                readable.append(image)
                positions.append(position)
            elif skip:
                logger.warning("left out: %s", image)
            else:
                raise image
        if readable:
            features.append(extractor.embed(torch.stack(readable)))
    if not features:
        raise UserError(f"none of the {len(files)} images can be read")
    table = torch.cat(features)
    finite = table.isfinite().all(1)
    if not finite.all():
        raise UserError(f"the features of {files[positions[int(finite.long().argmin())]]} are not finite; are these "
                        "the weights of a training that went well?")  # fmt: skip
    return table, positions


def _read_batches(
    extractor: FeatureExtractor, files: Sequence[str], workers: int
) -> Iterator[tuple[int, list[Tensor | CorruptImageError]]]:
    """Yields the position of a batch's first file and its images; reads one batch ahead."""

    def read(file: str) -> Tensor | CorruptImageError:
        try:
            return extractor.read(file)
        except CorruptImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        starts = iter(range(0, len(files), extractor.batch_size))
        ahead = [(s, pool.map(read, files[s : s + extractor.batch_size])) for s in islice(starts, 1)]
        while ahead:
            first, images = ahead.pop()
            ahead = [(s, pool.map(read, files[s : s + extractor.batch_size])) for s in islice(starts, 1)]
            yield first, list(images)


def check_outputs(outputs: Sequence[Path], *read: Path) -> None:
    """Checks that every table can be written, before anything is computed.

    Args:
        outputs: The tables.
        read: Files that they are made from.

    Raises:
        UserError: an unknown kind of table, one twice, one that would replace what is read, or as ``check_writable``.
    """
    for path in outputs:
        if path.suffix.lower() not in WRITERS:
            raise UserError(f"--output {path}: the name must end in {' or '.join(WRITERS)}")
        check_writable(path, *read)
    files = [os.path.realpath(path) for path in outputs]
    for path, file in zip(outputs, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f"--output {path}: the same file is given twice")


@tool("extract_features")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.extract_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder of images, or a CSV manifest")
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint of a child, or Torchreid's file")
    parser.add_argument("--output", type=Path, nargs="+", required=True, metavar="FILE", help="table(s): .npz, .csv")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input in pixels (default: as trained)")
    parser.add_argument("--flip", action="store_true", help="mean over each image and its mirror image")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--batch-size", type=int, default=100, metavar="N", help="images per pass (default 100)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read images (default 2)")
    parser.add_argument(
        "--on-corrupt", choices=("stop", "skip"), default="stop", help="what to do about a broken image (default stop)"
    )
    given = parser.parse_args(arguments)
    start_log(None)
    if given.batch_size < 1 or given.workers < 1:
        raise UserError("--batch-size and --workers must be at least 1")
    check_outputs(given.output, given.source, given.weights)
    manifest = list_images(given.source)
    height, width = given.size or (None, None)
    extractor = FeatureExtractor(
        given.weights, height=height, width=width, device=given.device, flip=given.flip, batch_size=given.batch_size
    )
    child = extractor.child
    num_images = min(given.batch_size, len(manifest.files))
    check_inference(Runtime(extractor.device), num_images, child.height, child.width, child.multiplier)
    started = time.monotonic()
    skip = given.on_corrupt == "skip"
    features, positions = extract(extractor, manifest.files, skip=skip, workers=given.workers)
    seconds = time.monotonic() - started
    for path in given.output:
        write_table(path, features.numpy(), manifest.select(positions))
    print(
        f"{len(positions):,} of {len(manifest.files):,} images in {seconds:.1f} s → {', '.join(map(str, given.output))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
