"""The augmentations, each in two halves: drawing its parameters, and applying them to a batch.

``draw`` maps uniform random numbers to parameters, one row per image, and is a pure function. ``apply`` works on a
whole uint8 batch on the CPU or a GPU, with the parameters on the CPU, so that the host decides everything before the
device works and nothing waits. Pixels stay 8-bit from step to step, as in the published pipeline, which runs on PIL
images; ``apply`` may overwrite the batch it is given.

Probabilities and ranges are Torchreid's (arXiv 1910.10093); what differs says so.
"""

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.decode import resize

PROBABILITY = 0.5  # of every augmentation but colour jitter, which always acts
_TRIES = 10  # sizes drawn for a rectangle until one fits; the published code tries 100 times
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma

Uniforms = NDArray[np.float64]
Parameters = NDArray[np.float64]


class Augmentation(Protocol):
    """What every augmentation offers."""

    num_uniforms: int

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Maps (N, ``num_uniforms``) numbers in [0, 1) to (N, P) parameters."""

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Returns (N, 3, H, W) uint8 ``images`` augmented; ``params`` is (N, P) float32 on the CPU."""


class RandomFlip:
    """Mirrors left and right; one parameter, 1 where the image is mirrored."""

    num_uniforms = 1

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Decides which images are mirrored."""
        return (uniforms < PROBABILITY).astype(np.float64)

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Mirrors the chosen images."""
        if images.is_cuda:
            rows = _rows_on(images, params[:, 0])
            return images.index_copy_(0, rows, images.index_select(0, rows).flip(-1))
        for row, _ in _chosen(params):
            images[row] = images[row].flip(-1)
        return images


class RandomCrop:
    """Enlarges 1.125 times and cuts a window of the old size; parameters: acts or not, top, left of the window."""

    num_uniforms = 3

    def __init__(self, height: int, width: int) -> None:
        self.size = (round(height * 1.125), round(width * 1.125))
        self.margins = (self.size[0] - height, self.size[1] - width)

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Draws windows; every offset in px is equally likely, the outermost ones half as likely."""
        offsets = np.rint(uniforms[:, 1:] * self.margins)
        return np.column_stack([uniforms[:, 0] < PROBABILITY, offsets])

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Enlarges and cuts the chosen images."""
        rows = _rows_on(images, params[:, 0])
        if not len(rows):
            return images
        height, width = images.shape[-2:]
        enlarged = resize(images.index_select(0, rows), *self.size)
        for big, (row, (_, top, left)) in zip(enlarged, _chosen(params), strict=True):
            images[row] = big[:, top : top + height, left : left + width]
        return images


class RandomPatch:
    """Pastes a rectangle of another image at a random place, perhaps mirrored, perhaps turned by up to 10 degrees.

    Area 1 to 50 % of the image, height / width 0.1 to 10. The published version draws from a pool of the last 50,000
    patches; what is in the pool then depends on which worker saw which images before. Here the patch is cut from
    another image of the same batch, which needs no state: the same distribution of patches where batches are random
    samples of the images. Where a sampler shapes them (identities, cameras), donors share their target's camera or
    person more often than in a pool. A turned patch has black corners, as there.

    Parameters: acts or not, patch height, patch width (px), top and left at the donor, top and left at the target,
    donor (0 to 1, which of the other images of the batch), mirrored or not, angle (degrees).
    """

    num_uniforms = 1 + 2 * _TRIES + 8

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Draws patches and places."""
        sizes = _draw_sizes(uniforms[:, 1 : 1 + 2 * _TRIES], self.height, self.width, (0.01, 0.5), (0.1, 10.0))
        place, other = uniforms[:, -8:-4], uniforms[:, -4:]
        room = np.tile([self.height, self.width] - sizes + 1, 2)
        turned = np.where(other[:, 2] < 0.5, np.floor(other[:, 3] * 21) - 10, 0.0)
        acts = (uniforms[:, 0] < PROBABILITY) & (sizes[:, 0] > 0)
        return np.column_stack([acts, sizes, np.floor(place * room), other[:, 0], other[:, 1] < 0.5, turned])

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Pastes; donors are the images as they came in."""
        num_images = len(images)
        if num_images < 2:
            return images
        pasted = images.clone()
        for row, (_, *box, _, mirrored, angle) in _chosen(params):
            height, width, from_top, from_left, top, left = box
            donor = (row + 1 + int(float(params[row, 7]) * (num_images - 1))) % num_images
            patch = images[donor, :, from_top : from_top + height, from_left : from_left + width]
            patch = patch.flip(-1) if mirrored else patch
            pasted[row, :, top : top + height, left : left + width] = rotate(patch, angle)
        return pasted


class ColorJitter:
    """Brightness times U(0.8, 1.2) and contrast times U(0.85, 1.15), in random order, as torchvision does it.

    Contrast moves every pixel away from the mean grey of the image. Both steps and their clipping are one affine map
    with one clipping (see ``_jitter``), rounded once; torchvision cuts off fractions after each step, so the two are
    up to 2 grey levels apart.

    Parameters: brightness, contrast, 1 where brightness comes first.
    """

    num_uniforms = 3

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Draws factors and orders."""
        brightness, contrast = 0.8 + 0.4 * uniforms[:, 0], 0.85 + 0.3 * uniforms[:, 1]
        return np.column_stack([brightness, contrast, uniforms[:, 2] < 0.5])

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Changes brightness and contrast of every image."""
        if images.is_cuda:
            return _jitter_batch(images, params.to(images.device, non_blocking=True))
        scratch = torch.empty((2, *images.shape[1:]))  # one image at a time stays in the processor's cache
        for image, (brightness, contrast, first) in zip(images, params.tolist(), strict=True):
            _jitter_one(image, brightness, contrast, first == 1, scratch)
        return images


class RandomErase:
    """Paints a rectangle over with the mean colour: area 2 to 40 %, height / width 0.3 to 3.33.

    Parameters: acts or not, height, width, top, left (px).
    """

    num_uniforms = 1 + 2 * _TRIES + 2

    def __init__(self, height: int, width: int, mean: tuple[float, float, float]) -> None:
        self.height, self.width = height, width
        self.fill = (torch.tensor(mean) * 255).round().to(torch.uint8).view(3, 1, 1)

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Draws rectangles."""
        sizes = _draw_sizes(uniforms[:, 1 : 1 + 2 * _TRIES], self.height, self.width, (0.02, 0.4), (0.3, 1 / 0.3))
        acts = (uniforms[:, 0] < PROBABILITY) & (sizes[:, 0] > 0)
        return np.column_stack([acts, sizes, np.floor(uniforms[:, -2:] * ([self.height, self.width] - sizes + 1))])

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Paints the rectangles."""
        fill = self.fill.to(images.device)
        for row, (_, height, width, top, left) in _chosen(params):
            images[row, :, top : top + height, left : left + width] = fill
        return images


class ColorAug:
    """PCA colour noise (Krizhevsky et al., NIPS 2012, section 4.1), standard deviation 0.1.

    Each principal direction of ImageNet's colours is scaled by its eigenvalue times a normal draw. Torchreid pairs the
    eigenvalues with the rows of the matrix instead of its columns, so that its main direction is not the grey axis;
    this is the paper's pairing. Rounded and clipped to 8 bits, which Torchreid does not.

    Parameters: what is added to red, green and blue (grey levels), 0 where it does not act.
    """

    num_uniforms = 7
    EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
    EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

    def draw(self, uniforms: Uniforms) -> Parameters:
        """Draws colour shifts."""
        radius = np.sqrt(-2 * np.log1p(-uniforms[:, 1:4]))  # Box and Muller
        normal = 0.1 * radius * np.cos(2 * math.pi * uniforms[:, 4:7])
        return 255 * (uniforms[:, :1] < PROBABILITY) * ((normal * self.EIGENVALUES) @ self.EIGENVECTORS.T)

    def apply(self, images: Tensor, params: Tensor) -> Tensor:
        """Adds the shifts."""
        rows = _rows_on(images, params.any(1))
        shift = params[:, :, None, None].to(images.device).index_select(0, rows)
        noisy = images.index_select(0, rows).float().add_(shift).round_().clamp_(0, 255)
        return images.index_copy_(0, rows, noisy.to(torch.int16).to(torch.uint8))  # the direct cast is slow on CPUs


def rotate(patch: Tensor, degrees: float) -> Tensor:
    """Turns (3, H, W) anticlockwise about its centre; nearest pixel, corners black, as Pillow's ``rotate``."""
    if degrees == 0:
        return patch
    height, width = patch.shape[-2:]
    angle = math.radians(degrees)
    y = torch.arange(height, device=patch.device, dtype=torch.float32)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=patch.device, dtype=torch.float32) - (width - 1) / 2
    from_x = (x * math.cos(angle) - y * math.sin(angle) + width / 2).floor_().long()
    from_y = (x * math.sin(angle) + y * math.cos(angle) + height / 2).floor_().long()
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return patch[:, from_y.clamp_(0, height - 1), from_x.clamp_(0, width - 1)] * inside


def _draw_sizes(
    uniforms: Uniforms, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> Parameters:
    """Draws a rectangle's (height, width) in px, (N, 2): the first of the tries that fits, (0, 0) where none does."""
    areas = (area[0] + (area[1] - area[0]) * uniforms[:, 0::2]) * height * width
    aspects = aspect[0] + (aspect[1] - aspect[0]) * uniforms[:, 1::2]
    heights, widths = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits = np.asarray((heights < height) & (widths < width) & (heights > 0) & (widths > 0))
    first, every = fits.argmax(1), np.arange(len(uniforms))
    sizes = np.column_stack([heights[every, first], widths[every, first]])
    return np.where(fits.any(1, keepdims=True), sizes, 0)


def _rows_on(images: Tensor, chosen: Tensor) -> Tensor:
    """The rows where ``chosen`` is not 0, int64 on the images' device."""
    return chosen.nonzero().flatten().to(images.device, non_blocking=True)


def _chosen(params: Tensor) -> list[tuple[int, list[int]]]:
    """The rows whose first parameter is 1, with their parameters as whole numbers."""
    return [(row, [int(value) for value in values]) for row, values in enumerate(params.tolist()) if values[0]]


def _jitter_one(image: Tensor, brightness: float, contrast: float, brightness_first: bool, scratch: Tensor) -> None:
    """Jitters one uint8 image on the CPU, in place; ``scratch`` is (2, 3, H, W) float32.

    Brightness b first: y = c · min(b·x, 255) + (1 - c) · m with m the mean grey of min(b·x, 255), clipped to [0, 255].
    This is b·c·x + k clipped to [0, min(255, 255·c + k)], with k = (1 - c) · m. Contrast first: y = b · clip(c·x + k)
    with m the mean grey of x, which is b·c·x + b·k clipped to [0, 255·b] and to 255.
    """
    pixels, seen = scratch[0].copy_(image), scratch[0]
    if brightness_first and brightness > 1:
        seen = torch.clamp(pixels, max=255 / brightness, out=scratch[1])
    grey = sum(weight * mean for weight, mean in zip(_GREY, seen.mean((-2, -1)).tolist(), strict=True))
    offset = (1 - contrast) * brightness * grey
    top = min(255.0, 255 * contrast + offset if brightness_first else 255 * brightness)
    # one pass instead of mul_ and add_; + 0.5: the cast to 8 bits cuts off
    torch.add(torch.full((), offset + 0.5), pixels, alpha=brightness * contrast, out=pixels)
    np.copyto(image.numpy(), pixels.clamp_(0.0, top + 0.5).numpy(), casting="unsafe")


def _jitter_batch(images: Tensor, params: Tensor) -> Tensor:
    """``_jitter_one`` for (N, 3, H, W) images and (N, 3) parameters on one device, without a loop."""
    brightness, contrast, first = params[:, :, None, None, None].unbind(1)
    pixels = images.float()
    seen = torch.where(first == 1, torch.minimum(pixels, 255 / brightness), pixels)
    red, green, blue = seen.mean((-2, -1), keepdim=True).split(1, dim=1)
    grey = _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue
    offset = (1 - contrast) * brightness * grey
    top = torch.where(first == 1, 255 * contrast + offset, 255 * brightness).clamp(max=255.0)
    jittered = pixels.mul_(brightness * contrast).add_(offset + 0.5).clamp_(min=0)
    return torch.minimum(jittered, top + 0.5).to(torch.uint8)
