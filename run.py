"""What main.py runs: a search, a child's training, or an evaluation, built from the frozen config."""

import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from yacs.config import CfgNode

from build import Network, build_network, build_prepare, build_trainer, check_identity, load_weights
from datasets.build import Data, build_loaders, build_targets
from datasets.loaders import EvalLoader
from default_config import check_same_run, config_hash
from engine.evaluator import build_scoring_rules, evaluate_targets
from engine.interrupt import StopRequest
from engine.memory import measure_peak_memory
from engine.pictures import Pictures, choose_shown
from engine.safety import explain_faults
from engine.scores import Scores, format_camera_pairs, format_scores
from engine.search import (
    compute_margins,
    recalibrate_batch_norm,
)
from engine.trainer import Trainer
from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from osnet_child import ChildNet, build_child
from osnet_nas import SuperNet, argmax_path_weights, compute_probabilities
from utils.checkpoint import find_last, load_checkpoint
from utils.complexity import compute_complexity
from utils.distributed import Runtime
from utils.errors import UserError
from utils.files import remove_unfinished, write_atomically
from utils.log import format_duration, start_log
from utils.plots import draw_architecture
from utils.scalars import Scalars
from utils.seed import seed_everything

logger = logging.getLogger(__name__)

RECALIBRATION_BATCHES = 100
DERIVED = "derived network of the search with the super-network's weights, BN statistics recalibrated; not retrained"
TRAINED = "child network"


def run(cfg: CfgNode, runtime: Runtime, stop: StopRequest) -> None:
    """Runs what the config asks for and leaves everything in ``data.save_dir``.

    Raises:
        UserError: a person's mistake, found before the first batch where that is possible.
        engine.interrupt.Interrupted: a signal asked to stop; the run is saved.
    """
    folder = Path(cfg.data.save_dir)
    if not runtime.is_main:
        logging.getLogger().setLevel(logging.ERROR)  # while every process says the same
    stop.last = None if cfg.test.evaluate else folder / "checkpoints" / "last.pt"
    stop.announce = runtime.is_main
    build_and_run(cfg, runtime, folder, stop)


def build_and_run(cfg: CfgNode, runtime: Runtime, folder: Path, stop: StopRequest) -> None:
    """Builds everything, then trains or evaluates; raises what ``run`` does."""
    with explain_faults(runtime, "lower train.batch_size and test.batch_size"):
        build_and_run_unguarded(cfg, runtime, folder, stop)


def build_and_run_unguarded(cfg: CfgNode, runtime: Runtime, folder: Path, stop: StopRequest) -> None:
    """Does so, but leaves some of the machine's faults unexplained."""
    started = time.monotonic()
    if runtime.is_main and not cfg.test.evaluate and (folder / "train.log").is_file():
        open_log(folder / "train.log")  # before a checkpoint is read that another run may still be replacing
    seed_everything(cfg.train.seed)
    torch.set_float32_matmul_precision("high" if cfg.train.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = cfg.train.tf32
    checkpoint = runtime.share(load_resumed(cfg, folder) if runtime.is_main else None)
    if runtime.is_main and not cfg.test.evaluate and not continues_here(cfg, folder, checkpoint is not None):
        refuse_earlier_run(folder)
    # a search's network is scored after its BN statistics are recalibrated, which takes training images
    needs_training_data = not cfg.test.evaluate or cfg.model.name == "osnet_nas"
    build_data = build_loaders if needs_training_data else build_targets
    data = build_data(cfg, runtime.device, runtime.rank, runtime.world_size, runtime.share_of_machine)
    if len(set(runtime.gather(data.hash_images()))) > 1:
        raise UserError("the processes see different images; every machine needs the same files below data.root")
    network = build_network(cfg, max(data.num_train_pids, 1))
    if cfg.model.load_weights and checkpoint is None:
        load_weights(network, cfg.model.load_weights)
    pictures = build_pictures(cfg, runtime, data)
    if cfg.test.evaluate:
        prepare_folder(folder, runtime, "evaluate.log")
        introduce(cfg, runtime, data, network)
        scores = evaluate(cfg, runtime, data, network, pictures)
    else:

        def evaluate_now() -> dict[str, Scores]:
            is_last = trainer.progress.epoch + 1 >= cfg.train.max_epoch
            return evaluate(cfg, runtime, data, network, pictures if is_last else None)

        trainer = build_trainer(cfg, runtime, data, network, evaluate_now, stop)
        if checkpoint is not None:
            check_identity(network, checkpoint, cfg.model.resume)
            trainer.load_state(checkpoint)
        prepare_folder(folder, runtime, "train.log")
        introduce(cfg, runtime, data, network)
        scores = train(cfg, trainer)
        if isinstance(network.model, SuperNet):
            finish_search(cfg, runtime, network.model, folder)
    label = DERIVED if isinstance(network.model, SuperNet) else TRAINED
    write_metrics(cfg, runtime, network, folder, scores, label, time.monotonic() - started)
    if pictures:
        pictures.write(folder)


def load_resumed(cfg: CfgNode, folder: Path) -> dict[str, Any] | None:
    """Loads the checkpoint to continue from, None for a fresh start.

    Raises:
        UserError: it cannot be read, or was made under other settings.
    """
    if not cfg.model.resume or cfg.test.evaluate:
        return None
    if cfg.model.resume == "auto":
        found = find_last(folder / "checkpoints")
        if found is None:
            return None
        path, checkpoint = found
    else:
        path = Path(cfg.model.resume)
        checkpoint = load_checkpoint(path)
    if "progress" not in checkpoint:
        raise UserError(f"{path} holds a network's weights alone; start from them with model.load_weights {path}")
    check_same_run(checkpoint["config"], cfg, path)
    if not (folder / "checkpoints" / "best.pt").exists():
        checkpoint["progress"]["best"] = -1.0  # what was best lies in another run's folder
    return checkpoint


def continues_here(cfg: CfgNode, folder: Path, has_checkpoint: bool) -> bool:
    """Whether the run goes on in its own folder, which it may write to; a start killed before its first save counts."""
    if cfg.model.resume == "auto":
        return has_checkpoint or not ((folder / "metrics.json").exists() or any(folder.glob("checkpoints/*.pt")))
    return has_checkpoint and Path(cfg.model.resume).resolve().parent == (folder / "checkpoints").resolve()


def refuse_earlier_run(folder: Path) -> None:
    """Checks that no earlier run would be overwritten.

    Raises:
        UserError: ``folder`` already holds one.
    """
    if any((folder / "checkpoints").glob("*.pt")) or (folder / "metrics.json").exists():
        raise UserError(
            f"{folder} already holds a run; continue it with model.resume auto, or choose another data.save_dir"
        )


def prepare_folder(folder: Path, runtime: Runtime, log_name: str) -> None:
    """Makes the run's folder and starts its log.

    Raises:
        UserError: it cannot be written, or another run is writing to it.
    """
    if not runtime.is_main:
        logging.getLogger().setLevel(logging.WARNING)  # what only this process knows of its share of the data
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if log_name == "train.log":
            (folder / "checkpoints").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write data.save_dir {folder}: {error.strerror}") from error
    open_log(folder / log_name)
    if log_name == "train.log":
        remove_unfinished(folder)
        remove_unfinished(folder / "checkpoints")


def open_log(path: Path) -> None:
    """Sends the log to a file, which keeps other runs out of its folder.

    Raises:
        UserError: it cannot be written, or another run is writing to it.
    """
    try:
        start_log(path)
    except OSError as error:
        raise UserError(f"cannot write data.save_dir {path.parent}: {error.strerror}") from error


def introduce(cfg: CfgNode, runtime: Runtime, data: Data, network: Network) -> None:
    """Writes the merged config, and into the log what runs where on which data."""
    if runtime.is_main and not cfg.test.evaluate:
        write_atomically(Path(cfg.data.save_dir) / "config.yaml", cfg.dump())
    logger.info("%s", data.summary())
    if isinstance(network.model, ChildNet):
        complexity = compute_complexity(network.model, cfg.data.height, cfg.data.width)
        logger.info("child network x%g, stem norm %s:\n%s", cfg.model.width, network.model.stem_norm,
                    network.model.genotype)  # fmt: skip
    else:
        weights = argmax_path_weights(network.model.alphas)
        complexity = compute_complexity(network.model, cfg.data.height, cfg.data.width, [weights])
        logger.info("super-network x%g, all four candidates in each block", cfg.model.width)
    logger.info("%s at %d×%d", complexity, cfg.data.height, cfg.data.width)
    where = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    logger.info("running on %s, %d process(es) × %d replica(s)", where, runtime.world_size, runtime.replicas)


def train(cfg: CfgNode, trainer: Trainer) -> dict[str, Scores]:
    """Trains to the end with TensorBoard beside it; a run that is already at its end is only evaluated."""
    folder, epoch = trainer.folder, trainer.progress.epoch
    if epoch or trainer.progress.batch:
        logger.info("continuing at epoch %d, batch %d", epoch + 1, trainer.progress.batch + 1)
    if epoch == cfg.train.max_epoch and trainer.evaluate:
        return trainer.evaluate()
    if not trainer.runtime.is_main:
        return trainer.fit()
    with Scalars(folder, epoch + 1) as trainer.writer:
        return trainer.fit()


def build_pictures(cfg: CfgNode, runtime: Runtime, data: Data) -> Pictures | None:
    """Builds what collects and draws the pictures that ``test.visrank`` and ``test.visactmap`` ask for.

    Returns:
        None where nothing is asked for, and in all processes but the one that writes.
    """
    if not runtime.is_main or not (cfg.test.visrank or cfg.test.visactmap):
        return None
    shown = {}
    for name, target in data.targets.items() if cfg.test.visactmap else ():
        samples = [target.query.samples[i] for i in choose_shown(len(target.query.samples))]
        shown[name] = EvalLoader(samples, batch_size=cfg.test.batch_size, height=cfg.data.height, width=cfg.data.width)
    return Pictures(cfg.test.visrank_topk if cfg.test.visrank else 0, shown)


def evaluate(
    cfg: CfgNode, runtime: Runtime, data: Data, network: Network, pictures: Pictures | None = None
) -> dict[str, Scores]:
    """Scores a child as it is; a super-network by the child that it derives, its BN statistics recalibrated.

    Pictures collect what they show on the way.
    """
    prepare = build_prepare(data, runtime.device)
    model: nn.Module = network.model
    if isinstance(network.model, SuperNet):
        assert data.train is not None
        model = derive_network(network.model, network.identity["num_classes"], cfg.model.width)
        model.to(runtime.device)
        batches = islice(data.train.batches(0), RECALIBRATION_BATCHES)
        advice = f"recalibration takes {cfg.train.batch_size} images at once; lower train.batch_size"
        with explain_faults(runtime, advice):
            recalibrate_batch_norm(model, (runtime.join(prepare(batch)) for batch in batches))
    with explain_faults(runtime, "lower test.batch_size"):
        wrapped = runtime.wrap_for_evaluation(model)
        scores = evaluate_targets(wrapped, data.targets, prepare, runtime, build_scoring_rules(cfg), pictures)
    if pictures:
        pictures.keep_network(model, prepare)
    return scores


def derive_network(supernet: SuperNet, num_classes: int, width: float) -> ChildNet:
    """Returns the child of the most probable candidates with the weights it has in the super-network."""
    genotype = supernet.derive()
    child = build_child(num_classes, genotype, width)
    child.load_state_dict(supernet.child_state(genotype))
    return child


def finish_search(cfg: CfgNode, runtime: Runtime, supernet: SuperNet, folder: Path) -> None:
    """Saves, draws and prints the found architecture."""
    alphas = supernet.alphas.detach().cpu()
    probabilities = compute_probabilities(alphas)
    found = {
        "alphas": alphas.tolist(),
        "probabilities": probabilities.tolist(),
        "margins": compute_margins(probabilities).tolist(),
        "sources": list(cfg.data.sources),
        "epochs": cfg.train.max_epoch,
        "width": cfg.model.width,
        "seed": cfg.train.seed,
        "config_hash": config_hash(cfg),
    }
    genotype = supernet.derive(found)
    if not runtime.is_main:
        return
    genotype.to_json(folder / "genotype.json")
    draw_architecture(probabilities.numpy(), BLOCK_NAMES, CANDIDATE_NAMES, folder / "architecture.png")
    rows = [
        f"{line}  ({', '.join(f'{n} {p:.3f}' for n, p in zip(CANDIDATE_NAMES, row.tolist(), strict=True))}; "
        f"margin {margin:.3f})"
        for line, row, margin in zip(str(genotype).splitlines(), probabilities, found["margins"], strict=True)
    ]
    logger.info("found architecture:\n%s", "\n".join(rows))
    logger.info("to train it: model.genotype %s, or paste into osnet_child.py:", folder / "genotype.json")
    logger.info("GENOTYPE = %r", genotype)


def write_metrics(
    cfg: CfgNode,
    runtime: Runtime,
    network: Network,
    folder: Path,
    scores: Mapping[str, Scores],
    label: str,
    seconds: float,
) -> None:
    """Prints the scores and writes them, with what is needed to trust them, beside earlier ones."""
    peak = measure_peak_memory(runtime)  # of all processes
    if not runtime.is_main:
        return
    document = {
        "scored": label,
        "targets": {name: s.as_document() for name, s in scores.items()},
        "model": network.identity,
        "config_hash": config_hash(cfg),
        "seed": cfg.train.seed,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "command": sys.argv,
        "time_sec": round(seconds, 1),
        f"peak_{'gpu_memory' if runtime.device.type == 'cuda' else 'rss'}_bytes": peak,
    }
    path = folder / "metrics.json"
    number = 1
    while cfg.test.evaluate and path.exists():
        number += 1
        path = folder / f"metrics-{number}.json"
    write_atomically(path, json.dumps(document, indent=2) + "\n")
    logger.info("scores of the %s:\n%s", label, format_scores(scores))
    if cameras := format_camera_pairs(scores):
        logger.info("of the queries of a camera (line) in the images of another (column):\n%s", cameras)
    logger.info("%s in %s; results are in %s", path.name, format_duration(seconds), folder)
