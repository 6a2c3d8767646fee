"""What main.py runs: a search, a child's training, or an evaluation.

``build_job`` makes everything from the config; ``run`` then does one of three things, each readable here in order.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from yacs.config import CfgNode

from build import (
    Network,
    build_evaluated,
    build_fitting_step,
    build_network,
    build_pictures,
    build_resumed,
    build_scorer,
    build_trainer,
    check_derives,
    check_identity,
    load_weights,
)
from build_search import METHODS, Decide
from command_line import build_next_steps, write_command
from datasets.build import Data, build_loaders, build_targets
from default_config import continue_settings, flatten, settle
from engine.announce import describe_first_epochs, describe_run, describe_work, log_lines, log_next_steps
from engine.footprint import Forecast
from engine.interrupt import StopRequest
from engine.memory import measure_peak_memory
from engine.metrics import RunFacts, format_metrics, list_versions
from engine.pictures import Pictures
from engine.scorer import Scorer
from engine.scores import Scores, format_camera_pairs, format_scores
from engine.trainer import Trainer
from experiment import identify_experiment
from osnet_child import ChildNet
from osnet_nas import SuperNet
from search.paths import GumbelSoftmax
from utils.complexity import compute_complexity
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import format_duration
from utils.network_file import NetworkFile, read_network_file
from utils.run_folder import EVALUATION_LOG, PLAN_NAME, TRAIN_LOG, RunFolder
from utils.seed import seed_everything

# what only a search needs (statsmodels, matplotlib) is imported where it is used: a design starts dozens of trainings
if TYPE_CHECKING:
    from search.design import DesignedSearch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run, built and checked.

    Attributes:
        folder: Where everything goes.
        runtime: Device and processes.
        data: What is learnt from and tested on.
        network: The super-network or the child.
        scorer: Scores it.
        trainer: Trains it; None in an evaluation.
        memory: What a step of that will need; None in an evaluation.
        pictures: Collects what pictures show; None for none.
        facts: What identifies the run.
        config: The merged settings, as YAML.
        input_size: Height and width of the network's input, px.
        found: What a genotype's file says of how it was found, beside what the search itself knows.
        decide: Finds a search's answer once its super-network is trained; None where nothing is searched.
        notes: Lines for the log's beginning.
        next_steps: Command lines to go on with, by what they do.
        started: ``time.monotonic()`` at its start.
    """

    folder: RunFolder
    runtime: Runtime
    data: Data
    network: Network
    scorer: Scorer
    trainer: Trainer | None
    memory: Forecast | None
    pictures: Pictures | None
    facts: RunFacts
    config: str
    input_size: tuple[int, int]
    found: Mapping[str, Any]
    decide: Decide | None
    notes: Sequence[str]
    next_steps: Mapping[str, str]
    started: float


@dataclass(frozen=True)
class DesignJob:
    """A designed search, built and checked; its trainings are jobs of their own, in processes of their own.

    Attributes:
        folder: Where everything goes.
        search: What is trained and how the answer follows.
        facts: What identifies the run.
        config: The merged settings, as YAML.
        found: What a genotype's file says of how it was found, beside what the search itself knows.
        next_steps: Command lines to go on with, by what they do.
    """

    folder: RunFolder
    search: "DesignedSearch"
    facts: RunFacts
    config: str
    found: Mapping[str, Any]
    next_steps: Mapping[str, str]


def run(job: Job | DesignJob) -> None:
    """Runs what was built and leaves everything in its folder.

    Raises:
        UserError: a user error that could not be found before.
        engine.interrupt.Interrupted: a signal asked to stop; the run is saved.
    """
    if isinstance(job, DesignJob):
        run_design(job)
    elif job.trainer is None:
        run_evaluation(job)
    elif job.decide is not None:
        run_search(job, job.trainer, job.decide)
    else:
        run_training(job, job.trainer)


def run_search(job: Job, trainer: Trainer, decide: Decide) -> None:
    """Trains the super-network, finds the answer, scores the network found with the weights that it has there."""
    start(job)
    scores = train(trainer)
    answer = decide(lambda: measure_costs(job, trainer))
    if job.folder.writes:
        from search.ending import collect_trajectories, conclude
        from search.report import ReportData

        shown = ReportData(job.facts.command, job.config, collect_trajectories(job.folder.path))
        conclude(job.folder.path, answer, job.found, shown)
    report(job, scores or job.scorer.score(job.pictures))


def run_design(job: DesignJob) -> None:
    """Trains the children that a design asks for, and answers."""
    from search.ending import collect_budgets, conclude, list_trials
    from search.report import ReportData

    job.folder.prepare()
    log_lines(describe_run(job.facts))
    job.search.keep_plan()
    job.folder.write("config.yaml", job.config)
    answer, results = job.search.run()
    shown = ReportData(job.facts.command, job.config, collect_budgets(results), {"Trainings": list_trials(results)})
    conclude(job.folder.path, answer, job.found, shown)
    log_next_steps(job.next_steps)


def run_training(job: Job, trainer: Trainer) -> None:
    """Trains a child and scores it."""
    start(job)
    scores = train(trainer)
    report(job, scores)


def run_evaluation(job: Job) -> None:
    """Scores a trained network."""
    start(job)
    scores = job.scorer.score(job.pictures)
    report(job, scores)


def start(job: Job) -> None:
    """Opens the folder and its log, and says what runs where on which data, and how much work that is."""
    job.folder.prepare()
    log_lines([*describe_run(job.facts), *job.notes])
    if job.folder.trains:
        job.folder.write("config.yaml", job.config)
        if job.data.held_out:
            job.folder.write("holdout.json", json.dumps(job.data.held_out.facts, indent=2) + "\n")
    logger.info("%s", job.data.summary())
    logger.info("%s", describe_network(job.network, *job.input_size))
    runtime = job.runtime
    where = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "CPU"
    logger.info("running on %s, %d process(es) × %d replica(s)", where, runtime.world_size, runtime.replicas)
    logger.info("%s", describe_work(job.trainer, job.scorer.targets))
    if job.memory:
        logger.log(logging.INFO if job.memory.fits else logging.WARNING, "%s", job.memory.text)


def train(trainer: Trainer) -> dict[str, Scores]:
    """Trains to the end; a finished run is only scored, if its trainer scores."""
    progress = trainer.progress
    is_trained = progress.epoch == trainer.settings.max_epoch
    if is_trained:
        logger.info("already trained to epoch %d%s", progress.epoch, ", only scored now" if trainer.evaluate else "")
    elif progress.epoch or progress.batch:
        logger.info("continuing at epoch %d, batch %d", progress.epoch + 1, progress.batch + 1)
    else:
        logger.info("%s", describe_first_epochs(trainer.settings, trainer.config["model.load_weights"]))
    if is_trained and trainer.evaluate:
        return trainer.evaluate()
    return trainer.fit()


def measure_costs(job: Job, trainer: Trainer) -> dict[str, float]:
    """Returns what a search has cost so far; see ``Answer``."""
    return {
        "seconds": trainer.seconds,
        "image_passes": trainer.image_passes,
        "peak_memory_bytes": measure_peak_memory(job.runtime),
    }


def report(job: Job, scores: Mapping[str, Scores]) -> None:
    """Prints the scores and writes them, with what is needed to trust them, beside earlier ones; then the pictures."""
    peak = measure_peak_memory(job.runtime)  # of all processes
    if not job.folder.writes:
        return
    seconds = job.trainer.seconds if job.trainer else time.monotonic() - job.started
    passes = job.trainer.image_passes if job.trainer else 0
    name, label = job.folder.choose_metrics_name(), job.scorer.label
    text = format_metrics(
        job.facts, label, scores, job.runtime, seconds=seconds, image_passes=passes, peak_memory_bytes=peak
    )
    job.folder.write(name, text)
    logger.info("scores of the %s:\n%s", label, format_scores(scores))
    if cameras := format_camera_pairs(scores, {name: target.names for name, target in job.scorer.targets.items()}):
        logger.info("of the queries of a camera (line), named as in the files, in the images of another:\n%s", cameras)
    logger.info("%s in %s; results are in %s", name, format_duration(seconds), job.folder.path)
    if job.pictures:
        job.pictures.write(job.folder.path)
    log_next_steps(job.next_steps)


def describe_network(network: Network, height: int, width: int) -> str:
    """Says what a network is, its size and its cost for an image of this size in px."""
    model = network.model
    if isinstance(model, ChildNet):
        title = f"child network x{network.identity['width']:g}, stem norm {model.stem_norm}:\n{model.genotype}"
        complexity = compute_complexity(model, height, width)
    else:
        title = f"super-network x{network.identity['width']:g}, all four candidates in each block"
        complexity = compute_complexity(model, height, width, [GumbelSoftmax().most_probable(model.alphas)])
    return f"{title}\n{complexity} at {height}×{width}"


def build_job(
    cfg: CfgNode, runtime: Runtime, stop: StopRequest, command: Sequence[str], explicit: Collection[str] = ()
) -> Job | DesignJob:
    """Builds a run from the config and checks all that can be checked before the first batch.

    Args:
        cfg: The frozen config.
        runtime: Device and processes.
        stop: Is handed where the run's newest checkpoint will be, and how to continue from it.
        command: The command line, for the log and ``metrics.json``.
        explicit: Settings that the command line gives, which weights to evaluate must agree with.

    Raises:
        UserError: a user error.
    """
    if cfg.nas.method == "design" and cfg.model.name == "osnet_nas":
        return build_design_job(cfg, runtime, stop, command)
    started, notes = time.monotonic(), list[str]()
    if not runtime.is_main:
        logging.getLogger().setLevel(logging.ERROR)  # while every process says the same
    folder = build_folder(cfg, runtime, stop, command)
    seed_everything(cfg.train.seed)
    torch.set_float32_matmul_precision("high" if cfg.train.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = cfg.train.tf32
    checkpoint = runtime.share(build_resumed(cfg, folder) if runtime.is_main else None)
    if not folder.is_free_for(cfg.model.resume, checkpoint is not None):
        folder.refuse_earlier_run()
    file = read_network_file(cfg.model.load_weights) if cfg.model.load_weights and checkpoint is None else None
    if cfg.test.evaluate and file is not None:
        cfg, notes = build_evaluated(cfg, file, explicit)
    # a search's network is scored after its BN statistics are recalibrated, which takes training images
    needs_training_data = folder.trains or cfg.model.name == "osnet_nas"
    build_data = build_loaders if needs_training_data else build_targets
    data = build_data(cfg, runtime.device, runtime.rank, runtime.world_size, runtime.share_of_machine)
    if len(set(runtime.gather(data.hash_images()))) > 1:
        raise UserError("the processes see different images; every machine needs the same files below data.root")
    network = build_started_network(cfg, data, file)
    pictures = build_pictures(cfg, data) if runtime.is_main else None
    step, memory, trainer = None, None, None
    if folder.trains:
        step, memory = build_fitting_step(cfg, runtime, data, network, checkpoint)
        cfg = settle(cfg, "train.device_batch", memory.device_batch)
    scorer = build_scorer(cfg, runtime, data, network, step)
    settings = flatten(cfg) if checkpoint is None else continue_settings(cfg, checkpoint["config"])
    if step is not None:
        trainer = build_trainer(cfg, runtime, data, network, step, scorer, stop, settings, pictures)
        if checkpoint is not None:
            check_identity(network, checkpoint, cfg.model.resume)
            trainer.check_state(checkpoint, cfg.model.resume)
            trainer.load_state(checkpoint)
    experiment = identify_experiment(settings, network.identity, data.hash_images())
    facts = RunFacts(experiment, cfg.train.seed, command, network.identity)
    found = build_found(cfg, facts, data.hash_training_images())
    decide = build_decision(cfg, runtime, data, network, folder)
    return Job(
        folder, runtime, data, network, scorer, trainer, memory, pictures, facts, cfg.dump(),
        (cfg.data.height, cfg.data.width), found, decide, notes, build_next_steps(cfg, command[1:]), started,
    )  # fmt: skip


def build_folder(cfg: CfgNode, runtime: Runtime, stop: StopRequest, command: Sequence[str]) -> RunFolder:
    """Builds the run's folder, keeps other runs out of it, and tells ``stop`` how the run can be continued.

    Raises:
        UserError: another run is writing to it.
    """
    log_name = EVALUATION_LOG if cfg.test.evaluate else TRAIN_LOG
    folder = RunFolder(Path(cfg.data.save_dir), log_name, writes=runtime.is_main)
    stop.last = folder.checkpoints / "last.pt" if folder.trains else None
    stop.resume = write_command(command[1:], {"model.resume": "auto"})
    if runtime.world_size > 1:
        stop.resume = f"torchrun as before and {stop.resume.removeprefix('python ')}"
    stop.announce = runtime.is_main
    folder.lock_if_started()
    return folder


def build_started_network(cfg: CfgNode, data: Data, file: NetworkFile | None) -> Network:
    """Builds the network with what it starts from: random weights or a file's.

    Raises:
        UserError: a file that does not fit, or that nothing can be derived from.
    """
    network = build_network(cfg, max(data.num_train_pids, 1))
    if file is not None:
        load_weights(network, file)
    if cfg.test.evaluate:
        check_derives(network, cfg.model.load_weights)
    return network


def build_decision(cfg: CfgNode, runtime: Runtime, data: Data, network: Network, folder: RunFolder) -> Decide | None:
    """Builds what finds a search's answer; None for a child."""
    if not isinstance(network.model, SuperNet):
        return None
    import search.ending  # noqa: F401 - now, lest it fail after hours of training

    return METHODS[cfg.nas.method].build_decision(cfg, runtime, data, network.model, folder)


def build_design_job(cfg: CfgNode, runtime: Runtime, stop: StopRequest, command: Sequence[str]) -> DesignJob:
    """Builds a designed search.

    Raises:
        UserError: a user error.
    """
    from build_design import build_design

    if runtime.world_size > 1:
        raise UserError("nas.method design starts its trainings itself; start it without torchrun")
    if cfg.model.resume not in ("", "auto"):
        raise UserError("nas.method design goes on in its own folder by itself; leave model.resume out")
    folder = RunFolder(Path(cfg.data.save_dir), TRAIN_LOG)
    folder.lock_if_started()
    if not (folder.path / PLAN_NAME).exists():
        folder.refuse_earlier_run()
    stop.goes_on = True
    search, trial_cfg, images = build_design(cfg, folder.path)
    network = {"recipe": search.conditions["settings"]}
    facts = RunFacts(identify_experiment(flatten(cfg), network, images), cfg.train.seed, command, network)
    steps = build_next_steps(cfg, command[1:], trial_cfg)
    found = build_found(trial_cfg, facts, images)
    return DesignJob(folder, search, facts, cfg.dump(), found, steps)


def build_found(cfg: CfgNode, facts: RunFacts, images: str) -> dict[str, Any]:
    """Builds what a genotype's file says of the search that found it.

    Args:
        cfg: Of the training that the search rests on.
        facts: What identifies the search.
        images: Stands for the images that were trained on.
    """
    return {
        "sources": list(cfg.data.sources),
        "epochs": cfg.train.max_epoch,
        "width": cfg.model.width,
        "seed": facts.seed,
        "experiment": facts.experiment,
        "training_images": images,
        **list_versions(),
    }
