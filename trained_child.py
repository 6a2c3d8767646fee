"""A trained child read from a file, with all that its use needs: architecture, input size, normalisation."""

import logging
from dataclasses import dataclass
from pathlib import Path

from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, RGB
from genotype import Genotype
from network_settings import LARGEST_SIDE, SMALLEST_HEIGHT, SMALLEST_WIDTH, find_settings
from osnet_child import ChildNet, build_child
from utils.errors import UserError
from utils.network_file import load_network_weights, read_network_file

logger = logging.getLogger(__name__)

DEFAULT_HEIGHT, DEFAULT_WIDTH = 256, 128


@dataclass(frozen=True)
class TrainedChild:
    """A child in evaluation mode on the CPU, without gradients, and the images that it was trained on.

    Attributes:
        model: Maps (N, 3, height, width) to features (N, 512); its classifier is not the trained one.
        multiplier: Channel multiplier, a key of ``osnet_blocks.WIDTHS``.
        height: Of its input, px.
        width: Of its input, px.
        mean: Of R, G and B in [0, 1], taken off the image.
        std: Of R, G and B, by which the image is then divided.
    """

    model: ChildNet
    multiplier: float
    height: int
    width: int
    mean: RGB
    std: RGB


def load_trained_child(
    path: str | Path, *, genotype: Genotype | None = None, height: int | None = None, width: int | None = None
) -> TrainedChild:
    """Loads a child from a checkpoint of this project or a file of Torchreid's.

    Genotype, stem norm and channel multiplier are read off the names and shapes of the weights, in both cases. Input
    size and normalisation are those of the checkpoint's config; a file without one has 256×128 and ImageNet's.

    Args:
        path: The file.
        genotype: What the weights have to be of; None: anything.
        height: Of the input, px; None: as trained.
        width: Of the input, px; None: as trained.

    Raises:
        UserError: the file cannot be read, holds another network than a whole child or than one of ``genotype``, or
            the input is too small for the network (see ``check_input_size``).
    """
    file = read_network_file(path)
    found = find_settings(file)
    if "model.genotype" not in found:
        raise UserError(f"{path}: these are the weights of a super-network; train a child from its genotype.json first")
    if genotype is not None and found["model.genotype"] != genotype.check():
        raise UserError(f"{path}: the weights are of {found['model.genotype']!r}, wanted is {genotype!r}")
    multiplier, stem_norm = found["model.width"], found["model.stem_norm"]
    model = build_child(1, found["model.genotype"], multiplier, stem_norm)
    load_network_weights(model, file, with_classifier=False)
    height = found.get("data.height", DEFAULT_HEIGHT) if height is None else height
    width = found.get("data.width", DEFAULT_WIDTH) if width is None else width
    check_input_size(height, width)
    mean, std = (tuple(found.get(f"data.norm_{key}", v)) for key, v in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    logger.info("%s: x%g, %s stem norm, input %d×%d\n%s", path, multiplier, stem_norm, height, width, model.genotype)
    return TrainedChild(model.eval().requires_grad_(False), multiplier, height, width, mean, std)


def check_input_size(height: int, width: int) -> None:
    """Checks that every child can compute features of images of this size, in px; the same limits as the config's.

    Raises:
        UserError: the last stage would be left without the two pixels that an instance norm needs, or the size is
            absurd.
    """
    if height < SMALLEST_HEIGHT or width < SMALLEST_WIDTH:
        raise UserError(
            f"input of {height}×{width} pixels (height × width): the network needs at least "
            f"{SMALLEST_HEIGHT}×{SMALLEST_WIDTH}"
        )
    if max(height, width) > LARGEST_SIDE:
        raise UserError(f"input of {height}×{width} pixels (height × width): a side has at most {LARGEST_SIDE}")
