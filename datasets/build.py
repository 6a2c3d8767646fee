"""From the configuration to loaders, with everything checked that can be checked before the first batch."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from yacs.config import CfgNode

from datasets import find_folder, find_reader, point_to_layout, read_data_set
from datasets.base import (
    ReadOptions,
    Sample,
    Splits,
    check_protocol,
    check_training,
    count_identities,
    hash_samples,
    label_like,
    merge_sources,
    training_samples,
)
from datasets.cache import open_cache
from datasets.files import tell_read_errors
from datasets.holdout import HeldOut, check_targets_unseen, hold_out
from datasets.integrity import find_broken
from datasets.loaders import EvalLoader, Preparer, TrainLoader
from datasets.samplers import SAMPLERS, Sampler, SamplerOptions
from datasets.several_splits import choose_split_ids, keep, unite
from datasets.style_shift import SHIFTED, StyleShift
from datasets.transforms import Pipeline
from utils.errors import UserError
from utils.label_names import LabelNames
from utils.log import format_table
from utils.printable import make_printable
from utils.suggest import nearest
from utils.work_share import WHOLE, WorkShare

logger = logging.getLogger(__name__)

_NAMED_FILES = 10  # how many broken files a message names


@dataclass(frozen=True)
class Target:
    """A data set to be tested on.

    Attributes:
        query: Images that are searched for.
        gallery: Images that are searched in.
        splits: Where a mean over several splits is wanted: each of them, by split_id. Then ``query`` and ``gallery``
            hold the images of all splits, each once. Empty: ``query`` and ``gallery`` are the one split.
        names: What the data set's files call people and cameras.
    """

    query: EvalLoader
    gallery: EvalLoader
    splits: Mapping[int, "Target"] = field(default_factory=dict)
    names: LabelNames = field(default_factory=LabelNames)


@dataclass(frozen=True)
class Data:
    """What a run learns from and is judged on.

    Attributes:
        train: Training batches, None in a run without training.
        targets: By data set name, in the configuration's order.
        preparer: Turns a batch into the network's input.
        num_train_pids: Training identities; labels are 0 … num_train_pids - 1.
        sources: The training images of each source, by name.
        held_out: How the sources were divided, None where they were not; its tests are among the targets.
        taught: Batches of held-out cameras' images of trained people, with their labels; None: not asked for.
    """

    train: TrainLoader | None
    targets: dict[str, Target]
    preparer: Preparer
    num_train_pids: int
    sources: Mapping[str, Sequence[Sample]]
    held_out: HeldOut | None = None
    taught: TrainLoader | None = None

    def hash_training_images(self) -> str:
        """Returns what stands for the training images, their labels and their order, and for what was held out."""
        held_out = self.held_out.facts["hash"] if self.held_out else ""
        return (hash_samples([self.train.samples]) if self.train else "") + held_out

    def hash_images(self) -> str:
        """Returns what stands for all images, to compare between processes and machines."""
        tested = [part.samples for target in self.targets.values() for part in (target.query, target.gallery)]
        return self.hash_training_images() + hash_samples(tested)

    def summary(self) -> str:
        """A table of identities, images and cameras of every part."""
        parts = [(name, "train", samples) for name, samples in self.sources.items()]
        for name, target in self.targets.items():
            note = f" of {len(target.splits)} splits" if target.splits else ""
            parts += [(name, f"query{note}", target.query.samples), (name, f"gallery{note}", target.gallery.samples)]
        rows = [
            (name, part, count_identities(samples), len(samples), len({s.camid for s in samples}))
            for name, part, samples in parts
        ]
        return format_table(("data set", "part", "identities", "images", "cameras"), rows)


def build_loaders(
    cfg: CfgNode, device: torch.device, rank: int = 0, world_size: int = 1, share: WorkShare = WHOLE
) -> Data:
    """Builds training and evaluation loaders.

    Args:
        cfg: The frozen configuration.
        device: Where the network is; on a GPU the augmentation runs there too.
        rank: Of this process, from 0.
        world_size: Number of processes.
        share: This process's share of the check of all files.

    Raises:
        UserError: data or settings that cannot work.
    """
    is_divided = cfg.nas.held_out != "none"
    target_names = list(cfg.data.targets) or ([] if is_divided else list(cfg.data.sources))
    splits = read_data_sets(cfg, [*cfg.data.sources, *target_names])
    sources = read_sources(cfg, splits, target_names)
    sources = drop_broken(sources, cfg.data.on_corrupt == "skip", share)
    held_out = _build_held_out(cfg, sources, {name: splits[name] for name in target_names}) if is_divided else None
    sources = held_out.train if held_out else sources
    trained_on = {s.path for images in sources.values() for s in images}
    for name in target_names:
        tested = [*splits[name].query, *splits[name].gallery]
        if shared := sum(s.path in trained_on for s in tested):
            logger.warning(
                "%d of %s's %d test images are trained on: its scores say nothing of new people",
                shared, name, len(tested),
            )  # fmt: skip
    for name, images in sources.items():
        check_training(name, images)
    samples = merge_sources(sources.values())
    num_pids = count_identities(samples)
    if num_pids < 2:
        raise UserError(
            f"the training data ({', '.join(sources)}) has {len(samples)} images of {num_pids} identities; "
            "learning to tell people apart needs at least 2"
        )
    pipeline = Pipeline(cfg.data.transforms, cfg.data.height, cfg.data.width, tuple(cfg.data.norm_mean), cfg.train.seed)
    train = _build_train_loader(cfg, samples, pipeline, device, rank, world_size)
    targets = _build_targets(cfg, {name: splits[name] for name in target_names}, device, rank, world_size, share)
    if held_out:
        load = _build_load(cfg, device, rank, world_size)
        targets = {name: Target(load(t.query), load(t.gallery)) for name, t in held_out.tests.items()} | targets
    taught = None
    if held_out and cfg.nas.alpha_data == "held_out":
        labelled = label_like(held_out.taught, held_out.train)
        if len(labelled) < cfg.train.batch_size:
            raise UserError(
                f"held-out cameras have {len(labelled)} images of trained people, less than train.batch_size "
                f"{cfg.train.batch_size}; lower it, or nas.num_folds"
            )
        taught = _build_train_loader(cfg, labelled, pipeline, device, rank, world_size)
    return Data(train, targets, build_preparer(cfg, pipeline), num_pids, sources, held_out, taught)


def build_targets(
    cfg: CfgNode, device: torch.device, rank: int = 0, world_size: int = 1, share: WorkShare = WHOLE
) -> Data:
    """Builds the evaluation loaders alone, for a run without training; reads nothing of the sources.

    Raises:
        UserError: data or settings that cannot work.
    """
    names = list(cfg.data.targets) or list(cfg.data.sources)
    targets = _build_targets(cfg, read_data_sets(cfg, names), device, rank, world_size, share)
    return Data(None, targets, build_preparer(cfg), 0, {})


def build_preparer(cfg: CfgNode, pipeline: Pipeline | None = None) -> Preparer:
    """Builds what turns batches into the network's input; ``pipeline`` is needed for training on a GPU."""
    return Preparer(tuple(cfg.data.norm_mean), tuple(cfg.data.norm_std), pipeline, cfg.train.channels_last)


def build_sampler(cfg: CfgNode, samples: Sequence[Sample]) -> Sampler:
    """Builds the training sampler that ``sampler.train_sampler`` names.

    Raises:
        UserError: an unknown name, or settings that the data rule out.
    """
    name = cfg.sampler.train_sampler
    if name not in SAMPLERS:
        raise UserError(
            f"sampler.train_sampler: unknown sampler {name!r}{nearest(name, SAMPLERS)}; valid: {', '.join(SAMPLERS)}"
        )
    batch_size, num_instances = cfg.train.batch_size, cfg.sampler.num_instances
    if batch_size > len(samples):
        raise UserError(f"train.batch_size {batch_size} is larger than the {len(samples)} training images; lower it")
    if name == "RandomIdentitySampler" and batch_size % max(1, num_instances):
        raise UserError(f"train.batch_size {batch_size} is no multiple of sampler.num_instances {num_instances}")
    if name == "RandomIdentitySampler" and cfg.loss.name == "triplet" and batch_size < 2 * num_instances:
        raise UserError(
            f"train.batch_size {batch_size} holds images of one identity, the triplet loss needs two: "
            f"{2 * num_instances} or more"
        )
    options = SamplerOptions(cfg.train.seed, batch_size, num_instances, cfg.sampler.num_cams, cfg.sampler.num_datasets)
    return SAMPLERS[name](samples, options)


def read_sources(cfg: CfgNode, splits: Mapping[str, Splits], target_names: Iterable[str]) -> dict[str, list[Sample]]:
    """Returns each source's training images, of as many people as ``data.max_train_ids`` says.

    With ``data.combineall`` its others are training images too, unless it is also a target.

    Raises:
        UserError: a source has fewer people.
    """
    both = [name for name in cfg.data.sources if name in set(target_names)] if cfg.data.combineall else []
    if both:
        logger.info("data.combineall adds no images of %s: they are tested on", ", ".join(both))
    sources = {
        name: training_samples(splits[name], cfg.data.combineall and name not in both) for name in cfg.data.sources
    }
    return {name: _limit_people(name, images, cfg.data.max_train_ids) for name, images in sources.items()}


def _limit_people(name: str, samples: list[Sample], num_people: int) -> list[Sample]:
    """Returns the images of the people with the lowest numbers, of all where ``num_people`` is 0."""
    if num_people == 0:
        return samples
    people = sorted({s.pid for s in samples})
    if num_people > len(people):
        raise UserError(f"data.max_train_ids {num_people}: {name} has {len(people)} people to train on; lower it")
    return [s for s in samples if s.pid <= people[num_people - 1]]


def read_data_sets(cfg: CfgNode, names: Iterable[str]) -> dict[str, Splits]:
    """Reads each of the named data sets once.

    Raises:
        UserError: an unknown name, no name, folders that are missing, or a reader's complaint.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise UserError("data.sources and data.targets are empty; name at least one data set")
    for name in names:
        find_reader(name)
    root, options = Path(cfg.data.root), _build_read_options(cfg)
    with tell_read_errors(root):
        folders = {name: root / folder for name in names if (folder := find_folder(name))}
        missing = [name for name, folder in folders.items() if not folder.is_dir()]
    if missing:
        some = f"{len(missing)} of the {len(names)} data sets" if len(names) > 1 else "the data set"
        raise UserError(
            f"{some} of this run {'are' if len(missing) > 1 else 'is'} not there: "
            f"{', '.join(f'{name} (no folder {folders[name]})' for name in missing)}; put them there, or give "
            f"the folder that holds them with --root; {point_to_layout(missing[0])}"
        )
    return {name: read_data_set(name, root, options) for name in names}


def drop_broken(parts: dict[str, list[Sample]], skip: bool, share: WorkShare = WHOLE) -> dict[str, list[Sample]]:
    """Takes images that cannot be read out of every list.

    Args:
        parts: Lists of samples by a name for messages.
        skip: Go on without the broken images, with a warning that names them.
        share: As in ``find_broken``.

    Raises:
        UserError: there are broken images and ``skip`` is false.
    """
    broken = dict(find_broken(sorted({s.path for samples in parts.values() for s in samples}), share=share))
    if not broken:
        return parts
    named = "; ".join(f"{path} ({reason})" for path, reason in list(broken.items())[:_NAMED_FILES])
    rest = f"; and {len(broken) - _NAMED_FILES} more" if len(broken) > _NAMED_FILES else ""
    message = f"{len(broken)} broken image(s) in {', '.join(parts)}: {named}{rest}"
    if not skip:
        raise UserError(f"{message}; restore the files, or set data.on_corrupt skip to go on without them")
    logger.warning("left out: %s", make_printable(message))
    return {name: [s for s in samples if s.path not in broken] for name, samples in parts.items()}


def _build_train_loader(
    cfg: CfgNode, samples: Sequence[Sample], pipeline: Pipeline, device: torch.device, rank: int, world_size: int
) -> TrainLoader:
    height, width = cfg.data.height, cfg.data.width
    sampler = build_sampler(cfg, samples)
    folder = Path(cfg.data.root) / "image-cache"
    skip = cfg.data.on_corrupt == "skip"
    return TrainLoader(
        samples,
        sampler,
        batch_size=cfg.train.batch_size,
        height=height,
        width=width,
        pipeline=pipeline,
        workers=_count_workers(cfg.data.workers),
        rank=rank,
        world_size=world_size,
        cache=open_cache(cfg.data.cache, [s.path for s in samples], height, width, folder, skip),
        on_corrupt=cfg.data.on_corrupt,
        pin_memory=device.type == "cuda",
        augment_on_device=device.type == "cuda",
    )


def _build_read_options(cfg: CfgNode) -> ReadOptions:
    return ReadOptions(
        split_id=cfg.data.split_id,
        market1501_500k=cfg.market1501.use_500k_distractors,
        cuhk03_labeled=cfg.cuhk03.labeled_images,
        cuhk03_classic_split=cfg.cuhk03.classic_split,
        synthetic=dict(cfg.synthetic),
    )


def _count_workers(wanted: int) -> int:
    """``wanted``, but no more than there are processors: more would only get in each other's way."""
    return min(wanted, len(os.sched_getaffinity(0)))


def _build_held_out(cfg: CfgNode, sources: dict[str, list[Sample]], targets: dict[str, Splits]) -> HeldOut:
    """Divides the sources as ``nas.held_out`` says, and checks that no decision sees a target."""
    held_out = hold_out(sources, cfg.nas.held_out, cfg.nas.fold, cfg.nas.num_folds)
    tested = {name: [*split.query, *split.gallery] for name, split in targets.items()}
    check_targets_unseen(held_out, tested, held_out.facts.get("source"))
    return held_out


def _build_load(cfg: CfgNode, device: torch.device, rank: int, world_size: int) -> partial[EvalLoader]:
    """Builds what makes a loader of a list of test images."""
    return partial(
        EvalLoader,
        batch_size=cfg.test.batch_size,
        height=cfg.data.height,
        width=cfg.data.width,
        workers=_count_workers(cfg.data.workers),
        rank=rank,
        world_size=world_size,
        on_corrupt=cfg.data.on_corrupt,
        pin_memory=device.type == "cuda",
    )


def _build_targets(
    cfg: CfgNode, splits: dict[str, Splits], device: torch.device, rank: int, world_size: int, share: WorkShare
) -> dict[str, Target]:
    load = _build_load(cfg, device, rank, world_size)
    targets = {}
    if cfg.test.num_splits > 1 and splits and not any(first.split_ids for first in splits.values()):
        raise UserError(
            f"test.num_splits is {cfg.test.num_splits}, but {', '.join(splits)} has a single split: leave it at 1"
        )
    for name, first in splits.items():
        of_split = _read_splits(cfg, name, first)
        lists = {
            f"{name} query": unite(part.query for part in of_split.values()),
            f"{name} gallery": unite(part.gallery for part in of_split.values()),
        }
        query, gallery = drop_broken(lists, cfg.data.on_corrupt == "skip", share).values()
        parts = {i: (keep(part.query, query), keep(part.gallery, gallery)) for i, part in of_split.items()}
        for split_id, part in parts.items():
            check_protocol(name if len(parts) == 1 else f"split {split_id} of {name}", *part)
        names = first.names
        several = {i: Target(load(part[0]), load(part[1]), names=names) for i, part in parts.items() if len(parts) > 1}
        targets[name] = Target(load(query), load(gallery), several, names)
        if cfg.test.style_shift and name in cfg.data.sources:
            shift = StyleShift()
            targets[f"{name}{SHIFTED}"] = Target(load(query, shift=shift), load(gallery, shift=shift), names=names)
    return targets


def _read_splits(cfg: CfgNode, name: str, first: Splits) -> dict[int, Splits]:
    """Reads the splits that a target is scored on, by split_id; ``first`` is that of ``data.split_id``."""
    split_ids = choose_split_ids(name, first, cfg.data.split_id, cfg.test.num_splits, cfg.data.sources)
    options, root = _build_read_options(cfg), Path(cfg.data.root)
    others = {i: read_data_set(name, root, replace(options, split_id=i)) for i in split_ids[1:]}
    return {split_ids[0]: first, **others}
