"""From the config to a designed search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from config_keys import DATA_KEYS
from datasets.base import hash_samples
from datasets.build import read_data_sets, read_sources
from datasets.holdout import count_folds, hold_out
from default_config import flatten, load_config
from engine.metrics import list_versions
from experiment import hash_settings
from search.confirm import CONFIRM_SEEDS
from search.design import Design, DesignedSearch
from search.launcher import Launcher, LocalLauncher, RayLauncher
from search.trials import Trial
from utils.devices import list_gpus
from utils.errors import UserError

_FROM_SEARCH = (*DATA_KEYS, "nas.held_out", "nas.num_folds", "use_gpu")
_LARGEST_SEED = 2**63 - 1 - CONFIRM_SEEDS - 1  # both rounds have seeds of their own
_PER_TRIAL = {"model.genotype", "train.seed", "nas.fold", "data.targets"}
_WHEN_SCORED = {"test.eval_freq", "test.start_eval", "test.eval_epochs", "test.style_shift", "test.num_splits"}


def build_design(cfg: CfgNode, folder: Path) -> tuple[DesignedSearch, CfgNode, str]:
    """Builds a designed search, after its recipe and data were read and checked.

    Returns:
        The search, the config of its trainings, and what stands for the images that these share.

    Raises:
        UserError: the recipe is no child's, or data that cannot be held out in so many folds.
    """
    settings = build_trial_settings(cfg)
    words = [word for key, value in settings.items() for word in (key, str(value))]
    recipe = Path(cfg.nas.design.recipe)
    trial_cfg = load_config([recipe], settings)
    check_trains_child(trial_cfg.model.name, f"nas.design.recipe {recipe}")
    images = build_images_hash(trial_cfg)
    conditions = {
        "recipe": str(recipe),
        "settings": hash_recipe(flatten(trial_cfg)),
        "images": images,
        "torch": list_versions()["torch"],
    }
    nas = cfg.nas
    if cfg.train.seed > _LARGEST_SEED:
        raise UserError(
            f"train.seed {cfg.train.seed}: nas.method design needs the next ones too, at most {_LARGEST_SEED}"
        )
    num_folds = count_folds(nas.held_out, nas.num_folds, len(cfg.data.sources))
    plan = Design(nas.design.runs, nas.design.extra_runs, nas.design.confirm, num_folds, cfg.train.seed)

    def make_command(trial: Trial, trials_folder: Path) -> list[str]:
        return trial.command(recipe, trials_folder, words)

    return DesignedSearch(folder, plan, make_command, build_launcher(cfg), conditions), trial_cfg, images


def check_trains_child(model_name: str, recipe: str) -> None:
    """Raises UserError, which begins with ``recipe``, where a recipe's ``model.name`` is not a child's."""
    if model_name != "osnet_child":
        raise UserError(f"{recipe} is a search's config; it must train a child (model.name osnet_child)")


def build_trial_settings(cfg: CfgNode) -> dict[str, Any]:
    """Builds the settings that every training takes from the search, by full key; no training is tested on targets."""
    flat = flatten(cfg)
    root = str(Path(cfg.data.root).resolve())  # a training may run on another machine, in another folder
    return {**{key: flat[key] for key in _FROM_SEARCH}, "data.root": root, "data.targets": []}


def hash_recipe(settings: Mapping[str, Any]) -> str:
    """Returns 12 hex digits for all settings, by full key, that the trainings of one table or design have in common.

    Raises:
        UserError: a setting that each training would choose for itself.
    """
    if settings["train.device_batch"] == -1:
        raise UserError("train.device_batch -1 in a recipe: trainings that are compared need the same; set a number")
    return hash_settings(settings, _PER_TRIAL | _WHEN_SCORED)


def build_images_hash(cfg: CfgNode, with_targets: bool = False) -> str:
    """Returns what stands for the sources' images, and the targets' if wanted; every fold is held out as a check."""
    targets = list(cfg.data.targets) if with_targets else []
    splits = read_data_sets(cfg, [*cfg.data.sources, *targets])
    sources = read_sources(cfg, splits, targets)
    for fold in range(count_folds(cfg.nas.held_out, cfg.nas.num_folds, len(sources))):
        hold_out(sources, cfg.nas.held_out, fold, cfg.nas.num_folds)
    tested = [part for name in targets for part in (splits[name].query, splits[name].gallery)]
    return hash_samples([*sources.values(), *tested])


def build_launcher(cfg: CfgNode) -> Launcher:
    """Builds what runs the trainings: on this machine, its GPUs shared out, or on a Ray cluster."""
    nas = cfg.nas
    if nas.design.cluster:
        return RayLauncher(nas.design.cluster, nas.design.gpus_per_run if cfg.use_gpu else 0.0)
    return LocalLauncher(nas.design.jobs, list_gpus() if cfg.use_gpu else [])
