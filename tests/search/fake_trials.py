"""Trainings that are not made: their folders are written as a run of main.py would leave them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genotype import Genotype
from search.launcher import Outcome
from search.trials import Trial

METRIC = "heldout_new/mAP"


def write_trial(trial: Trial, folder: Path, score: float, epochs: tuple[int, ...] = (5, 10), **more: float) -> None:
    """Leaves a finished training whose score rises to ``score`` with the budget."""
    path = folder / trial.name
    path.mkdir(parents=True, exist_ok=True)
    lines = []
    for epoch in range(1, max(epochs) + 1):
        line: dict[str, float] = {"epoch": epoch, "step": 3 * epoch, "train/loss": 1 / epoch, "train/lr": 0.1}
        if epoch in epochs:
            value = score * epoch / max(epochs)
            line |= {METRIC: value, "heldout_new/rank1": min(1.0, 1.5 * value), "heldout_new/num_queries": 9, **more}
        lines.append(json.dumps(line) + "\n")
    (path / "history.jsonl").write_text("".join(lines))
    metrics = {
        "model": {"genotype": list(Genotype.from_digits(trial.digits).blocks)}, "seed": trial.seed, "time_sec": 60.0,
        "targets": {name.removesuffix("/mAP"): {"mAP": value} for name, value in line.items() if name.endswith("/mAP")},
        "image_passes": 30 * max(epochs), "peak_rss_bytes": 10**9, "versions": {"torch": "2.0"},
    }  # fmt: skip
    (path / "metrics.json").write_text(json.dumps(metrics))


class FakeLauncher:
    """Trains by writing down what is true of a genotype, with noise; notes the names of what it was asked for."""

    def __init__(self, truth: np.ndarray, folder: Path, noise: float = 0.0, failing: tuple[str, ...] = ()) -> None:
        self.truth, self.folder, self.noise, self.failing = truth, folder, noise, failing
        self.asked: list[str] = []

    def __call__(self, commands: Mapping[str, object]):
        for name in commands:
            self.asked.append(name)
            digits, seed, fold = (part.removeprefix("seed").removeprefix("fold") for part in name.split("-"))
            if name in self.failing:
                yield Outcome(name, 2, "error: no such data set")
                continue
            trial = Trial(digits, int(seed), int(fold))
            generator = np.random.default_rng([int(digits, 4), trial.seed])
            score = self.truth[int(digits, 4)] + 0.02 * trial.fold + self.noise * generator.normal()
            write_trial(trial, self.folder, float(score))
            yield Outcome(name, 0, "")
