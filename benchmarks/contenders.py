"""Training steps as this project runs them and as other people's code does, on the same random images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import osnet_blocks
from benchmarks.side_by_side import Contender
from build import build_network, build_step
from datasets.batch_stream import Batch
from datasets.build import Data
from datasets.loaders import Preparer
from default_config import load_config, parse_pairs
from engine.mixed_precision import AMP_DTYPES
from engine.task import Stopwatch
from utils.distributed import choose_runtime
from utils.seed import seed_everything

NUM_PIDS = 100
LR = 0.0015  # of AMSGrad, in the paper's recipes


class Case(NamedTuple):
    """A size of network and images.

    Attributes:
        width: Channel multiplier.
        height_px: Of the images.
        width_px: Of the images.
        batch_size: Images of a step.
    """

    width: float
    height_px: int
    width_px: int
    batch_size: int

    def __str__(self) -> str:
        return f"x{self.width:g}, {self.height_px}×{self.width_px}, batch {self.batch_size}"

    def draw_batch(self) -> Batch:
        """Draws random images with labels."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, 3, self.height_px, self.width_px)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        pids = torch.randint(NUM_PIDS, (self.batch_size,), generator=generator)
        return Batch(images, pids, torch.zeros_like(pids), torch.arange(self.batch_size))


SMALL = Case(0.25, 128, 64, 64)  # what demos, tables and studies train
PAPER = Case(1.0, 256, 128, 16)  # the paper's images and width; on a GPU with more images


def choose_cases(size: str, paper: Case = PAPER) -> list[Case]:
    """Returns the cases of the argument ``--size``."""
    return {"small": [SMALL], "paper": [paper], "both": [SMALL, paper]}[size]


def build_contender(name: str, model: str, case: Case, device: torch.device, settings: Sequence[str] = ()) -> Contender:
    """Builds this project's step of a network, as main.py would: images normalised, gradients checked, AMSGrad.

    Args:
        name: For the table.
        model: ``osnet_nas`` or ``osnet_child``.
        case: Its size.
        device: Where it runs.
        settings: Any settings, KEY VALUE.
    """
    own = {
        "model.name": model,
        "model.width": case.width,
        "train.batch_size": case.batch_size,
        "train.optim": "amsgrad",
        "train.lr": LR,
        "use_gpu": device.type == "cuda",
    }
    cfg = load_config([], {**own, **parse_pairs(settings)})
    seed_everything(cfg.train.seed)
    preparer = Preparer(channels_last=cfg.train.channels_last)
    data = Data(train=None, targets={}, preparer=preparer, num_train_pids=NUM_PIDS, sources={})
    step = build_step(cfg, choose_runtime(cfg.use_gpu), data, build_network(cfg, NUM_PIDS))
    step.model.train()
    step.open_layers(None)
    batch = case.draw_batch()
    dtype = AMP_DTYPES.get(cfg.train.amp, torch.float32)
    return Contender(name, lambda: step.run(batch, Stopwatch()), case.batch_size, dtype, cfg.train.compile)


def build_peer(name: str, model: nn.Module, case: Case, device: torch.device) -> Contender:
    """Builds the step that Torchreid's engine runs, on images that are normalised already."""
    batch = case.draw_batch()
    images, pids = Preparer()(batch, device), batch.pids.to(device)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), LR, weight_decay=5e-4, amsgrad=True)

    def step() -> float:
        logits = cast(Tensor, model(images))
        loss = F.cross_entropy(logits, pids, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Contender(name, step, case.batch_size)


def with_group_norm(contender: Contender) -> Contender:
    """Returns the same with PyTorch's group norm in place of the instance norm of ``utils.instance_norm``."""

    def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        return F.group_norm(x, x.shape[1], weight, bias, eps)

    def step() -> Any:
        with patch.object(osnet_blocks, "instance_norm", group_norm):
            return contender.step()

    return replace(contender, name=f"{contender.name}, PyTorch's group norm", step=step)


def build_inference(name: str, model: Callable[[Tensor], Tensor], images: Tensor) -> Contender:
    """Builds a forward pass over images without gradients."""

    def step() -> Tensor:
        with torch.no_grad():
            return model(images)

    return Contender(name, step, len(images))
