"""From the config to the parts of a search: its super-network, its task, its ranking."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from datasets.base import Sample
from datasets.build import Data
from datasets.holdout import NEW
from datasets.loaders import EvalLoader
from engine.task import Task
from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from osnet_nas import SuperNet, build_supernet
from search.gumbel import GumbelSearch
from search.paths import GumbelSoftmax, temperature_at
from search.ranking import Ranker, SubnetTree, compare_features, compute_fingerprint
from search.uniform import UniformSearch
from utils.distributed import Runtime
from utils.match_ranks import MatchRules
from utils.ranking import evaluate_distmat

CALIBRATION_IMAGES = 512  # training images whose batch-norm statistics every sub-network takes


def build_search_network(cfg: CfgNode, num_classes: int) -> SuperNet:
    """Builds the super-network that the settings name; only where the paths are Gumbel's there are alphas to learn."""
    learns_alphas = cfg.nas.method != "uniform"
    return build_supernet(num_classes, cfg.model.width, cfg.loss.name, cfg.nas.candidates, learns_alphas=learns_alphas)


def build_search_task(cfg: CfgNode, runtime: Runtime, supernet: SuperNet) -> Task:
    """Builds what a search's steps run, from the ``nas`` settings."""
    nas = cfg.nas
    if nas.method == "uniform":
        return UniformSearch(
            supernet,
            num_blocks=len(BLOCK_NAMES),
            num_candidates=len(CANDIDATE_NAMES),
            repeats=nas.mc_iter,
            seed=cfg.train.seed,
            runtime=runtime,
            sample_scope=nas.sample_scope,
        )
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
