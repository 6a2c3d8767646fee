"""The table of settings: each one's default, unit, meaning and range. ``default_config`` merges and checks by it."""

import re
from typing import Any, NamedTuple

from utils.checks import Check, at_least, between, each, each_of_any, not_empty, one_of, positive, three_between

TORCHREID_NAME = re.compile(r"(osnet(?:_ibn|_ain)?)_x(1_0|0_75|0_5|0_25)")  # genotype and width


class Key(NamedTuple):
    """One setting.

    Attributes:
        default: Its type is the setting's; a list's first entry has the type of all entries.
        meaning: What it does, with its unit.
        check: Says what is allowed where a value is not.
        is_path: A ``~`` at its beginning is the home folder.
        is_free: It changes nothing that a run computes, so a run may go on with another value.
    """

    default: Any
    meaning: str
    check: Check = lambda value: ""
    is_path: bool = False
    is_free: bool = False


def network_name(value: str) -> str:
    """Allows this project's two kinds of networks and Torchreid's names of child networks."""
    if value in ("osnet_nas", "osnet_child") or TORCHREID_NAME.fullmatch(value):
        return ""
    return "allowed are osnet_nas, osnet_child and Torchreid's OSNets, such as osnet_x1_0 or osnet_ain_x0_25"


OPTIMISERS = ("adam", "amsgrad", "sgd", "rmsprop", "radam")
SCHEDULES = ("single_step", "multi_step", "cosine")
_count = at_least(1)

KEYS: dict[str, Key] = {
    "use_gpu": Key(True, "use the GPUs that are visible; False: the CPU", is_free=True),
    # model
    "model.name": Key("osnet_nas", "osnet_nas: search; osnet_child: train a child; or Torchreid's name of a child",
                      network_name),
    "model.width": Key(1.0, "channel multiplier", one_of(1.0, 0.75, 0.5, 0.25)),
    "model.stem_norm": Key("instance", "norm of a child's first layer; published genotypes know theirs",
                           one_of("instance", "batch")),
    "model.genotype": Key("", "a search's genotype.json or folder, six digits, or osnet, osnet_ibn, osnet_ain; empty: "
                          "as in osnet_child.py", is_path=True),
    "model.load_weights": Key("", "checkpoint or Torchreid weights to start from or to evaluate", is_path=True),
    "model.resume": Key("", "checkpoint to continue exactly; auto: the newest in data.save_dir, if there is one",
                        is_path=True, is_free=True),
    # architecture search
    "nas.method": Key("gumbel", "gumbel: the paper's; uniform: one path per step, then all 4,096 ranked on held-out "
                      "images; design: a designed experiment", one_of("gumbel", "uniform", "design")),
    "nas.candidates": Key("separate", "of a super-network's blocks: separate; shared: one trunk, four tails of norms",
                          one_of("separate", "shared")),
    "nas.design.recipe": Key("child_short.yaml", "config file by which a design trains children", not_empty,
                             is_path=True),
    "nas.design.runs": Key(32, "trainings of the orthogonal array", one_of(32, 64)),
    "nas.design.extra_runs": Key(0, "trainings of further architectures, drawn at random", between(0, 4000)),
    "nas.design.confirm": Key(6, "architectures that are trained anew, three times each, to choose the best; 0: none",
                              between(0, 4096)),
    "nas.design.jobs": Key(1, "trainings at a time on this machine", _count, is_free=True),
    "nas.design.cluster": Key("", "train on a Ray cluster: auto, or its HOST:PORT; empty: on this machine",
                              is_free=True),
    "nas.design.gpus_per_run": Key(1.0, "GPUs for each training on a Ray cluster; below 1 several share one",
                                   at_least(0), is_free=True),
    "nas.mc_iter": Key(1, "steps with fresh noise or paths on each batch", _count),
    "nas.init_lmda": Key(10.0, "temperature λ of the path weights at the start (gumbel)", positive),
    "nas.min_lmda": Key(1.0, "lowest temperature", positive),
    "nas.lmda_decay_step": Key(20, "epochs between two decays; -1: never", at_least(1, -1)),
    "nas.lmda_decay_rate": Key(0.5, "factor of a decay", between(0, 1)),
    "nas.sample_scope": Key("global", "noise or paths: one sample for all replicas, or one each",
                            one_of("global", "replica")),
    "nas.fixed_lmda": Key(False, "keep the temperature at nas.init_lmda"),
    "nas.alpha_data": Key("train", "what teaches the alphas: train, or held_out cameras' images of trained people",
                          one_of("train", "held_out")),
    "nas.alpha_lr": Key(0.01, "learning rate of alphas that held-out images teach", positive),
    "nas.held_out": Key("none", "sources' images never trained on, which judge: none; cameras (and people); a source",
                        one_of("none", "cameras", "source")),
    "nas.num_folds": Key(4, "parts that the sources' cameras are dealt into", between(2, 15)),
    "nas.fold": Key(0, "which part, or which of the sources, is held out, from 0", at_least(0)),
    # data
    "data.root": Key("reid-data", "folder that holds the data sets' folders", not_empty, is_path=True, is_free=True),
    "data.sources": Key(["market1501"], "data sets to train on", each(lambda v: "")),
    "data.targets": Key(["market1501"], "data sets to test on; []: the sources, but in training with nas.held_out none "
                        "but held-out images"),
    "data.max_train_ids": Key(0, "train on so many people of each source, those with the lowest numbers; 0: all",
                          at_least(0)),
    "data.workers": Key(4, "processes that load images; 0: none", between(0, 1024), is_free=True),
    "data.split_id": Key(0, "which split of a data set that has several", at_least(0)),
    "data.height": Key(256, "input height in pixels", between(32, 4096)),
    "data.width": Key(128, "input width in pixels", between(16, 4096)),
    "data.combineall": Key(False, "train on the query and gallery images of sources that are no targets too"),
    "data.transforms": Key(["random_flip"], "augmentations of training images; none: []"),
    "data.norm_mean": Key([0.485, 0.456, 0.406], "mean of R, G, B in [0, 1] (ImageNet's)", three_between(-10, 10)),
    "data.norm_std": Key([0.229, 0.224, 0.225], "standard deviation of R, G, B (ImageNet's)",
                         three_between(1e-3, 1e3)),
    "data.save_dir": Key("log", "folder for all that the run leaves", not_empty, is_path=True, is_free=True),
    "data.on_corrupt": Key("stop", "unreadable images: stop, or skip them with a warning", one_of("stop", "skip")),
    "data.cache": Key("none", "keep decoded images: none, ram or disk", one_of("none", "ram", "disk"), is_free=True),
    "market1501.use_500k_distractors": Key(False, "add the 500,000 distractors to Market-1501's gallery"),
    "cuhk03.labeled_images": Key(False, "hand-drawn boxes instead of detected ones"),
    "cuhk03.classic_split": Key(False, "the 20 classic splits instead of the 767/700 protocol"),
    "cuhk03.use_metric_cuhk03": Key(False, "CMC with one random gallery image per identity, mean of 10 draws"),
    "synthetic.train_ids": Key(60, "people to train on in each drawn domain", between(2, 5000)),
    "synthetic.test_ids": Key(40, "people to test on in each drawn domain", between(1, 4999)),
    "synthetic.cameras": Key(4, "cameras of a drawn domain", between(2, 9)),
    "synthetic.images_per_camera": Key(4, "images of a person under a camera", between(2, 1000)),
    "synthetic.height": Key(128, "height of a drawn image in pixels", between(32, 1024)),
    "synthetic.width": Key(64, "width of a drawn image in pixels", between(16, 1024)),
    "synthetic.seed": Key(1, "seed of people, cameras and images; a domain keeps its style", between(0, 2147483647)),
    # sampler
    "sampler.train_sampler": Key("RandomSampler", "how training batches are drawn"),
    "sampler.num_instances": Key(4, "images of an identity in a batch (RandomIdentitySampler)", at_least(2)),
    "sampler.num_cams": Key(1, "cameras in a batch (RandomDomainSampler); 0: all", at_least(0)),
    "sampler.num_datasets": Key(1, "sources in a batch (RandomDatasetSampler); 0: all", at_least(0)),
    # training
    "train.optim": Key("adam", "optimiser", one_of(*OPTIMISERS)),
    "train.lr": Key(0.0003, "learning rate", positive),
    "train.weight_decay": Key(5e-4, "L2 penalty", at_least(0)),
    "train.max_epoch": Key(60, "epochs", _count),
    "train.batch_size": Key(32, "images per step over all devices", at_least(2)),
    "train.device_batch": Key(0, "images that pass a device at a time, as if each such part had a device of its own; "
                              "0: all of the device's share; -1: as many of it as fit", at_least(2, 0, -1)),
    "train.recompute": Key("none", "what the backward pass computes again instead of keeping it in memory: none, "
                           "blocks, or candidates (a child's blocks have one each)",
                           one_of("none", "blocks", "candidates"), is_free=True),
    "train.fixbase_epoch": Key(0, "first epochs in which only train.open_layers learn; -1: with model.load_weights 10, "
                               "at most half of them all, from scratch none", at_least(0, -1)),
    "train.open_layers": Key(["classifier"], "layers that learn in those epochs", each(lambda v: "")),
    "train.staged_lr": Key(False, "layers other than train.new_layers learn at train.base_lr_mult × lr"),
    "train.new_layers": Key(["classifier"], "layers at the full learning rate under train.staged_lr",
                            each(lambda v: "")),
    "train.base_lr_mult": Key(0.1, "factor on the other layers' learning rate", at_least(0)),
    "train.lr_scheduler": Key("single_step", "schedule of the learning rate, by epoch", one_of(*SCHEDULES)),
    "train.stepsize": Key([20], "epochs of a decay: every n (single_step), at each (multi_step)", each(_count)),
    "train.gamma": Key(0.1, "factor of a decay", positive),
    "train.print_freq": Key(20, "steps between two lines in the log", _count, is_free=True),
    "train.seed": Key(1, "seed of weights, noise, batches and augmentations", between(0, 2**63 - 1)),
    "train.channels_last": Key(True, "keep feature maps in channels-last layout"),
    "train.amp": Key("off", "mixed precision: off, bf16 or fp16 (with a loss scaler)", one_of("off", "bf16", "fp16")),
    "train.tf32": Key(False, "let NVIDIA GPUs round float32 products to TF32"),
    "train.compile": Key(False, "compile the network with torch.compile"),
    "train.sync_bn": Key(False, "batch norms share their statistics over torchrun's GPUs"),
    "train.clip_grad_norm": Key(0.0, "largest total gradient norm; 0: any", at_least(0)),
    "train.ema_decay": Key(0.0, "decay per step of a child's averaged weights, which are scored; 0: no average",
                           between(0, 0.9999)),
    "train.save_every_min": Key(30.0, "minutes between two saves inside an epoch", positive, is_free=True),
    "train.keep_checkpoints": Key(2, "how many of the newest checkpoints to keep", between(1, 1000), is_free=True),
    "sgd.momentum": Key(0.9, "momentum of sgd and rmsprop", between(0, 1)),
    "sgd.dampening": Key(0.0, "dampening of sgd", between(0, 1)),
    "sgd.nesterov": Key(False, "Nesterov momentum"),
    "rmsprop.alpha": Key(0.99, "smoothing of rmsprop", between(0, 1)),
    "adam.beta1": Key(0.9, "decay of the mean of gradients (adam, amsgrad, radam)", between(0, 0.999999)),
    "adam.beta2": Key(0.999, "decay of the mean of squared gradients", between(0, 0.999999)),
    # loss
    "loss.name": Key("softmax", "softmax: cross-entropy; triplet: batch-hard triplet and cross-entropy",
                     one_of("softmax", "triplet")),
    "loss.softmax.label_smooth": Key(True, "label smoothing of 0.1"),
    "loss.triplet.margin": Key(0.3, "margin between positive and negative distance", at_least(0)),
    "loss.triplet.weight_t": Key(1.0, "weight of the triplet loss", at_least(0)),
    "loss.triplet.weight_x": Key(0.0, "weight of the cross-entropy beside it", at_least(0)),
    # test
    "test.batch_size": Key(100, "images per forward pass", between(1, 100_000), is_free=True),
    "test.dist_metric": Key("euclidean", "distance of features", one_of("euclidean", "cosine")),
    "test.normalize_feature": Key(False, "scale features to length 1 first"),
    "test.ranks": Key([1, 5, 10, 20], "ranks of the CMC curve to show", each(between(1, 1_000_000)), is_free=True),
    "test.evaluate": Key(False, "only evaluate model.load_weights", is_free=True),
    "test.eval_freq": Key(-1, "epochs between two evaluations; -1: only after the last", at_least(1, -1)),
    "test.start_eval": Key(0, "first epoch that is evaluated", at_least(0)),
    "test.eval_epochs": Key([], "epochs to evaluate after, besides those of test.eval_freq", each_of_any(_count)),
    "test.style_shift": Key(False, "score targets that are sources again with each camera's style changed"),
    "test.flip": Key(False, "features are the mean over an image and its mirror image"),
    "test.rerank": Key(False, "k-reciprocal re-ranking of the distances"),
    "test.num_splits": Key(1, "splits to score of each target that has several, from data.split_id on, for mean ± std",
                           _count),
    "test.camera_pairs": Key(False, "show scores for each pair of a query's and a gallery image's camera too",
                             is_free=True),
    "test.visrank": Key(False, "after the last evaluation draw ranked lists (best, worst, random), CMC and distances",
                        is_free=True),
    "test.visrank_topk": Key(10, "length of those lists", between(1, 100), is_free=True),
    "test.visactmap": Key(False, "after the last evaluation draw where the network is active in query images",
                          is_free=True),
}  # fmt: skip
FREE_KEYS = frozenset(name for name, key in KEYS.items() if key.is_free)
# Which images there are: these settings, and those of single data sets.
DATA_KEYS = (
    *("data.root", "data.sources", "data.combineall", "data.max_train_ids", "data.split_id", "data.on_corrupt"),
    *(name for name in KEYS if name.startswith(("market1501.", "cuhk03.", "synthetic."))),
)

# Torchreid's settings that this project does without: accepted at the value that changes nothing.
REFUSED: dict[str, tuple[Any, str]] = {
    "model.pretrained": (False, "no weights are downloaded; give a file as model.load_weights"),
    "data.type": ("image", "this project reads images, not video"),
    "data.k_tfm": (1, "each image is augmented once per step"),
    "data.load_train_targets": (False, "there is no training on unlabelled targets; list them in data.sources"),
    "sampler.train_sampler_t": ("RandomSampler", "there is no training on unlabelled targets"),
    "train.start_epoch": (0, "model.resume continues at the right epoch by itself"),
}
