"""Makes or completes a table of really trained networks; see ``search.table``.

    python -m tools.train_table tables/synthetic_a_x0_25.yaml --jobs 2
    python -m tools.train_table PLAN.yaml --root DATA --shard 3/8      # an eighth of it, for a queue's array job
    python -m tools.train_table PLAN.yaml --root DATA --cluster auto   # on a Ray cluster

What the table or the folder of trainings has already is never trained again, so the same command completes a table that
was interrupted. A training is a run of main.py by the plan's recipe, in a folder of its own; each finished one is added
to the table at once, its rows all or none. Exit code 2 where the plan, the data or the table do not fit.
"""

import argparse
import logging
import re
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from build_design import build_images_hash, hash_recipe
from default_config import flatten, load_config
from engine.interrupt import Interrupted, StopRequest
from engine.metrics import describe_machine
from genotype import is_digits
from search.arrays import plan_runs
from search.launcher import Launcher, LocalLauncher, RayLauncher
from search.table import FOLDER, Row, Table, append_rows
from search.trials import Trial, TrialResult, complete_trials, read_trials
from utils.devices import list_gpus
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import start_log
from utils.read_file import read_text
from utils.suggest import nearest
from utils.tool import tool

logger = logging.getLogger(__name__)

PLAN_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "about": (lambda v: isinstance(v, str), "text"),
    "recipe": (lambda v: isinstance(v, str), "the name of a config file"),
    "num_folds": (lambda v: type(v) is int and v >= 1, "a whole number from 1"),
    "seed": (lambda v: type(v) is int and v >= 0, "a whole number from 0"),
    "array": (lambda v: type(v) is int, "a whole number of trainings"),
    "genotypes": (lambda v: isinstance(v, list), "a list"),
    "random": (lambda v: type(v) is int and v >= 0, "a whole number from 0"),
    "repeats": (
        lambda v: isinstance(v, dict) and v.keys() == {"seeds", "of"} and all(type(n) is int for n in v.values()),
        "seeds and of, whole numbers",
    ),
    "groups": (
        lambda v: isinstance(v, dict) and all(isinstance(names, list) for names in v.values()),
        "lists of scores by name",
    ),
}  # of a plan: what fits, and in words
KEPT_SCORES = ("mAP", "rank1")


@dataclass(frozen=True)
class Plan:
    """What a table should hold.

    Attributes:
        name: The table's.
        about: What it is, in a sentence.
        recipe: Config file of its trainings.
        trials: Trainings in the order in which they are made.
        groups: Metrics that are means over several.
    """

    name: str
    about: str
    recipe: Path
    trials: Sequence[Trial]
    groups: Mapping[str, Sequence[str]]


def read_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        UserError: no such file, unknown keys, or values that do not fit.
    """
    try:
        document = yaml.safe_load(read_text(path, "plan"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"plan {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise UserError(f"plan {path} must hold settings, not {type(document).__name__}")
    for key in document:
        if key not in PLAN_KEYS:
            raise UserError(f"plan {path}: unknown key {reprlib.repr(key)}{nearest(str(key), PLAN_KEYS)}")
    if missing := {"recipe", "num_folds", "array"} - document.keys():
        raise UserError(f"plan {path} lacks {', '.join(sorted(missing))}")
    for key, (is_fit, expected) in PLAN_KEYS.items():
        if key in document and not is_fit(document[key]):
            raise UserError(f"plan {path}: {key} is {reprlib.repr(document[key])}, expected is {expected}")
    genotypes = [str(digits) for digits in document.get("genotypes", ())]
    if wrong := [digits for digits in genotypes if not is_digits(digits)]:
        raise UserError(f"plan {path}: {wrong[0]!r} is no genotype: six digits from 0 to 3, in quotes")
    trials = list_trials(document, genotypes)
    return Plan(
        path.stem, document.get("about", ""), path.parent / document["recipe"], trials, document.get("groups", {})
    )


def list_trials(document: Mapping[str, Any], genotypes: Sequence[str]) -> list[Trial]:
    """Lists a plan's trainings: the array's, the named ones, random ones, then the repeats of the first two kinds."""
    num_folds, seed, num_random = document["num_folds"], document.get("seed", 1), document.get("random", 0)
    planned = plan_runs(document["array"], seed, num_folds, num_random)
    array = [Trial(run.digits, seed, run.fold) for run in planned[: document["array"]]]
    named = [Trial(digits, seed, i % num_folds) for i, digits in enumerate(genotypes)]
    drawn = [Trial(run.digits, seed, run.fold) for run in planned[document["array"] :] if run.digits not in genotypes]
    known = {trial.digits for trial in named}
    first = [trial for trial in array if trial.digits not in known]
    repeats = document.get("repeats", {"seeds": 0, "of": 0})
    repeated = [
        Trial(trial.digits, seed + i, (trial.fold + i) % num_folds)
        for i in range(1, repeats["seeds"] + 1)
        for trial in [*named, *first][: repeats["of"]]
    ]
    return [*first, *named, *drawn, *repeated]


def make_rows(result: TrialResult, recipe: str, images: str, batch_size: int, max_epoch: int) -> list[Row]:
    """Makes a row of each budget of a finished training."""
    metrics = result.metrics
    return [
        Row(
            digits=result.trial.digits,
            seed=result.trial.seed,
            fold=result.trial.fold,
            epochs=epoch,
            of_epochs=max_epoch,
            image_passes=result.steps[epoch] * batch_size,
            scores={name: value for name, value in scores.items() if name.rpartition("/")[2] in KEPT_SCORES},
            loss=result.losses[epoch],
            recipe=recipe,
            images=images,
            numerics=metrics.get("numerics", 1),
            seconds=metrics["time_sec"],
            machine=metrics.get("machine") or describe_machine(Runtime(torch.device("cpu"))),
            versions=metrics["versions"],
        )
        for epoch, scores in sorted(result.scores.items())
    ]


def choose_trials(trials: Sequence[Trial], table: Table | None, shard: str) -> list[Trial]:
    """Leaves out what a table has, and what belongs to other shards.

    Args:
        trials: The plan's.
        table: What is there; None: nothing.
        shard: ``i/n``: the i-th of n parts, from 1.

    Raises:
        UserError: a shard that is none.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {shard}: expected i/n with i from 1 to n, such as 3/8")
    there = {(row.digits, row.seed, row.fold) for row in table.rows} if table else set()
    own = trials[int(match[1]) - 1 :: int(match[2])]
    return [trial for trial in own if (trial.digits, trial.seed, trial.fold) not in there]


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    plan = read_plan(arguments.plan)
    words = ["data.root", str(arguments.root)] if arguments.root else []
    cfg = load_config([plan.recipe], dict(zip(words[::2], words[1::2], strict=True)))
    recipe, images = hash_recipe(flatten(cfg)), build_images_hash(cfg, with_targets=True)
    path = arguments.table or FOLDER / f"{plan.name}.jsonl"
    table = Table.load(path) if path.is_file() else None
    trials = choose_trials(plan.trials, table, arguments.shard)
    logger.info("%s: %d of %d trainings are to be made here", path, len(trials), len(plan.trials))
    folder = arguments.runs / plan.name

    def keep(results: Sequence[TrialResult]) -> None:
        rows = [row for r in results for row in make_rows(r, recipe, images, cfg.train.batch_size, cfg.train.max_epoch)]
        append_rows(path, plan.groups, rows, plan.about)

    keep(read_trials(trials, folder))
    if not arguments.collect:
        folder.mkdir(parents=True, exist_ok=True)
        command = _make_command(plan.recipe, words)
        done = complete_trials(trials, folder, command, choose_launcher(arguments), plan.name, keep)
        logger.info("%d of %d trainings are finished; rows are in %s", len(done), len(trials), path)


def _make_command(recipe: Path, words: Sequence[str]) -> Callable[[Trial, Path], list[str]]:
    return lambda trial, folder: trial.command(recipe, folder, words)


def choose_launcher(arguments: argparse.Namespace) -> Launcher:
    """Returns what runs the trainings: on this machine, its GPUs shared out, or on a Ray cluster."""
    if arguments.cluster:
        return RayLauncher(arguments.cluster, arguments.gpus_per_run)
    return LocalLauncher(arguments.jobs, list_gpus())


@tool("train_table")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml")
    parser.add_argument("--root", type=Path, help="folder that holds the data sets' folders (default: the recipe's)")
    parser.add_argument("--runs", type=Path, default=Path("log/tables"), help="where the trainings go")
    parser.add_argument("--table", type=Path, metavar="FILE", help="the table (default: tables/NAME.jsonl)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time on this machine")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only the I-th of N parts")
    parser.add_argument("--cluster", default="", help="train on a Ray cluster: auto, or HOST:PORT")
    parser.add_argument("--gpus-per-run", type=float, default=1.0, help="on a cluster; below 1 several share a GPU")
    parser.add_argument("--collect", action="store_true", help="only add what is finished in --runs; train nothing")
    arguments = parser.parse_args(words)
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
