"""From the config to networks and trainers."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from yacs.config import CfgNode

from build_search import METHODS, build_search_network
from datasets.build import Data
from datasets.holdout import NEW
from datasets.loaders import EvalLoader
from default_config import check_same_run, flatten, settle
from engine.evaluator import Prepare, build_scoring_rules
from engine.footprint import Forecast, build_forecast
from engine.interrupt import StopRequest
from engine.losses import build_loss
from engine.mixed_precision import AMP_DTYPES, MixedPrecision
from engine.optim import build_optimizers, build_scheduler
from engine.parameters import WEIGHTS
from engine.pictures import Pictures, choose_shown
from engine.recalibration import recalibrate_batch_norm
from engine.safety import explain_faults
from engine.scorer import Scorer
from engine.scores import Scores
from engine.step import TrainStep
from engine.task import Task, TrainSettings
from engine.trainer import Trainer
from genotype import NAMED_STEM_NORMS, Genotype, is_digits
from network_settings import find_settings, settings_at_odds, settings_of, write_settings
from osnet_child import GENOTYPE, ChildNet, build_child, fold_batch_norms
from osnet_nas import SuperNet
from utils.checkpoint import find_last
from utils.checkpoint_schema import load_training_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError
from utils.network_file import NetworkFile, load_network_weights
from utils.run_folder import RunFolder

logger = logging.getLogger(__name__)

RECALIBRATION_BATCHES = 100
DERIVED = "derived network of the search with the super-network's weights, BN statistics recalibrated; not retrained"
TRAINED = "child network"


@dataclass(frozen=True)
class Network:
    """A bare network and what it is, in plain values that a checkpoint keeps and compares."""

    model: ChildNet | SuperNet
    identity: dict[str, Any]


def build_network(cfg: CfgNode, num_classes: int) -> Network:
    """Builds the super-network or the child that the ``model`` settings name.

    Raises:
        UserError: an unknown or broken genotype.
    """
    identity = {"name": cfg.model.name, "width": cfg.model.width, "loss": cfg.loss.name, "num_classes": num_classes}
    if cfg.model.name == "osnet_nas":
        return Network(build_search_network(cfg, num_classes), {**identity, "candidates": cfg.nas.candidates})
    genotype, stem_norm = choose_genotype(cfg.model.genotype), cfg.model.stem_norm
    child = build_child(num_classes, genotype, cfg.model.width, stem_norm, cfg.loss.name)
    return Network(child, {**identity, "genotype": list(genotype.blocks), "stem_norm": stem_norm})


def choose_genotype(choice: str) -> Genotype:
    """Returns the genotype of a published name, six digits, a file or a search's folder; empty: the GENOTYPE line's.

    Raises:
        UserError: neither a published name nor a genotype file.
    """
    if not choice:
        return GENOTYPE.check()
    if choice in NAMED_STEM_NORMS:
        return Genotype.named(choice)
    if is_digits(choice):
        return Genotype.from_digits(choice)
    path = Path(choice)
    if not path.exists():
        raise UserError(f"model.genotype = {choice!r}: no such file, and the known names are {list(NAMED_STEM_NORMS)}")
    return Genotype.from_json(path / "genotype.json" if path.is_dir() else path)


def build_evaluated(cfg: CfgNode, file: NetworkFile, explicit: Collection[str]) -> tuple[CfgNode, list[str]]:
    """Returns the config with what the weights to evaluate stand for: their network, their images' size and colours.

    Args:
        cfg: The config.
        file: The weights.
        explicit: Settings that the command line gives, which must agree.

    Returns:
        The config, and a line for the log that names what was changed, if anything was.

    Raises:
        UserError: one does not agree, or the file is damaged.
    """
    found, settings = find_settings(file), flatten(cfg)
    asked = {k: v for k, v in settings.items() if k in found and k in (*explicit, "model.name")}
    if "model.genotype" in asked:
        asked["model.genotype"] = choose_genotype(cfg.model.genotype)
    if problem := settings_at_odds(asked, found, file.path):
        raise UserError(problem)
    taken = {key: value for key, value in write_settings(found).items() if settings[key] != value}
    for key, value in taken.items():
        cfg = settle(cfg, key, value)
    shown = ", ".join(f"{key} {value}" for key, value in taken.items())
    return cfg, [f"as {file.path} was trained: {shown}"] if shown else []


def load_weights(network: Network, file: NetworkFile) -> None:
    """Loads weights from a checkpoint of this project or a file of Torchreid's; a classifier of another size stays.

    Raises:
        UserError: the file is of another network (the settings that fit are named), or not whole.
    """
    if problem := settings_at_odds(settings_of(network.identity), find_settings(file), file.path):
        raise UserError(problem)
    load_network_weights(network.model, file)


def check_derives(network: Network, path: str) -> None:
    """Checks that a super-network has most probable candidates, from which a network can be derived.

    Raises:
        UserError: all its alphas are equal, as in a one-shot search's checkpoint.
    """
    if isinstance(network.model, SuperNet) and (network.model.alphas == network.model.alphas[:, :1]).all():
        raise UserError(
            f"{path}: all candidates are equally probable, so no network follows; a search by nas.method uniform "
            "leaves its answer in genotype.json"
        )


def check_identity(network: Network, checkpoint: Mapping[str, Any], path: str) -> None:
    """Checks that a checkpoint is of this network.

    Raises:
        UserError: says what differs.
    """
    saved, own = checkpoint["identity"], network.identity
    if saved.get("name") == "osnet_nas":
        saved = {"candidates": "separate", **saved}  # a checkpoint from before there were others
    for key in sorted(saved.keys() | own.keys()):
        if saved.get(key) != own.get(key):
            raise UserError(
                f"{path} is a checkpoint of another model: its {key} is {saved.get(key)}, this run's {own.get(key)}"
            )


def build_resumed(cfg: CfgNode, folder: RunFolder) -> dict[str, Any] | None:
    """Loads the checkpoint that ``model.resume`` names, None for a fresh start.

    Raises:
        UserError: it cannot be read, or was made under other settings.
    """
    if not cfg.model.resume or not folder.trains:
        return None
    if cfg.model.resume == "auto":
        found = find_last(folder.checkpoints, load_training_checkpoint)
        if found is None:
            return None
        path, checkpoint = found
    else:
        path = Path(cfg.model.resume)
        checkpoint = load_training_checkpoint(path)
    check_same_run(checkpoint["config"], cfg, path)
    if not (folder.checkpoints / "best.pt").exists():
        checkpoint["progress"]["best"] = -1.0  # what was best lies in another run's folder
    return checkpoint


def build_prepare(data: Data, device: torch.device) -> Prepare:
    """Builds what makes network input on the device from a batch."""
    return lambda batch: data.preparer(batch, device)


def build_scorer(cfg: CfgNode, runtime: Runtime, data: Data, network: Network, step: TrainStep | None = None) -> Scorer:
    """Builds what scores a child, as it is or with the average of its weights; and a super-network by what it derives.

    Args:
        cfg: The config.
        runtime: Device and processes.
        data: What is tested on, and for batch-norm statistics what is trained on.
        network: The network.
        step: What trains it, which may keep an average; None in an evaluation.
    """
    prepare, model = build_prepare(data, runtime.device), network.model
    at_a_time = max(cfg.train.device_batch, 0)  # as in training

    def recalibrate(child: ChildNet) -> ChildNet:
        """Sets batch-norm statistics to those of training images, the same in every process."""
        assert data.train is not None
        child.to(runtime.device)
        first = islice(data.train.batches(0), RECALIBRATION_BATCHES)
        whole = (runtime.join(prepare(batch)) for batch in first)
        parts = (part for images in whole for part in images.split(at_a_time or len(images)))
        advice = "recalibration takes a whole batch at once; lower train.batch_size, or set train.device_batch"
        with explain_faults(runtime, advice):
            recalibrate_batch_norm(child, parts)
        return child

    def get_network() -> nn.Module:
        if isinstance(model, SuperNet):
            child = recalibrate(derive_network(model, network.identity))
        else:
            average = None if step is None else step.average
            child = model if average is None else recalibrate(cast(ChildNet, average.module))
        runtime.share_statistics(child)
        return fold_batch_norms(child)

    return Scorer(
        label=DERIVED if isinstance(model, SuperNet) else TRAINED,
        get_network=get_network,
        targets=data.targets,
        prepare=prepare,
        rules=build_scoring_rules(cfg),
        runtime=runtime,
    )


def derive_network(supernet: SuperNet, identity: Mapping[str, Any]) -> ChildNet:
    """Returns the child of the most probable candidates with the weights it has in the super-network."""
    genotype = supernet.derive()
    child = build_child(identity["num_classes"], genotype, identity["width"])
    child.load_state_dict(supernet.child_state(genotype))
    return child


def build_pictures(cfg: CfgNode, data: Data) -> Pictures | None:
    """Builds what collects and draws the pictures that ``test.visrank`` and ``test.visactmap`` ask for, if any."""
    if not (cfg.test.visrank or cfg.test.visactmap):
        return None
    import engine.picture_files  # noqa: F401 - now, lest it fail after hours of training

    shown = {}
    for name, target in data.targets.items() if cfg.test.visactmap else ():
        samples = [target.query.samples[i] for i in choose_shown(len(target.query.samples))]
        batches = EvalLoader(
            samples,
            batch_size=cfg.test.batch_size,
            height=cfg.data.height,
            width=cfg.data.width,
            on_corrupt=cfg.data.on_corrupt,
        )
        shown[name] = batches, target.names
    return Pictures(cfg.test.visrank_topk if cfg.test.visrank else 0, shown)


def build_trainer(
    cfg: CfgNode,
    runtime: Runtime,
    data: Data,
    network: Network,
    step: TrainStep,
    scorer: Scorer,
    stop: StopRequest,
    kept: Mapping[str, Any],
    pictures: Pictures | None = None,
) -> Trainer:
    """Builds the loop around the step of a search or of a child.

    Checkpoints get the settings ``kept``; ``pictures`` see the last evaluation.
    """
    assert data.train is not None
    train, average = cfg.train, step.average

    def evaluate() -> dict[str, Scores]:
        is_last = trainer.progress.epoch + 1 >= train.max_epoch
        return scorer.score(pictures if is_last else None)

    # a search that learns no alphas finds its network after training
    is_known = not isinstance(network.model, SuperNet) or METHODS[cfg.nas.method].learns_alphas
    settings = TrainSettings(
        max_epoch=train.max_epoch,
        batch_size=train.batch_size,
        fixbase_epoch=train.fixbase_epoch,
        open_layers=tuple(train.open_layers),
        print_freq=train.print_freq,
        eval_freq=cfg.test.eval_freq,
        start_eval=cfg.test.start_eval,
        eval_epochs=tuple(cfg.test.eval_epochs),
        save_every_min=train.save_every_min,
        keep_checkpoints=train.keep_checkpoints,
        best_by=NEW if data.held_out else "",
    )
    trainer = Trainer(
        step=step,
        schedulers={WEIGHTS: build_scheduler(cfg, step.optimizers[WEIGHTS])},
        batches=data.train,
        alpha_batches=data.taught,
        runtime=runtime,
        settings=settings,
        folder=Path(cfg.data.save_dir),
        identity=network.identity,
        config=kept,
        images=data.hash_training_images(),
        evaluate=evaluate if is_known else None,
        stop=stop,
        scored_state=None if average is None else average.module.state_dict,
    )
    return trainer


def build_step(cfg: CfgNode, runtime: Runtime, data: Data, network: Network) -> TrainStep:
    """Builds the training step, the model on its device.

    Raises:
        UserError: settings that the devices or the network rule out.
    """
    model, train = network.model, cfg.train
    if train.channels_last:
        model.to(memory_format=torch.channels_last)
    model.to(runtime.device)
    model.choose_recomputed(train.recompute)
    runtime.check_batch_size(train.batch_size)
    runtime.check_device_batch(train.batch_size, train.device_batch)
    runtime.check_sync_bn(train.sync_bn)
    task = METHODS[cfg.nas.method].build_task(cfg, runtime, model) if isinstance(model, SuperNet) else Task()
    return TrainStep(
        model=model,
        wrap=build_wrap(cfg, runtime, model, task.reaches_all),
        task=task,
        loss=build_loss(cfg, runtime),
        optimizers=build_optimizers(cfg, model),
        prepare=build_prepare(data, runtime.device),
        runtime=runtime,
        amp=train.amp,
        clip_grad_norm=train.clip_grad_norm,
        ema_decay=train.ema_decay,
        device_batch=max(train.device_batch, 0),  # -1: see engine.footprint
        compares_images=cfg.loss.name == "triplet",
    )


def build_fitting_step(
    cfg: CfgNode, runtime: Runtime, data: Data, network: Network, checkpoint: Mapping[str, Any] | None
) -> tuple[TrainStep, Forecast]:
    """Builds the training step and what is known of its memory, by which ``train.device_batch`` -1 is chosen.

    Args:
        cfg: The config.
        runtime: Device and processes.
        data: What is learnt from.
        network: What learns.
        checkpoint: Of the run that is continued, which -1 then follows; None: a new run.

    Raises:
        UserError: settings that the devices or the network rule out; -1, and nothing fits.
    """
    step = build_step(cfg, runtime, data, network)
    saved = None if checkpoint is None else checkpoint["config"].get("train.device_batch", 0)
    memory = build_forecast(cfg, runtime, step, saved)
    runtime.check_device_batch(cfg.train.batch_size, memory.device_batch)
    step.device_batch = memory.device_batch
    return step, memory


def build_wrap(cfg: CfgNode, runtime: Runtime, model: nn.Module, reaches_all: bool) -> Callable[[], nn.Module]:
    """Builds what makes the model as it is called: in mixed precision, over the devices at hand, compiled.

    Args:
        cfg: The config.
        runtime: Device and processes.
        model: The bare model.
        reaches_all: Whether each step gives every learning parameter a gradient.

    Raises:
        UserError: nothing would be compiled.
    """
    train = cfg.train
    if train.compile and runtime.replicas > 1:
        raise UserError(
            f"train.compile True does nothing under DataParallel ({runtime.replicas} GPUs): start one process a GPU "
            "with torchrun, name one GPU with --gpu-devices, or set it to False"
        )

    def wrap() -> nn.Module:
        dtype = AMP_DTYPES.get(train.amp)
        wrapped = runtime.wrap(MixedPrecision(model, dtype) if dtype else model, train.sync_bn, reaches_all)
        return torch.compile(wrapped) if train.compile else wrapped  # type: ignore[return-value]

    return wrap
