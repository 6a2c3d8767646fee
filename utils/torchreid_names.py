"""One map between this project's parameter names and Torchreid's, and what Torchreid's names say about a network.

The map works on the names of a state dict alone, so one function serves both directions. Torchreid has two naming
schemes: ``ain`` (OSNet-AIN, children, super-networks) and ``osnet`` (plain OSNet and OSNet-IBN).

Source of the names: Torchreid (arXiv 1910.10093), https://github.com/KaiyangZhou/deep-person-reid, commit f8cd150.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor

from genotype import BLOCK_NAMES, NAMED_STEM_NORMS, STAGES, Genotype
from utils.errors import UserError
from utils.weight_check import list_first

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


class TorchreidNetwork(NamedTuple):
    """What a set of Torchreid's weights says about its network."""

    genotype: Genotype | None  # None: a super-network
    stem_norm: str  # "batch" or "instance"
    stem_channels: int  # 64 at width 1.0
    num_classes: int | None  # None: stored without a classifier

    @property
    def scheme(self) -> str:
        """The naming scheme under which Torchreid loads it."""
        names = [name for name in ("osnet", "osnet_ibn") if self.genotype == Genotype.named(name)]
        return "osnet" if any(self.stem_norm == NAMED_STEM_NORMS[name] for name in names) else "ain"


def rename_to_torchreid(state: Mapping[str, Tensor], scheme: str = "ain") -> dict[str, Tensor]:
    """Returns a state dict of this project under Torchreid's names; the tensors are the same ones, not copies.

    The rows of ``alphas`` become one tensor per block. A name that is not of this project stays as it is.

    Raises:
        UserError: ``alphas`` has another number of rows than there are blocks, or the weights are of a super-network
            with shared candidates, which Torchreid lacks.
    """
    if any(".shared." in name for name in state):
        raise UserError(
            "Torchreid's super-networks have separate candidates: the weights of one with nas.candidates shared can "
            "neither come from a file of Torchreid's nor go into one"
        )
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "alphas":
            if tensor.ndim != 2 or len(tensor) != len(_PREFIXES):
                raise UserError(f"alphas: {tuple(tensor.shape)} in the weights, {len(_PREFIXES)} rows are needed")
            renamed |= {f"{prefix}weights": row for prefix, row in zip(_PREFIXES, tensor, strict=True)}
        else:
            renamed[_rename(name, state, scheme)] = tensor
    return renamed


def describe_torchreid_weights(weights: Mapping[str, Tensor]) -> TorchreidNetwork:
    """Finds out which network weights belong to, by Torchreid's names of either scheme.

    Raises:
        UserError: they are not of an OSNet.
    """
    stem, classifier = weights.get("conv1.conv.weight"), weights.get("classifier.weight")
    blocks = name_blocks(weights)
    supernet = is_supernet(weights)
    if stem is None or stem.ndim != 4 or not (supernet or all(blocks)):
        raise UserError(f"not the weights of one of Torchreid's OSNets; the first are {list_first(weights)}")
    return TorchreidNetwork(
        genotype=None if supernet else Genotype.from_blocks([name for name in blocks if name is not None]),
        stem_norm=name_stem_norm(weights),
        stem_channels=stem.shape[0],
        num_classes=None if classifier is None or classifier.ndim != 2 else classifier.shape[0],
    )


def check_architecture(origin: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Checks that two sets of Torchreid names belong to networks with the same norms.

    Raises:
        UserError: says which are others.
    """
    if is_supernet(weights) != is_supernet(own):
        kinds = ("a super-network", "a child") if is_supernet(weights) else ("a child", "a super-network")
        raise UserError(f"{origin}: the weights are of {kinds[0]}, the network is {kinds[1]}")
    differing = []
    if not is_supernet(own):
        for block, theirs, ours in zip(BLOCK_NAMES, name_blocks(weights), name_blocks(own), strict=True):
            if theirs is not None and theirs != ours:
                differing.append(f"{block} is {theirs} in the weights and {ours} in the network")
    if differing:
        told = "; ".join(differing)
        raise UserError(f"{origin}: another genotype: {told}; build the network with the weights' genotype")
    stems = name_stem_norm(weights), name_stem_norm(own)
    if stems[0] != stems[1] and "conv1.conv.weight" in weights:
        raise UserError(f"{origin}: the stem norm is {stems[0]} in the weights and {stems[1]} in the network")


def is_supernet(names: Collection[str]) -> bool:
    """Whether Torchreid's names are a super-network's."""
    return f"{_PREFIXES[0]}weights" in names or any(".os_block." in name for name in names)


def name_stem_norm(names: Collection[str]) -> str:
    """Returns ``batch`` or ``instance``."""
    return "batch" if "conv1.bn.running_mean" in names else "instance"


def name_blocks(names: Collection[str]) -> list[str | None]:
    """Returns a child's six candidates by its Torchreid names, None where they say none."""
    norms = {norm for candidate in _NORMS_TO_CANDIDATE for norm in candidate}
    found = []
    for prefix in _PREFIXES:
        has = frozenset(norm for norm in norms if any(name.startswith(f"{prefix}{norm}.") for name in names))
        found.append(_NORMS_TO_CANDIDATE.get(has))
    return found


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
