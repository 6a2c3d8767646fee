"""From the config to networks and trainers."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from datasets.build import Data
from default_config import flatten
from engine.interrupt import StopRequest
from engine.losses import build_loss
from engine.mixed_precision import AMP_DTYPES, MixedPrecision
from engine.optim import build_optimizer, build_scheduler
from engine.scores import Scores
from engine.search import SearchTask, temperature_at
from engine.task import Task, TrainSettings
from engine.trainer import Trainer
from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_child import GENOTYPE, ChildNet, build_child
from osnet_nas import SuperNet, build_supernet, compute_probabilities, sample_path_weights
from utils.checkpoint import FORMAT, load_checkpoint, read_tensors
from utils.distributed import Runtime
from utils.errors import UserError
from utils.torchreid_weights import load_torchreid_weights

logger = logging.getLogger(__name__)


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
        return Network(build_supernet(num_classes, cfg.model.width, cfg.loss.name), identity)
    genotype, stem_norm = choose_genotype(cfg)
    child = build_child(num_classes, genotype, cfg.model.width, stem_norm, cfg.loss.name)
    return Network(child, {**identity, "genotype": list(genotype.blocks), "stem_norm": stem_norm})


def choose_genotype(cfg: CfgNode) -> tuple[Genotype, str]:
    """Returns the child's genotype and stem norm: a published name's, a file's, or the GENOTYPE line's.

    Raises:
        UserError: neither a published name nor a genotype file.
    """
    choice = cfg.model.genotype
    if not choice:
        return GENOTYPE.check(), cfg.model.stem_norm
    if choice in NAMED_STEM_NORMS:
        return Genotype.named(choice), NAMED_STEM_NORMS[choice]
    if not Path(choice).exists():
        raise UserError(f"model.genotype = {choice!r}: no such file, and the known names are {list(NAMED_STEM_NORMS)}")
    return Genotype.from_json(choice), cfg.model.stem_norm


def load_weights(network: Network, path: str) -> None:
    """Loads weights from a checkpoint of this project or a file of Torchreid's; a classifier of another size stays.

    Raises:
        UserError: the file cannot be read or is of another network.
    """
    document = read_tensors_or_none(path)
    if document is None:
        load_torchreid_weights(network.model, path)
        return
    check_identity(network, document, path, ignored=("num_classes", "loss"))
    state = document["model"]
    own = network.model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if tensor.shape == own[name].shape}
    if skipped := sorted(state.keys() - fitting.keys()):
        logger.info("%s: %s of another number of identities, not loaded", path, ", ".join(skipped))
    network.model.load_state_dict(own | fitting)


def read_tensors_or_none(path: str) -> dict[str, Any] | None:
    """Returns the checkpoint if the file is one of this project's, None for a file of another kind.

    Raises:
        UserError: a checkpoint of this project that cannot be read, or no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"model.load_weights: no file {path}")
    try:
        document = read_tensors(path)
    except UserError:
        return None  # the importer knows more formats, and says what is wrong
    return load_checkpoint(path) if isinstance(document, dict) and document.get("format") == FORMAT else None


def check_identity(network: Network, checkpoint: Mapping[str, Any], path: str, ignored: tuple[str, ...] = ()) -> None:
    """Checks that a checkpoint is of this network.

    Raises:
        UserError: says what differs.
    """
    saved, own = checkpoint["identity"], network.identity
    for key in sorted(saved.keys() | own.keys()):
        if key not in ignored and saved.get(key) != own.get(key):
            raise UserError(
                f"{path} is a checkpoint of another model: its {key} is {saved.get(key)}, this run's {own.get(key)}"
            )


def build_prepare(data: Data, device: torch.device) -> Callable[[Any], Tensor]:
    """Builds what makes network input on the device from a batch."""
    return lambda batch: data.preparer(batch, device)


def build_trainer(
    cfg: CfgNode,
    runtime: Runtime,
    data: Data,
    network: Network,
    evaluate: Callable[[], dict[str, Scores]],
    stop: StopRequest,
) -> Trainer:
    """Builds the trainer of a search or of a child; ``evaluate`` scores the network.

    Raises:
        UserError: settings that the devices or the network rule out.
    """
    model, train = network.model, cfg.train
    assert data.train is not None
    if train.channels_last:
        model.to(memory_format=torch.channels_last)
    model.to(runtime.device)
    runtime.check_batch_size(train.batch_size)
    runtime.check_sync_bn(train.sync_bn)
    optimizer = build_optimizer(cfg, model)

    settings = TrainSettings(
        max_epoch=train.max_epoch,
        fixbase_epoch=train.fixbase_epoch,
        open_layers=tuple(train.open_layers),
        print_freq=train.print_freq,
        eval_freq=cfg.test.eval_freq,
        start_eval=cfg.test.start_eval,
        save_every_min=train.save_every_min,
        keep_checkpoints=train.keep_checkpoints,
        amp=train.amp,
        clip_grad_norm=train.clip_grad_norm,
    )
    return Trainer(
        model=model,
        wrap=build_wrap(cfg, runtime, model),
        task=build_search_task(cfg, runtime, model) if isinstance(model, SuperNet) else Task(),
        loss=build_loss(cfg, runtime),
        optimizer=optimizer,
        scheduler=build_scheduler(cfg, optimizer),
        batches=data.train,
        prepare=build_prepare(data, runtime.device),
        runtime=runtime,
        settings=settings,
        folder=Path(cfg.data.save_dir),
        identity=network.identity,
        config=flatten(cfg),
        images=data.hash_training_images(),
        evaluate=evaluate,
        stop=stop,
    )


def build_wrap(cfg: CfgNode, runtime: Runtime, model: nn.Module) -> Callable[[], nn.Module]:
    """Builds what makes the model as it is called: in mixed precision, over the devices at hand, compiled.

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
        wrapped = runtime.wrap(MixedPrecision(model, dtype) if dtype else model, train.sync_bn)
        return torch.compile(wrapped) if train.compile else wrapped  # type: ignore[return-value]

    return wrap


def build_search_task(cfg: CfgNode, runtime: Runtime, supernet: SuperNet) -> SearchTask:
    """Builds the search from the ``nas`` settings."""
    nas = cfg.nas
    schedule = (nas.init_lmda, nas.min_lmda, nas.lmda_decay_step, nas.lmda_decay_rate, nas.fixed_lmda)
    return SearchTask(
        supernet,
        sample=sample_path_weights,
        probabilities=compute_probabilities,
        temperature=lambda epoch: temperature_at(epoch, *schedule),
        repeats=nas.mc_iter,
        seed=cfg.train.seed,
        runtime=runtime,
        sample_scope=nas.sample_scope,
        block_names=BLOCK_NAMES,
        candidate_names=CANDIDATE_NAMES,
    )
