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
import math
import re
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from build_design import build_images_hash, check_trains_child, hash_recipe
from datasets.holdout import NEW, SEEN, count_folds
from datasets.style_shift import SHIFTED
from default_config import flatten, load_config
from engine.interrupt import Interrupted, StopRequest
from engine.metrics import NUMERICS, describe_machine
from genotype import is_digits
from search.arrays import SIZES, plan_runs
from search.launcher import Launcher, LocalLauncher, RayLauncher
from search.table import FOLDER, UNSEEN, Row, Table, append_rows, list_changed
from search.trials import Trial, TrialResult, check_plan, complete_trials, read_trials, write_plan
from utils.checks import Check, between, each, each_of_any, not_empty, one_of
from utils.config_file import read_config_file
from utils.config_value import coerce
from utils.devices import list_gpus
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import start_log
from utils.run_folder import PLAN_NAME
from utils.suggest import nearest
from utils.tool import tool

logger = logging.getLogger(__name__)


def _check_digits(digits: str) -> str:
    return "" if is_digits(digits) else f"must be six digits from 0 to 3 each, {digits[:40]!r} is no genotype"


_MOST = 4096  # trainings of one kind: more is a slip of the hand
PLAN_KEYS: dict[str, tuple[Any, Check]] = {
    "about": ("", lambda value: ""),
    "recipe": ("", not_empty),
    "num_folds": (1, between(1, 15)),
    "seed": (1, between(0, 2**62)),
    "array": (32, one_of(*SIZES)),
    "genotypes": ([""], each_of_any(_check_digits)),
    "random": (0, between(0, _MOST)),
    "repeats.seeds": (0, between(0, _MOST)),
    "repeats.of": (0, between(0, _MOST)),
}  # of a plan: default and check
_REPEATS = {"repeats.seeds", "repeats.of"}
GROUPS = "groups."  # what the names of a plan's means over several scores begin with
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
        num_folds: Over which the trainings spread.
    """

    name: str
    about: str
    recipe: Path
    trials: Sequence[Trial]
    groups: Mapping[str, Sequence[str]]
    num_folds: int


def read_plan(path: Path) -> Plan:
    """Reads a plan: YAML as in config files, so that genotypes need no quotes.

    Raises:
        UserError: no such file, unknown keys or one given twice, or values that do not fit.
    """
    document: dict[str, Any] = {key: default for key, (default, _) in PLAN_KEYS.items()} | {"genotypes": []}
    groups: dict[str, list[str]] = {}
    entries = read_config_file(path, "plan")
    for key, entry in entries.items():
        try:
            if key.startswith(GROUPS):
                groups[key.removeprefix(GROUPS)] = _read_value(entry.value, [""], each(not_empty))
            elif key in PLAN_KEYS:
                document[key] = _read_value(entry.value, *PLAN_KEYS[key])
            elif entry.value is not None or key not in ("repeats", "groups"):
                raise UserError(f"plan {path}, line {entry.line}: unknown key {key[:80]!r}{nearest(key, PLAN_KEYS)}")
        except ValueError as error:
            shown = reprlib.repr(entry.value)
            raise UserError(f"plan {path}, line {entry.line}: {key} is {shown}: {error}") from error
    if missing := {"recipe", "num_folds", "array"} - entries.keys():
        raise UserError(f"plan {path} lacks {', '.join(sorted(missing))}")
    if len(entries.keys() & _REPEATS) == 1:
        raise UserError(f"plan {path}: repeats needs both seeds, of each, and of, how many networks")
    genotypes = document["genotypes"]
    for name, names in {"genotypes": genotypes, **{GROUPS + group: scores for group, scores in groups.items()}}.items():
        if twice := next((entry for entry in names if names.count(entry) > 1), ""):
            raise UserError(f"plan {path}: {name} names {twice} twice")
    if document["repeats.of"] > (known := len(genotypes) + document["array"]):
        raise UserError(f"plan {path}: repeats.of is {document['repeats.of']}, there are {known} to repeat")
    trials = list_trials(document, genotypes)
    return Plan(path.stem, document["about"], path.parent / document["recipe"], trials, groups, document["num_folds"])


def _read_value(value: Any, default: Any, check: Check) -> Any:
    """Returns a plan's value in its type; raises ValueError with what is allowed."""
    found = coerce(value, default)
    if allowed := check(found):
        raise ValueError(allowed)
    return found


def list_trials(document: Mapping[str, Any], genotypes: Sequence[str]) -> list[Trial]:
    """Lists a plan's trainings: the array's, the named ones, random ones, then the repeats of the first two kinds."""
    num_folds, seed, num_random = document["num_folds"], document["seed"], document["random"]
    planned = plan_runs(document["array"], seed, num_folds, num_random)
    array = [Trial(run.digits, seed, run.fold) for run in planned[: document["array"]]]
    named = [Trial(digits, seed, i % num_folds) for i, digits in enumerate(genotypes)]
    drawn = [Trial(run.digits, seed, run.fold) for run in planned[document["array"] :] if run.digits not in genotypes]
    known = {trial.digits for trial in named}
    first = [trial for trial in array if trial.digits not in known]
    repeated = [
        Trial(trial.digits, seed + i, (trial.fold + i) % num_folds)
        for i in range(1, document["repeats.seeds"] + 1)
        for trial in [*named, *first][: document["repeats.of"]]
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


def read_shard(text: str) -> slice:
    """Reads ``i/n``, the i-th of n parts, from 1, as what takes it from a list.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: expected i/n with i from 1 to n, such as 3/8")
    return slice(int(match[1]) - 1, None, int(match[2]))


def choose_trials(trials: Sequence[Trial], table: Table | None, shard: slice) -> list[Trial]:
    """Leaves out of a plan's trainings what a table (None: nothing) has, and what belongs to other shards."""
    there = {(row.digits, row.seed, row.fold) for row in table.rows} if table else set()
    own = trials[shard]
    return [trial for trial in own if (trial.digits, trial.seed, trial.fold) not in there]


def check_recipe(settings: Mapping[str, Any], plan: Plan) -> None:
    """Checks that a recipe, its settings by full key, can make a plan's trainings.

    Raises:
        UserError: it trains no child, deals the images into fewer folds, or gives no score of a group.
    """
    check_trains_child(settings["model.name"], f"recipe {plan.recipe}")
    mode = settings["nas.held_out"]
    num_folds = 1 if mode == "none" else count_folds(mode, settings["nas.num_folds"], len(settings["data.sources"]))
    if plan.num_folds > num_folds:
        raise UserError(f"the plan has num_folds {plan.num_folds}, recipe {plan.recipe} holds out {num_folds}")
    domains = [*settings["data.targets"], *settings["data.sources"], NEW, SEEN]
    given = [f"{domain}{shift}/{score}" for domain in domains for shift in ("", SHIFTED) for score in KEPT_SCORES]
    for name, scores in plan.groups.items():
        if unknown := next((score for score in scores if score not in given), ""):
            raise UserError(
                f"the plan's group {name} is of {unknown!r}, no score of recipe {plan.recipe}{nearest(unknown, given)}"
            )


def check_arguments(arguments: argparse.Namespace) -> None:
    """Checks the numbers of the command line.

    Raises:
        UserError: one is out of range.
    """
    if arguments.jobs < 1:
        raise UserError("--jobs must be at least 1")
    if not 0 <= arguments.gpus_per_run < math.inf:
        raise UserError(f"--gpus-per-run {arguments.gpus_per_run:g}: must be a number from 0")


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    check_arguments(arguments)
    shard, plan = read_shard(arguments.shard), read_plan(arguments.plan)
    words = ["data.root", str(arguments.root)] if arguments.root else []
    cfg = load_config([plan.recipe], dict(zip(words[::2], words[1::2], strict=True)))
    check_recipe(flatten(cfg), plan)
    if UNSEEN not in plan.groups:
        logger.warning("the plan has no group %s, by which searches are judged unless --metric says otherwise", UNSEEN)
    recipe = hash_recipe(flatten(cfg))
    path = arguments.table or FOLDER / f"{plan.name}.jsonl"
    table = Table.load(path) if path.is_file() else None
    shared = {"recipe": recipe, "numerics": NUMERICS}
    check_table(path, table, shared)  # before images are drawn
    shared["images"] = images = build_images_hash(cfg, with_targets=True)
    check_table(path, table, shared)
    trials = choose_trials(plan.trials, table, shard)
    logger.info("%s: %d of %d trainings are to be made here", path, len(trials), len(plan.trials))
    folder = arguments.runs / plan.name
    check_runs(folder, shared)

    def keep(results: Sequence[TrialResult]) -> None:
        rows = [row for r in results for row in make_rows(r, recipe, images, cfg.train.batch_size, cfg.train.max_epoch)]
        if rows:
            append_rows(path, plan.groups, rows, plan.about)

    keep(read_trials(trials, folder))
    if not arguments.collect:
        write_plan(folder, {"conditions": shared})
        command = _make_command(plan.recipe, words)
        done = complete_trials(trials, folder, command, choose_launcher(arguments), plan.name, keep)
        logger.info("%d of %d trainings are finished; rows are in %s", len(done), len(trials), path)


def check_table(path: Path, table: Table | None, shared: Mapping[str, Any]) -> None:
    """Raises UserError where the rows that a table has are not of what all new ones will have in common."""
    if table and table.rows and (changed := list_changed(table.rows[0], shared)):
        raise UserError(f"{path} is of other trainings ({'; '.join(changed)}); give another --table")


def check_runs(folder: Path, shared: Mapping[str, Any]) -> None:
    """Checks that the trainings that a folder has are of what all new ones will have in common.

    Raises:
        UserError: they are not, or nothing says so.
    """
    if not (folder / PLAN_NAME).exists() and any(folder.glob("*-seed*-fold*")):
        raise UserError(f"{folder} holds trainings, but no {PLAN_NAME}, which says by which recipe and of which images "
                        "they are; copy it there too, or give another --runs")  # fmt: skip
    check_plan(folder, {"conditions": shared}, "--runs")


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
