"""Torchreid's weights in and out: one map between its parameter names and ours, for children and super-networks.

The map works on the names of a state dict alone, so one function serves both directions: ``rename_to_torchreid`` names
the network's own tensors as Torchreid does, export clones them, and import copies a file's tensors over them. Torchreid
has two naming schemes: ``ain`` (OSNet-AIN, children, super-networks) and ``osnet`` (plain OSNet and OSNet-IBN).

Source of the names: Torchreid (arXiv 1910.10093), https://github.com/KaiyangZhou/deep-person-reid, commit f8cd150.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genotype import BLOCK_NAMES, STAGES, Genotype
from utils.checkpoint import read_tensors
from utils.errors import UserError

logger = logging.getLogger(__name__)

SCHEMES = ("ain", "osnet")

_PREFIXES = tuple(f"{stage}.{i}." for stage in STAGES for i in (0, 1))  # of the six blocks, ours and Torchreid's

_OURS_TO_AIN = (
    (r"^(conv1|conv5)\.norm\.", r"\1.bn."),
    (r"^(pool[23])\.conv\.", r"\1.0.conv."),
    (r"^(pool[23])\.norm\.", r"\1.0.bn."),
    (r"\.candidates\.", ".os_block."),
    (r"\.reduce\.conv\.", ".conv1.conv."),
    (r"\.reduce\.norm\.", ".conv1.bn."),
    (r"\.streams\.(\d)\.(\d)\.pointwise\.", r".conv2.\1.layers.\2.conv1."),
    (r"\.streams\.(\d)\.(\d)\.depthwise\.", r".conv2.\1.layers.\2.conv2."),
    (r"\.streams\.(\d)\.(\d)\.norm\.", r".conv2.\1.layers.\2.bn."),
    (r"\.expand\.", ".conv3.conv."),
    (r"\.downsample\.0\.", ".downsample.conv."),
    (r"\.downsample\.1\.", ".downsample.bn."),
)
_AIN_TO_OSNET = (
    (r"\.conv2\.0\.layers\.0\.", ".conv2a."),
    (r"\.conv2\.1\.layers\.", ".conv2b."),
    (r"\.conv2\.2\.layers\.", ".conv2c."),
    (r"\.conv2\.3\.layers\.", ".conv2d."),
    (r"^pool([23])\.0\.", r"conv\1.2.0."),
)
_NORMS_TO_CANDIDATE = {  # a child block's norms after its last convolution, as Torchreid names them
    frozenset({"conv3.bn"}): "OSBlock",
    frozenset({"IN"}): "OSBlockINv1",
    frozenset({"conv3.bn", "IN"}): "OSBlockINv2",
    frozenset({"IN_in", "IN_out"}): "OSBlockINv3",
}
_CLASSIFIER = ("classifier.weight", "classifier.bias")
_NUM_SHOWN = 3


class _Ignored:
    """Stands in for the NumPy scalars of a training checkpoint (its scores), so that no code of NumPy's runs."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_IGNORED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
    )
]


class TorchreidNetwork(NamedTuple):
    """What a set of Torchreid's weights says about its network."""

    genotype: Genotype | None  # None: a super-network
    stem_norm: str  # "batch" or "instance"
    stem_channels: int  # 64 at width 1.0
    num_classes: int | None  # None: stored without a classifier


def load_torchreid_weights(
    model: nn.Module, source: str | Path | Mapping[str, Any], *, origin: str = "weights", with_classifier: bool = True
) -> None:
    """Loads Torchreid's weights into a child or a super-network; all or nothing.

    Every tensor must fit, but for the classifier: one of another size, or none, leaves the network's own as it is.
    Counters of batches (``num_batches_tracked``), which files older than PyTorch 0.4.1 lack, may be missing.

    Args:
        model: From ``build_child`` or ``build_supernet``, any floating type, device and memory layout.
        source: A file, new or legacy torch format, or its content: Torchreid's names → tensors, under either naming
            scheme, with or without ``module.`` before the names and ``{"state_dict": …}`` around them.
        origin: What messages call a file's content; a file is called by its path.
        with_classifier: False: the network keeps its own, whatever the weights hold.

    Raises:
        UserError: the file cannot be read or holds code (which is not run), the weights are of another architecture,
            or a tensor is missing, left over or of another shape. The model is then unchanged.
    """
    origin = origin if isinstance(source, Mapping) else str(source)
    weights = read_torchreid_weights(source, origin)
    state = model.state_dict()
    namings = [rename_to_torchreid(state, scheme) for scheme in SCHEMES]
    ours = max(namings, key=lambda naming: len(naming.keys() & weights.keys()))
    if not (ours.keys() & weights.keys()) - set(_CLASSIFIER):
        raise UserError(f"{origin}: no tensor has a name that Torchreid's OSNet has; the first are {_first(weights)}")
    _check_architecture(origin, weights, ours)
    skipped = _classifier_to_skip(weights, ours) if with_classifier else set(_CLASSIFIER)
    _check_tensors(
        origin,
        {name: tensor for name, tensor in weights.items() if name not in skipped},
        {name: tensor for name, tensor in ours.items() if name not in skipped},
    )
    loaded = [name for name in ours if name in weights and name not in skipped]
    with torch.no_grad():
        for name in loaded:
            ours[name].copy_(weights[name])
    told = _describe_skipped(skipped, weights, ours) if with_classifier else ""
    logger.info("%s: %d tensors loaded%s", origin, len(loaded), told)


def export_torchreid_weights(model: nn.Module, scheme: str = "ain") -> dict[str, Tensor]:
    """Returns a copy of a network's weights on the CPU under Torchreid's names.

    Args:
        model: A child or a super-network.
        scheme: ``ain``, or ``osnet`` for what Torchreid's plain OSNet and OSNet-IBN load.

    Raises:
        UserError: ``scheme`` is unknown, or Torchreid has no such network under it.
    """
    if scheme not in SCHEMES:
        raise UserError(f"naming scheme {scheme!r}: allowed are {', '.join(SCHEMES)}")
    renamed = rename_to_torchreid(model.state_dict(), scheme)
    if scheme == "osnet":
        genotype = describe_torchreid_weights(renamed).genotype
        if genotype not in (Genotype.named("osnet"), Genotype.named("osnet_ibn")):
            raise UserError("naming scheme 'osnet' is for osnet and osnet_ibn; use 'ain' for every other network")
    return {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in renamed.items()}


def rename_to_torchreid(state: Mapping[str, Tensor], scheme: str = "ain") -> dict[str, Tensor]:
    """Returns a state dict of this project under Torchreid's names; the tensors are the same ones, not copies.

    The rows of ``alphas`` become one tensor a block. A name that is not of this project stays as it is.

    Raises:
        UserError: of a super-network with shared candidates, which Torchreid lacks.
    """
    if any(".shared." in name for name in state):
        raise UserError(
            "Torchreid's super-networks have separate candidates: the weights of one with nas.candidates shared can "
            "neither come from a file of Torchreid's nor go into one"
        )
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "alphas":
            renamed |= {f"{prefix}weights": row for prefix, row in zip(_PREFIXES, tensor, strict=True)}
        else:
            renamed[_rename(name, state, scheme)] = tensor
    return renamed


def read_torchreid_weights(source: str | Path | Mapping[str, Any], origin: str = "weights") -> dict[str, Tensor]:
    """Reads a file's weights onto the CPU, without wrapper and ``module.``; see ``load_torchreid_weights``.

    Raises:
        UserError: the file cannot be read, holds code, or holds something else than tensors by name.
    """
    if isinstance(source, Mapping):
        document = source
    else:
        origin = str(source)
        with torch.serialization.safe_globals(_IGNORED_GLOBALS):
            document = read_tensors(source)
    content = document.get("state_dict", document) if isinstance(document, Mapping) else document
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{origin}: expected tensors by name, got {'nothing' if content == {} else type(content).__name__}"
        )
    weights = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{origin}: expected tensors by name, but {name!r} is a {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(f"{origin}: {name} holds no plain numbers ({tensor.layout}, {tensor.device})")
        weights[name.removeprefix("module.")] = tensor.detach()
    return weights


def describe_torchreid_weights(weights: Mapping[str, Tensor]) -> TorchreidNetwork:
    """Finds out which network weights belong to, by Torchreid's names of either scheme.

    Raises:
        UserError: they are not of an OSNet.
    """
    stem, classifier = weights.get("conv1.conv.weight"), weights.get("classifier.weight")
    blocks = _name_blocks(weights)
    is_supernet = _is_supernet(weights)
    if stem is None or stem.ndim != 4 or not (is_supernet or all(blocks)):
        raise UserError(f"not the weights of one of Torchreid's OSNets; the first are {_first(weights)}")
    return TorchreidNetwork(
        genotype=None if is_supernet else Genotype.from_blocks([name for name in blocks if name is not None]),
        stem_norm=_name_stem_norm(weights),
        stem_channels=stem.shape[0],
        num_classes=None if classifier is None or classifier.ndim != 2 else classifier.shape[0],
    )


def _rename(name: str, names: Collection[str], scheme: str) -> str:
    """Maps one of our names to Torchreid's; ``names`` are all of ours, which say where a block has its norms."""
    block, dot, rest = name.partition(".norm_")
    if dot:
        kind, _, key = rest.partition(".")
        if f"{block}.norm_inside.running_mean" in names:
            norm = "conv3.bn" if kind == "inside" else "IN"
        elif f"{block}.norm_outside.weight" in names:
            norm = "IN_in" if kind == "inside" else "IN_out"
        else:
            norm = "IN"
        name = f"{block}.{norm}.{key}"
    for pattern, replacement in _OURS_TO_AIN:
        name = re.sub(pattern, replacement, name)
    if scheme == "osnet":
        for pattern, replacement in _AIN_TO_OSNET:
            name = re.sub(pattern, replacement, name)
    return name


def _is_supernet(names: Collection[str]) -> bool:
    return any(".os_block." in name for name in names)


def _name_stem_norm(names: Collection[str]) -> str:
    return "batch" if "conv1.bn.running_mean" in names else "instance"


def _name_blocks(names: Collection[str]) -> list[str | None]:
    """Returns a child's six candidates by its Torchreid names, None where they say none."""
    norms = {norm for candidate in _NORMS_TO_CANDIDATE for norm in candidate}
    found = []
    for prefix in _PREFIXES:
        has = frozenset(norm for norm in norms if any(name.startswith(f"{prefix}{norm}.") for name in names))
        found.append(_NORMS_TO_CANDIDATE.get(has))
    return found


def _check_architecture(origin: str, weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Raises UserError where two sets of Torchreid names belong to networks with other norms."""
    if _is_supernet(weights) != _is_supernet(ours):
        kinds = ("a super-network", "a child") if _is_supernet(weights) else ("a child", "a super-network")
        raise UserError(f"{origin}: the weights are of {kinds[0]}, the network is {kinds[1]}")
    differing = []
    if not _is_supernet(ours):
        for block, theirs, own in zip(BLOCK_NAMES, _name_blocks(weights), _name_blocks(ours), strict=True):
            if theirs is not None and theirs != own:
                differing.append(f"{block} is {theirs} in the weights and {own} in the network")
    if differing:
        told = "; ".join(differing)
        raise UserError(f"{origin}: another genotype: {told}; build the network with the weights' genotype")
    stems = _name_stem_norm(weights), _name_stem_norm(ours)
    if stems[0] != stems[1] and "conv1.conv.weight" in weights:
        raise UserError(f"{origin}: the stem norm is {stems[0]} in the weights and {stems[1]} in the network")


def _classifier_to_skip(weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> set[str]:
    """Returns the classifier's names when it is missing or of another number of identities, else nothing."""
    parts = [(weights.get(name), ours[name]) for name in _CLASSIFIER]
    if all(theirs is None for theirs, _ in parts):
        return set(_CLASSIFIER)
    if any(theirs is None or theirs.shape[1:] != own.shape[1:] for theirs, own in parts):
        return set()  # an error: half a classifier, or for other features
    return set(_CLASSIFIER) if any(theirs.shape != own.shape for theirs, own in parts if theirs is not None) else set()


def _check_tensors(origin: str, weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Raises UserError unless ``weights`` has a fitting tensor for each of ``ours`` and no other."""
    missing = [name for name in ours if name not in weights and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in weights if name not in ours]
    misfits = [
        f"{name} ({_describe(weights[name])} in the weights, {_describe(own)} in the network)"
        for name, own in ours.items()
        if name in weights and _describe(weights[name]) != _describe(own)
    ]
    problems = (("missing", missing), ("not of this network", unexpected), ("of another shape or kind", misfits))
    told = [f"{len(names)} {problem}: {_first(names)}" for problem, names in problems if names]
    if told:
        raise UserError(f"{origin}: the weights do not fit the network: {'; '.join(told)}; check width and genotype")


def _describe(tensor: Tensor) -> str:
    """Writes shape and type of number; all floating types are one."""
    shape = "×".join(map(str, tensor.shape)) or "scalar"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"


def _describe_skipped(skipped: set[str], weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    if not skipped:
        return ""
    if _CLASSIFIER[0] not in weights:
        return "; they have no classifier, the network keeps its own"
    sizes = weights[_CLASSIFIER[0]].shape[0], ours[_CLASSIFIER[0]].shape[0]
    return f"; their classifier is for {sizes[0]} identities, the network keeps its own for {sizes[1]}"


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - _NUM_SHOWN} more" if len(listed) > _NUM_SHOWN else ""
    return ", ".join(listed[:_NUM_SHOWN]) + rest
