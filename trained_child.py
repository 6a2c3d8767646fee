"""A trained child read from a file, with all that its use needs: architecture, input size, normalisation."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, RGB
from genotype import Genotype
from osnet_blocks import WIDTHS
from osnet_child import ChildNet, build_child
from utils.checkpoint import FORMAT, load_checkpoint, read_tensors
from utils.errors import UserError
from utils.torchreid_weights import (
    TorchreidNetwork,
    describe_torchreid_weights,
    load_torchreid_weights,
    read_torchreid_weights,
    rename_to_torchreid,
)

logger = logging.getLogger(__name__)

DEFAULT_HEIGHT, DEFAULT_WIDTH = 256, 128
# The network halves height and width four times, and an instance norm of its last stage needs two pixels.
SMALLEST_HEIGHT, SMALLEST_WIDTH = 32, 16


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
    document = _read_checkpoint(path)
    if document is None:
        weights = read_torchreid_weights(path)
    else:
        weights = rename_to_torchreid(read_torchreid_weights(document.get("model", {}), str(path)))
    try:
        network = describe_torchreid_weights(weights)
        _check_genotype(network.genotype, genotype)
        assert network.genotype is not None
        multiplier = find_multiplier(network)
        model = build_child(1, network.genotype, multiplier, network.stem_norm)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    load_torchreid_weights(model, weights, origin=str(path), with_classifier=False)
    config: Mapping[str, Any] = {} if document is None else document.get("config", {})
    height = config.get("data.height", DEFAULT_HEIGHT) if height is None else height
    width = config.get("data.width", DEFAULT_WIDTH) if width is None else width
    check_input_size(height, width)
    mean = tuple(config.get("data.norm_mean", IMAGENET_MEAN))
    std = tuple(config.get("data.norm_std", IMAGENET_STD))
    logger.info("%s: x%g, %s stem norm, input %d×%d\n%s", path, multiplier, network.stem_norm, height, width,
                network.genotype)  # fmt: skip
    return TrainedChild(model.eval().requires_grad_(False), multiplier, height, width, mean, std)


def check_input_size(height: int, width: int) -> None:
    """Checks that every child can compute features of images of this size, in px; the same limits as the config's.

    Raises:
        UserError: the last stage would be left without the two pixels that an instance norm needs.
    """
    if height < SMALLEST_HEIGHT or width < SMALLEST_WIDTH:
        raise UserError(
            f"input of {height}×{width} pixels (height × width): the network needs at least "
            f"{SMALLEST_HEIGHT}×{SMALLEST_WIDTH}"
        )


def find_multiplier(network: TorchreidNetwork) -> float:
    """Returns the channel multiplier of a network that was described by its weights.

    Raises:
        UserError: there is no OSNet with that stem.
    """
    for multiplier, (stem_channels, *_) in WIDTHS.items():
        if stem_channels == network.stem_channels:
            return multiplier
    raise UserError(f"no OSNet has a stem of {network.stem_channels} channels")


def _read_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """Reads a checkpoint of this project, None where the file is of another kind or unreadable."""
    try:
        document = read_tensors(path)
    except UserError:
        return None  # the importer knows more formats, and says what is wrong
    return load_checkpoint(path) if isinstance(document, dict) and document.get("format") == FORMAT else None


def _check_genotype(found: Genotype | None, wanted: Genotype | None) -> None:
    """Raises UserError unless the weights are of a child, and of the wanted one."""
    if found is None:
        raise UserError("these are the weights of a super-network; train a child from its genotype.json first")
    if wanted is not None and found != wanted.check():
        raise UserError(f"the weights are of {found!r}, wanted is {wanted!r}")
