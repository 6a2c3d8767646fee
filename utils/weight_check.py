"""Weights against the network that they are for: all there, of the right shape and kind, finite; then copied in."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError

logger = logging.getLogger(__name__)

CLASSIFIER = ("classifier.weight", "classifier.bias")
_NUM_SHOWN = 3
_MAX_NAME = 160  # signs of a name that are shown; a damaged file's may have no end


def read_named_tensors(content: Any, origin: str) -> dict[str, Tensor]:
    """Returns a state dict's tensors by name.

    Raises:
        UserError: ``content`` is something else than plain tensors by name, or holds none.
    """
    if not isinstance(content, Mapping) or not content:
        told = "nothing" if content is None or content == {} else type(content).__name__
        raise UserError(f"{origin}: expected tensors by name, got {told}")
    weights: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            told = repr(name)[:_MAX_NAME] if isinstance(name, str | int) else f"a {type(name).__name__}"
            raise UserError(f"{origin}: expected tensors by name, but {told} is a {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(f"{origin}: {list_first([name])} holds no plain numbers ({tensor.layout}, {tensor.device})")
        weights[name] = tensor.detach()
    return weights


def load_tensors(
    origin: str,
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    with_classifier: bool = True,
    counters_may_lack: bool = False,
) -> None:
    """Copies weights over a network's own tensors and says so in the log; all or nothing.

    Every tensor must fit, but for the classifier as a whole: one of another number of identities, or none, leaves the
    network's own as it is.

    Args:
        origin: What messages call the weights.
        weights: Tensors by name.
        own: The network's tensors under the same naming, any floating type, device and memory layout.
        with_classifier: False: the network keeps its own, whatever the weights hold.
        counters_may_lack: Whether ``num_batches_tracked`` may be missing, as it is in files older than PyTorch 0.4.1.

    Raises:
        UserError: see ``check_weights``; the network is then unchanged.
    """
    skipped = set[str]()
    if _is_other_classifier(weights, own) or (not with_classifier and _fits_in_kind(weights, own)):
        skipped |= set(CLASSIFIER)
    if counters_may_lack:
        skipped |= {name for name in own if name.endswith(".num_batches_tracked") and name not in weights}
    compared = {name: tensor for name, tensor in own.items() if name not in skipped}
    check_weights(origin, {name: tensor for name, tensor in weights.items() if name not in skipped}, compared)
    with torch.no_grad():
        for name, tensor in compared.items():
            tensor.copy_(weights[name])
    told = _describe_skipped(skipped, weights, own) if with_classifier else ""
    logger.info("%s: %d tensors loaded%s", origin, len(compared), told)


def check_weights(origin: str, weights: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Checks that ``weights`` has a fitting tensor for each of the network's ``own`` and no other.

    Raises:
        UserError: names the first that are missing, left over, of another shape or kind of number, not finite, or a
            variance below 0.
    """
    shared = [name for name in own if name in weights]
    fitting = {name: _describe(weights[name]) == _describe(own[name]) for name in shared}
    misfits = [
        f"{name} ({_describe(weights[name])} in the weights, {_describe(own[name])} in the network)"
        for name, fits in fitting.items()
        if not fits
    ]
    problems = (
        ("missing", [name for name in own if name not in weights]),
        ("not of this network", [name for name in weights if name not in own]),
        ("of another shape or kind", misfits),
    )
    told = [f"{len(names)} {problem}: {list_first(names)}" for problem, names in problems if names]
    if told:
        raise UserError(f"{origin}: the weights do not fit the network: {'; '.join(told)}; check width and genotype")
    damaged = [name for name in shared if not _is_sound(name, weights[name], own[name].dtype)]
    if damaged:
        where = list_first(damaged)
        raise UserError(f"{origin}: the weights are damaged: not finite, or a variance below 0, in {where}")


def list_first(names: Iterable[str]) -> str:
    """Writes the first names of several and how many more there are."""
    listed = [name if name.isprintable() and len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]!r}…" for name in names]
    rest = f" and {len(listed) - _NUM_SHOWN} more" if len(listed) > _NUM_SHOWN else ""
    return ", ".join(listed[:_NUM_SHOWN]) + rest


def _is_sound(name: str, tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether the numbers can be a network's, in its own type, to which float64 may be too large."""
    numbers = tensor.to(dtype)
    if not numbers.is_floating_point():
        return True
    return bool(numbers.isfinite().all()) and not (name.endswith("running_var") and bool((numbers < 0).any()))


def _describe(tensor: Any) -> str:
    """Writes shape and type of number; all floating types are one."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    shape = "×".join(map(str, tensor.shape)) or "scalar"
    return shape if tensor.is_floating_point() else f"{shape} {tensor.dtype}"


def _fits_in_kind(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether the weights have a whole classifier of these features, for any number of identities."""
    weight, bias = (weights.get(name) for name in CLASSIFIER)
    if weight is None or bias is None or not (weight.is_floating_point() and bias.is_floating_point()):
        return False
    return weight.shape == (len(bias), own[CLASSIFIER[0]].shape[1]) if bias.ndim == 1 and len(bias) else False


def _is_other_classifier(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether the weights have no classifier at all, or a whole one for another number of identities."""
    if not any(name in weights for name in CLASSIFIER):
        return True
    return _fits_in_kind(weights, own) and weights[CLASSIFIER[0]].shape != own[CLASSIFIER[0]].shape


def _describe_skipped(skipped: Collection[str], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    if CLASSIFIER[0] not in skipped:
        return ""
    if CLASSIFIER[0] not in weights:
        return "; they have no classifier, the network keeps its own"
    sizes = weights[CLASSIFIER[0]].shape[0], own[CLASSIFIER[0]].shape[0]
    return f"; their classifier is for {sizes[0]} identities, the network keeps its own for {sizes[1]}"
