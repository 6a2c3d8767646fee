"""``metrics.json``: a run's scores with what is needed to trust and repeat them."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

from engine.scores import Scores
from utils.distributed import Runtime
from utils.errors import UserError
from utils.read_file import read_json

_FORMAT, _VERSION = "osnet-metrics", 1
NUMERICS = 1  # version of the arithmetic; raised where a change moves results by more than rounding


@dataclass(frozen=True)
class RunFacts:
    """What identifies a run.

    Attributes:
        experiment: Stands for all that changes what is computed, except the seed: runs with the same are repeats.
        seed: Of weights, noise, batches and augmentations.
        command: The command line that repeats it.
        network: What the network is, in plain values.
    """

    experiment: str
    seed: int
    command: Sequence[str]
    network: Mapping[str, Any]


def format_metrics(
    facts: RunFacts,
    scored: str,
    scores: Mapping[str, Scores],
    runtime: Runtime,
    *,
    seconds: float,
    image_passes: int,
    peak_memory_bytes: int,
) -> str:
    """Returns the file's text.

    Args:
        facts: What identifies the run.
        scored: What the scores are of.
        scores: By target.
        runtime: Where it ran.
        seconds: That the run took, over all starts.
        image_passes: Images that passed forward and backward.
        peak_memory_bytes: The most that a device of any process has needed.
    """
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "scored": scored,
        "targets": {name: s.as_document() for name, s in scores.items()},
        "model": dict(facts.network),
        "experiment": facts.experiment,
        "seed": facts.seed,
        "numerics": NUMERICS,
        "machine": describe_machine(runtime),
        "versions": list_versions(),
        "command": list(facts.command),
        "time_sec": round(seconds, 1),
        "image_passes": image_passes,
        f"peak_{'gpu_memory' if runtime.device.type == 'cuda' else 'rss'}_bytes": peak_memory_bytes,
    }
    return json.dumps(document, indent=2) + "\n"


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads a run's ``metrics.json``.

    Raises:
        UserError: it cannot be read, or is not as ``format_metrics`` writes it.
    """
    document = read_json(path, "metrics")
    if not isinstance(document, dict) or document.get("format") != _FORMAT or document.get("version") != _VERSION:
        raise UserError(f"{path} is not a metrics file of this version: it lacks format {_FORMAT} {_VERSION}")
    targets = document.get("targets")
    scores = targets.values() if isinstance(targets, dict) else [None]
    sound = all(isinstance(of_target, dict) and isinstance(of_target.get("mAP"), float | int) for of_target in scores)
    if not sound or not isinstance(document.get("experiment"), str):
        raise UserError(f"{path} is damaged: it lacks scores by target, or which experiment they are of")
    return document


def describe_machine(runtime: Runtime) -> str:
    """Names what computes: the GPU or the processor."""
    if runtime.device.type == "cuda":
        return torch.cuda.get_device_name(runtime.device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def list_versions() -> dict[str, str]:
    """Lists the versions that numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
