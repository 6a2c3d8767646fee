"""From the config to the parts of a search: its super-network and its task."""

from yacs.config import CfgNode

from engine.task import Task
from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from osnet_nas import SuperNet, build_supernet
from search.gumbel import GumbelSearch
from search.paths import GumbelSoftmax, temperature_at
from search.uniform import UniformSearch
from utils.distributed import Runtime


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
