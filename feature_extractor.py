"""Features for other programs: images in, one vector per image out.

from feature_extractor import FeatureExtractor

extract = FeatureExtractor("log/osnet_child/checkpoints/best.pt", device="cuda")
features = extract(["a.jpg", "b.jpg"])          # (2, 512); compare by cosine or Euclidean distance
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.batch_stream import Batch
from datasets.decode import decode_image, resize
from datasets.loaders import Preparer
from genotype import Genotype
from osnet_blocks import FEATURE_DIM
from osnet_child import fold_batch_norms
from trained_child import load_trained_child
from utils.devices import open_device
from utils.errors import UserError
from utils.images import to_rgb

OneImage = str | Path | Image.Image | NDArray[np.uint8]


class FeatureExtractor:
    """Computes features as the project's own evaluation does: same decoding, resizing, normalisation.

    Args:
        weights: A checkpoint of this project or a file of Torchreid's; the file says which network it is of.
        genotype: What the weights have to be of, as a safeguard; None: anything.
        height: Of the network's input, px; None: as trained.
        width: Of the network's input, px; None: as trained.
        device: Where the network computes.
        flip: Features are the mean over an image and its mirror image; twice the time.
        batch_size: Images per forward pass, at least 1.

    Attributes:
        child: The network with its input size and normalisation.

    Raises:
        UserError: the weights cannot be used (see ``load_trained_child``), there is no such device, or ``batch_size``
            is less than 1.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        genotype: Genotype | None = None,
        height: int | None = None,
        width: int | None = None,
        device: str | torch.device = "cpu",
        flip: bool = False,
        batch_size: int = 100,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: it must be at least 1")
        self.device = open_device(device)
        self.child = load_trained_child(weights, genotype=genotype, height=height, width=width)
        self.flip, self.batch_size = flip, batch_size
        self._network = fold_batch_norms(self.child.model.to(self.device).to(memory_format=torch.channels_last))
        self._prepare = Preparer(self.child.mean, self.child.std, channels_last=True)

    def __call__(self, images: OneImage | Sequence[OneImage] | Tensor) -> Tensor:
        """Computes the features of images of any sizes.

        Args:
            images: One image or a list of them, each a path, a PIL image or an array (H, W, 3) uint8 in RGB. Or a
                tensor (N, 3, H, W): uint8 in RGB; or floating, which is taken as normalised already and not resized.

        Returns:
            (N, 512) float32, ≥ 0, on the CPU.

        Raises:
            datasets.decode.CorruptImageError: a file cannot be read; the message names it.
            ValueError: an array, tensor or PIL image of another kind.
        """
        items = _as_sequence(images)
        features = [torch.empty(0, FEATURE_DIM)]
        for start in range(0, len(items), self.batch_size):
            part = items[start : start + self.batch_size]
            if not isinstance(part, Tensor):
                part = torch.stack([self.read(image) for image in part])
            features.append(self.embed(part))
        return torch.cat(features)

    def read(self, image: OneImage) -> Tensor:
        """Returns one image at the network's input size, (3, height, width) uint8; see ``__call__``.

        Safe to call from several threads.
        """
        pixels = decode_image(image) if isinstance(image, str | Path) else _to_tensor(image)
        return resize(pixels, self.child.height, self.child.width)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Computes the features of one batch, a tensor as in ``__call__``."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"expected a tensor (N, 3, H, W), got {tuple(images.shape)}")
        if images.is_floating_point():
            inputs = images.to(self.device, torch.float32, memory_format=torch.channels_last)
        elif images.dtype == torch.uint8:
            inputs = self.normalise(images)
        else:
            raise ValueError(f"expected a uint8 or floating tensor, got {images.dtype}")
        features = self._network(inputs)
        if self.flip:
            features = (features + self._network(inputs.flip(3))) / 2
        return features.float().cpu()

    def normalise(self, images: Tensor) -> Tensor:
        """Returns images (N, 3, H, W) uint8 as the network's input: resized, normalised, float32, on the device."""
        images = resize(images.cpu(), self.child.height, self.child.width)
        unused = torch.empty(0, dtype=torch.int64)
        return self._prepare(Batch(images, pids=unused, camids=unused, indices=unused), self.device)


def _as_sequence(images: OneImage | Sequence[OneImage] | Tensor) -> Sequence[OneImage] | Tensor:
    """Makes a list of a single image; a tensor stays one."""
    if isinstance(images, Tensor):
        return images if images.dim() == 4 else images[None]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    return [images] if isinstance(images, str | Path | Image.Image) else images


def _to_tensor(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """Returns a PIL image or an array as (3, H, W) uint8."""
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"a PIL image of mode {image.mode} has no 8-bit colours; give the path of its file")
        image = np.array(to_rgb(image))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected a path, a PIL image or an array (H, W, 3) uint8 in RGB, got {got}")
    # a copy where it may not be written, of which PyTorch would warn
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
