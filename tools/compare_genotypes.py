r"""Trains several genotypes by one recipe, several seeds each, and compares them on the recipe's targets.

    python -m tools.compare_genotypes --genotypes log/design/genotype.json osnet osnet_ain random:4 --seeds 3 \
        --config-file child.yaml --root DATA --folder log/comparison

A genotype is a genotype.json or the folder of a search, a published name, six digits, or random:N for N drawn ones. All
are trained with the same seeds, so differences are paired by seed; the first genotype is what the others are compared
with. Any setting can follow as KEY VALUE. The table shows means with 95 % intervals, differences, parameters,
multiply-adds, time per image, and what the search that found a genotype cost. Started again, it trains what is missing.
Nothing is chosen here: all that is named is shown, so the targets' images choose nothing. Exit code 2 after a user
error.
"""

import argparse
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from default_config import flatten, load_config, parse_pairs
from engine.interrupt import Interrupted, StopRequest
from engine.metrics import read_metrics
from experiment import list_changed
from genotype import NAMED_STEM_NORMS, NUM_GENOTYPES, Genotype, is_digits
from search.answer import list_digits
from search.compare import ABOUT_RANDOM_MEAN, RANDOM, Comparison, Scores, compare, list_comparison, list_targets
from search.launcher import LocalLauncher
from search.trials import MAIN, describe_outcome
from tools.complexity import build_child_of
from utils.complexity import compute_complexity, measure_latency
from utils.devices import list_gpus
from utils.drawing import Figure
from utils.errors import UserError
from utils.files import write_atomically
from utils.log import format_table, start_log
from utils.plots import COLOURS, save_figure
from utils.tool import tool

_OWN_SETTINGS = {"model.genotype", "train.seed", "model.resume", "data.save_dir"}
COMPARISON_NAME = "comparison.json"


@dataclass(frozen=True)
class Network:
    """One of the compared.

    Attributes:
        label: For the table, and the name of its folders.
        choice: The setting ``model.genotype``.
        cost: Images that its search passed, if a search's file says so.
    """

    label: str
    choice: str
    cost: float | None = None


def read_networks(words: Sequence[str], seed: int) -> list[Network]:
    """Reads what is to be compared; random ones depend on ``seed`` alone.

    Raises:
        UserError: a word that is no genotype, or one named twice.
    """
    networks: list[Network] = []
    for word in words:
        if word in NAMED_STEM_NORMS or is_digits(word):
            networks.append(Network(word, word))
        elif word.startswith("random:"):
            networks += _draw(word.removeprefix("random:"), seed)
        else:
            path = Path(word) / "genotype.json" if Path(word).is_dir() else Path(word)
            genotype = Genotype.from_json(path)
            networks.append(_describe_found(genotype))
    labels = [network.label for network in networks]
    if doubled := {label for label in labels if labels.count(label) > 1}:
        raise UserError(f"--genotypes names {', '.join(sorted(doubled))} more than once")
    return networks


def _describe_found(genotype: Genotype) -> Network:
    """Names a search's network by the method; what a file says beside the genotype may be anything."""
    method, costs = genotype.found.get("method"), genotype.found.get("costs")
    named = isinstance(method, str) and re.fullmatch(r"\w{1,40}", method) and method != RANDOM.strip()
    label = method if named else "found"
    cost = costs.get("image_passes") if isinstance(costs, Mapping) else None
    return Network(f"{label} {genotype.digits}", genotype.digits, cost if isinstance(cost, int | float) else None)


def _draw(text: str, seed: int) -> list[Network]:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= NUM_GENOTYPES:
        raise UserError(f"--genotypes random:{text}: expected a number from 1 to {NUM_GENOTYPES}, such as random:8")
    generator, names = random.Random(seed), list_digits()
    order = sorted(range(NUM_GENOTYPES), key=lambda i: (generator.random(), i))
    return [Network(f"{RANDOM}{names[i]}", names[i]) for i in order[: int(text)]]


def train_all(
    networks: Sequence[Network], seeds: Sequence[int], folder: Path, recipe: Path, settings: Sequence[str], jobs: int
) -> None:
    """Trains what is not finished; what fails is named."""
    commands = {}
    for seed in seeds:
        for network in networks:
            run = find_run(folder, network, seed)
            if not (run / "metrics.json").is_file():
                commands[run.name] = [
                    sys.executable, str(MAIN), "--config-file", str(recipe), *settings, "model.genotype",
                    network.choice, "train.seed", str(seed), "model.resume", "auto", "data.save_dir", str(run),
                ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(networks) * len(seeds)} trainings, {len(commands)} to be made", flush=True)
    for number, outcome in enumerate(LocalLauncher(jobs, list_gpus())(commands), 1):
        print(f"{describe_outcome(outcome)}; {len(commands) - number} left", flush=True)


def find_run(folder: Path, network: Network, seed: int) -> Path:
    """Names a training's folder."""
    return folder / f"{network.label.replace(' ', '-')}-seed{seed}"


def check_finished(
    networks: Sequence[Network], seeds: Sequence[int], folder: Path, recipe: Path, pairs: Mapping[str, Any]
) -> None:
    """Checks that what is finished was trained as the rest will be.

    Args:
        networks: The compared.
        seeds: Of each.
        folder: That holds the trainings' folders.
        recipe: Config file of the trainings.
        pairs: Settings beside it, by full key.

    Raises:
        UserError: one was trained with other settings.
    """
    for network in networks:
        settings = flatten(load_config([recipe], {**pairs, "model.genotype": network.choice}))  # which may imply more
        wanted = list_changed(settings, _OWN_SETTINGS)
        for run in (find_run(folder, network, seed) for seed in seeds):
            if (run / "metrics.json").is_file():
                trained = list_changed(flatten(load_config([run / "config.yaml"], {})), _OWN_SETTINGS)
                other = sorted(key for key in trained.keys() | wanted.keys() if trained.get(key) != wanted.get(key))
                if other:
                    raise UserError(f"{run} was trained with other settings ({', '.join(other[:5])}); "
                                    "give the new trainings another --folder")  # fmt: skip


def read_scores(networks: Sequence[Network], seeds: Sequence[int], folder: Path) -> Scores:
    """Reads the finished trainings' mAP.

    Raises:
        UserError: none is finished, or one network's trainings are not of the same images.
    """
    scores: dict[str, dict[int, dict[str, float]]] = {network.label: {} for network in networks}
    for network in networks:
        experiments = set()
        for seed in seeds:
            path = find_run(folder, network, seed) / "metrics.json"
            if path.is_file():
                metrics = read_metrics(path)
                experiments.add(metrics["experiment"])
                scores[network.label][seed] = {name: target["mAP"] for name, target in metrics["targets"].items()}
        if len(experiments) > 1:
            raise UserError(f"the trainings of {network.label} in {folder} are not of the same images; "
                            "give the new ones another --folder")  # fmt: skip
    if not any(scores.values()):
        raise UserError(f"no training in {folder} is finished; see the messages above")
    return scores


def format_comparison(scores: Scores, costs: Mapping[str, Sequence[str]]) -> str:
    """Sets the tables: one per target, then one of costs."""
    above = f"above {next(iter(scores))}"
    parts = [
        format_table((target, "mAP", above, "seeds"), list_comparison(scores, target))
        for target in list_targets(scores)
    ]
    header = ("network", "parameters", "multiply-adds M", "ms per image", "search's image passes")
    parts.append(format_table(header, [(label, *cells) for label, cells in costs.items()]))
    note = f"±: 95 % intervals by Student's t over the seeds; differences are paired by seed. {ABOUT_RANDOM_MEAN}"
    return "\n\n".join(parts) + f"\n\n{note}"


def measure_costs(networks: Sequence[Network], width: float, height: int, width_px: int) -> dict[str, list[str]]:
    """Measures parameters, multiply-adds and time per image of each network on this machine's CPU."""
    costs = {}
    images = torch.randn(8, 3, height, width_px, generator=torch.Generator().manual_seed(0))
    for network in networks:
        model, _ = build_child_of(network.choice, multiplier=width)
        complexity = compute_complexity(model, height, width_px)
        model.to(memory_format=torch.channels_last)
        seconds = measure_latency(model, images.to(memory_format=torch.channels_last), 10).total / len(images)
        cost = "–" if network.cost is None else f"{network.cost:,.0f}"
        madds = f"{complexity.num_madds / 1e6:,.1f}"
        costs[network.label] = [f"{complexity.num_parameters:,}", madds, f"{1e3 * seconds:.2f}", cost]
    return costs


def draw_comparison(scores: Scores) -> Figure:
    """Draws every network's mean and interval on every target."""
    targets = list_targets(scores)
    figure = Figure(figsize=(max(6.0, 1.5 + 1.1 * len(targets)), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, label in enumerate(scores):
        found = [(t, compare(scores, target)[label][0]) for t, target in enumerate(targets)]
        places = np.array([t for t, mean in found if mean]) + (i - (len(scores) - 1) / 2) * 0.7 / len(scores)
        means = [100 * mean.mean for _, mean in found if mean]
        reach = [100 * np.nan_to_num(mean.half_width) for _, mean in found if mean]
        axes.errorbar(places, means, reach, fmt="osD^v"[i % 5], color=COLOURS[i % len(COLOURS)], label=label, ms=5)
    axes.set_xticks(range(len(targets)), targets, rotation=30 if len(targets) > 4 else 0, ha="right" if len(targets) > 4
                    else "center")  # fmt: skip
    axes.set_ylabel("mAP, %, with 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise UserError("--seeds and --jobs must be at least 1")
    networks = read_networks(arguments.genotypes, arguments.first_seed)
    if not networks:
        raise UserError("--genotypes names none; such as --genotypes log/design osnet_ain random:4")
    settings = [*(["data.root", arguments.root] if arguments.root else []), *arguments.settings]
    pairs = parse_pairs(settings)
    if own := sorted(_OWN_SETTINGS & pairs.keys()):
        raise UserError(f"{', '.join(own)}: each training has its own; use --genotypes, --seeds and --folder")
    cfg = load_config([arguments.config_file], pairs)
    if cfg.model.name != "osnet_child":
        raise UserError(
            f"{arguments.config_file} is a search's config; name one that trains a child, such as child.yaml"
        )
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    check_finished(networks, seeds, arguments.folder, arguments.config_file, pairs)
    train_all(networks, seeds, arguments.folder, arguments.config_file, settings, arguments.jobs)
    scores = read_scores(networks, seeds, arguments.folder)
    text = format_comparison(scores, measure_costs(networks, cfg.model.width, cfg.data.height, cfg.data.width))
    Comparison(list_changed(flatten(cfg), _OWN_SETTINGS), scores).write(arguments.folder / COMPARISON_NAME)
    write_atomically(arguments.folder / "comparison.txt", text + "\n")
    save_figure(draw_comparison(scores), arguments.folder / "comparison.png")
    print(f"\n{text}\n\nalso in {arguments.folder}/comparison.txt, comparison.png and {COMPARISON_NAME}")


@tool("compare_genotypes")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare_genotypes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--genotypes", nargs="+", required=True, metavar="GENOTYPE")
    parser.add_argument("--config-file", type=Path, required=True, metavar="FILE", help="recipe of a child's training")
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="where trainings and results go")
    parser.add_argument("--root", metavar="DIR", help="folder that holds the data sets' folders")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each genotype (default 3)")
    parser.add_argument("--first-seed", type=int, default=1, help="default 1")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default 1)")
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_intermixed_args(words)
    end = next((i for i, word in enumerate(arguments.genotypes) if "." in word and not word.endswith(".json")
                and "/" not in word and not Path(word).exists()), len(arguments.genotypes))  # fmt: skip
    arguments.settings = [*arguments.genotypes[end:], *arguments.settings]
    arguments.genotypes = arguments.genotypes[:end]
    start_log(None)
    try:
        with StopRequest() as stop:
            stop.announce = False
            run(arguments)
    except Interrupted as interruption:
        print("stopped; the same command goes on", file=sys.stderr)
        return interruption.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
