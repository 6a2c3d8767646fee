"""The augmentation pipeline of a run: which, in which order, and where its random numbers come from."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment import Augmentation, ColorAug, ColorJitter, RandomCrop, RandomErase, RandomFlip, RandomPatch
from utils.errors import UserError
from utils.suggest import nearest

# in the order in which they are applied, Torchreid's; random_erase comes after normalisation there and paints with the
# numbers of the mean colour, half a standard deviation above it; here it is the mean colour itself
TRANSFORMS = ("random_flip", "random_crop", "random_patch", "color_jitter", "color_aug", "random_erase")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RGB = tuple[float, float, float]


class Pipeline:
    """Augmentations applied one after the other, reproducible image by image.

    The parameters of an image depend on the seed, the epoch and the image's position in the epoch alone, not on the
    batch size, the number of workers or processes, or which other augmentations are switched on.
    """

    def __init__(self, names: Sequence[str], height: int, width: int, mean: RGB = IMAGENET_MEAN, seed: int = 0) -> None:
        """Sets up the named augmentations, in ``TRANSFORMS``' order; the order of ``names`` does not matter.

        Args:
            names: Entries of ``TRANSFORMS``.
            height: Of the images, px.
            width: Of the images, px.
            mean: Colour of erased rectangles, RGB in [0, 1].
            seed: Of the random numbers.

        Raises:
            UserError: an unknown name.
        """
        for name in names:
            if name not in TRANSFORMS:
                raise UserError(
                    f"data.transforms: unknown transform {name!r}{nearest(name, TRANSFORMS)}; valid: "
                    + ", ".join(TRANSFORMS)
                )
        table: dict[str, Augmentation] = {
            "random_flip": RandomFlip(),
            "random_crop": RandomCrop(height, width),
            "random_patch": RandomPatch(height, width),
            "color_jitter": ColorJitter(),
            "color_aug": ColorAug(),
            "random_erase": RandomErase(height, width, mean),
        }
        self.steps = {name: table[name] for name in TRANSFORMS if name in names}
        self.seed = seed
        self._columns = self._find_columns()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def draw(self, epoch: int, first: int, count: int) -> Tensor:
        """Draws the parameters of the images at positions first … first + count - 1 of an epoch.

        Returns:
            (count, P) float32: the columns of every augmentation, side by side.
        """
        columns = [np.empty((count, 0))]
        for name, step in self.steps.items():
            columns.append(step.draw(draw_uniforms(self.seed, epoch, name, first, count, step.num_uniforms)))
        return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Augments a batch on the device it lies on.

        Args:
            images: (N, 3, H, W) uint8; may be overwritten.
            params: (N, P) float32 on the CPU, as ``draw`` gives them.

        Returns:
            (N, 3, H, W) uint8.
        """
        for name, step in self.steps.items():
            images = step.apply(images, params[:, self._columns[name]])
        return images

    def _find_columns(self) -> dict[str, slice]:
        columns, start = {}, 0
        for name, step in self.steps.items():
            stop = start + step.draw(np.zeros((1, step.num_uniforms))).shape[1]
            columns[name] = slice(start, stop)
            start = stop
        return columns


def draw_uniforms(seed: int, epoch: int, stream: str, first: int, count: int, width: int) -> NDArray[np.float64]:
    """Draws rows first … first + count - 1 of a table of random numbers that a seed, an epoch and a name stand for.

    Philox is a counter-based generator: any row is reached without drawing those before it.

    Returns:
        (count, width) float64 in [0, 1).
    """
    counters_per_row = -(-width // 4)  # one counter gives four numbers
    generator = np.random.Philox(np.random.SeedSequence([seed, epoch, zlib.crc32(stream.encode())]))
    generator.advance(first * counters_per_row)
    return np.random.Generator(generator).random((count, 4 * counters_per_row))[:, :width]
