"""From the config to the parts of a search: its super-network, its task, its decision; one line of a table each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from datasets.base import Sample
from datasets.build import Data
from datasets.holdout import NEW
from datasets.loaders import EvalLoader
from engine.safety import explain_faults
from engine.task import Task
from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from osnet_nas import SuperNet, build_supernet
from search.answer import Answer
from search.decide_argmax import decide_argmax
from search.decide_ranking import answer_by_ranking
from search.gumbel import GumbelSearch
from search.paths import GumbelSoftmax, temperature_at
from search.ranking import PROGRESS_NAME, RANKING_ADVICE, Ranker, SubnetTree, compare_features, compute_fingerprint
from search.uniform import UniformSearch
from utils.distributed import Runtime
from utils.match_ranks import MatchRules
from utils.ranking import evaluate_distmat
from utils.run_folder import RunFolder

Costs = Mapping[str, float]
Decide = Callable[[Callable[[], Costs]], Answer]  # every process calls it, given what measures the costs so far
CALIBRATION_IMAGES = 512  # training images whose batch-norm statistics every sub-network takes


@dataclass(frozen=True)
class Method:
    """A search by a super-network: what its steps run, and how the answer follows.

    Attributes:
        build_task: Builds what a step runs.
        build_decision: Builds what finds the answer once the super-network is trained.
        learns_alphas: Whether architecture parameters learn, so that a network can be derived, and scored, at any time.
    """

    build_task: Callable[[CfgNode, Runtime, SuperNet], Task]
    build_decision: Callable[[CfgNode, Runtime, Data, SuperNet, RunFolder], Decide]
    learns_alphas: bool


def build_search_network(cfg: CfgNode, num_classes: int) -> SuperNet:
    """Builds the super-network that the settings name."""
    learns_alphas = METHODS[cfg.nas.method].learns_alphas
    return build_supernet(num_classes, cfg.model.width, cfg.loss.name, cfg.nas.candidates, learns_alphas=learns_alphas)


def build_gumbel_task(cfg: CfgNode, runtime: Runtime, supernet: SuperNet) -> Task:
    """Builds the paper's step."""
    nas = cfg.nas
    schedule = (nas.init_lmda, nas.min_lmda, nas.lmda_decay_step, nas.lmda_decay_rate, nas.fixed_lmda)
    return GumbelSearch(
        supernet,
        relaxation=GumbelSoftmax(),
        temperature=lambda epoch: temperature_at(epoch, *schedule),
        repeats=nas.mc_iter,
        seed=cfg.train.seed,
        runtime=runtime,
        sample_scope=nas.sample_scope,
        block_names=BLOCK_NAMES,
        candidate_names=CANDIDATE_NAMES,
        reaches_all=nas.alpha_data == "train",
    )


def build_uniform_task(cfg: CfgNode, runtime: Runtime, supernet: SuperNet) -> Task:
    """Builds the one-shot search's step."""
    return UniformSearch(
        supernet,
        num_blocks=len(BLOCK_NAMES),
        num_candidates=len(CANDIDATE_NAMES),
        repeats=cfg.nas.mc_iter,
        seed=cfg.train.seed,
        runtime=runtime,
        sample_scope=cfg.nas.sample_scope,
    )


def build_argmax_decision(cfg: CfgNode, runtime: Runtime, data: Data, supernet: SuperNet, folder: RunFolder) -> Decide:
    """Builds the paper's decision."""

    def decide(measure_costs: Callable[[], Costs]) -> Answer:
        return decide_argmax(supernet.alphas.detach().cpu(), supernet.derive(), measure_costs(), cfg.nas.alpha_data)

    return decide


def build_ranking_decision(cfg: CfgNode, runtime: Runtime, data: Data, supernet: SuperNet, folder: RunFolder) -> Decide:
    """Builds the decision by a ranking of all sub-networks; the super-network then derives the found one."""

    def decide(measure_costs: Callable[[], Costs]) -> Answer:
        with explain_faults(runtime, RANKING_ADVICE):
            ranking = build_ranker(cfg, runtime, data, supernet, folder.checkpoints / PROGRESS_NAME).run()
        costs = measure_costs()
        answer = runtime.share(answer_by_ranking(ranking, costs) if runtime.is_main else None)
        supernet.settle(answer.genotype)
        return answer

    return decide


METHODS = {
    "gumbel": Method(build_gumbel_task, build_argmax_decision, learns_alphas=True),
    "uniform": Method(build_uniform_task, build_ranking_decision, learns_alphas=False),
}


def build_ranker(cfg: CfgNode, runtime: Runtime, data: Data, supernet: SuperNet, progress: Path) -> Ranker:
    """Builds the ranking of a trained super-network's paths, all images read; every process must call this.

    Args:
        cfg: The config.
        runtime: Device and processes.
        data: With held-out images.
        supernet: With the weights that it has learnt; it is copied.
        progress: Where the ranking keeps what is done.

    Raises:
        UserError: an image cannot be read, or no query has a match.
    """
    assert data.train is not None
    network = build_search_network(cfg, supernet.classifier.out_features)
    network.load_state_dict(supernet.state_dict())
    if cfg.train.channels_last:
        network.to(memory_format=torch.channels_last)

    def read(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
        """Reads images onto the device, with their people and cameras."""
        loader = EvalLoader(
            samples,
            batch_size=cfg.test.batch_size,
            height=cfg.data.height,
            width=cfg.data.width,
            on_corrupt=cfg.data.on_corrupt,
        )
        parts = [(data.preparer(batch, runtime.device), batch.pids, batch.camids) for batch in loader]
        images, pids, camids = (torch.cat(column) for column in zip(*parts, strict=True))
        return images, pids, camids

    test = data.targets[NEW]
    samples = list(dict.fromkeys([*test.gallery.samples, *test.query.samples]))
    held_out, pids, camids = read(samples)
    calibration, *_ = read(choose_calibration(data.train.samples))
    row_of = {sample: row for row, sample in enumerate(samples)}
    query, gallery = ([row_of[sample] for sample in part.samples] for part in (test.query, test.gallery))
    rules = MatchRules(pids[query], pids[gallery], camids[query], camids[gallery])
    rules.check_matches()
    query = [row for i, row in enumerate(query) if len(rules.split_identity(i)[0])]
    labels = (pids[query], pids[gallery], camids[query], camids[gallery])
    normalize, metric = cfg.test.normalize_feature, cfg.test.dist_metric

    def score(features: Tensor) -> np.ndarray:
        """Scores the rankings that features (N, 512) give; see ``Ranker``."""
        distances = compare_features(features[query], features[gallery], metric, normalize)
        return evaluate_distmat(distances, *labels).average_precision

    facts = (data.hash_training_images(), metric, normalize, len(calibration))
    return Ranker(
        tree=SubnetTree(network.to(runtime.device), calibration, held_out),
        score=score,
        query_pids=pids[query].numpy(),
        runtime=runtime,
        progress=progress,
        fingerprint=compute_fingerprint(supernet, *facts),
    )


def choose_calibration(samples: Sequence[Sample]) -> list[Sample]:
    """Chooses the training images whose statistics batch norms take: always the same ones, of all in equal parts."""
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:CALIBRATION_IMAGES]
    return [samples[i] for i in chosen.sort().values.tolist()]
