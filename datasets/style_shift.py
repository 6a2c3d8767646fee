"""Style-shifted copies of test images: the same people and cameras under another look, the same for every network.

Each camera gets a colour response, gamma, contrast and haze of its own, drawn from one distribution by a seed. All of
it works on each channel by itself, so a camera's style is three tables of 256 values.
"""

import numpy as np
import torch
from torch import Tensor

SEED = 7
SHIFTED = "+shifted"  # what the name of such a target ends with
GAIN, GAMMA, CONTRAST, HAZE = 0.3, 0.35, 0.4, 0.35  # see draw_tables


def draw_tables(camid: int, seed: int = SEED) -> Tensor:
    """Draws a camera's style.

    A channel's value v in [0, 1] becomes (1 − h) · clip(½ + c · ((g · v)^γ − ½)) + h · k, with, even and independent,
    log g per channel in ±``GAIN``, log γ in ±``GAMMA``, log c in −``CONTRAST`` … 0, h in 0 … ``HAZE``, and a haze
    colour k per channel in 0.2 … 0.8.

    Args:
        camid: The camera, from 0.
        seed: Of all cameras' styles.

    Returns:
        (3, 256) uint8: for R, G and B what each value becomes.
    """
    draw = np.random.Generator(np.random.PCG64([seed, camid])).random(9)
    gain = np.exp(GAIN * (2 * draw[:3] - 1))[:, None]
    gamma, contrast = np.exp(GAMMA * (2 * draw[3] - 1)), np.exp(-CONTRAST * draw[4])
    haze, colour = HAZE * draw[5], (0.2 + 0.6 * draw[6:9])[:, None]
    values = np.linspace(0, 1, 256)[None]
    shown = np.clip(0.5 + contrast * ((gain * values) ** gamma - 0.5), 0, 1)
    return torch.from_numpy(np.round(255 * ((1 - haze) * shown + haze * colour)).astype(np.uint8))


class StyleShift:
    """Shifts batches of images.

    Args:
        seed: Of the cameras' styles.
    """

    def __init__(self, seed: int = SEED) -> None:
        self._seed = seed
        self._tables: dict[int, Tensor] = {}

    def __call__(self, images: Tensor, camids: Tensor) -> Tensor:
        """Returns images (N, 3, H, W) uint8 as the cameras (N,) would show them, of the same layout."""
        shifted = torch.empty_like(images)
        for i, camid in enumerate(camids.tolist()):
            if camid not in self._tables:
                self._tables[camid] = draw_tables(camid, self._seed)
            for channel, table in enumerate(self._tables[camid]):
                shifted[i, channel] = table[images[i, channel].int()]
        return shifted
