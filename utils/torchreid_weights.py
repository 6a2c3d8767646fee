"""Torchreid's weights in and out, for children and super-networks; the names are in ``utils.torchreid_names``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.torch_file import read_torch_file
from utils.torchreid_names import SCHEMES, check_architecture, describe_torchreid_weights, rename_to_torchreid
from utils.weight_check import CLASSIFIER, list_first, load_tensors, read_named_tensors


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
            or a tensor is missing, left over, of another shape or not finite. The model is then unchanged.
    """
    if not isinstance(source, Mapping):
        source, origin = read_torch_file(source), str(source)
    weights = read_torchreid_weights(source, origin)
    state = model.state_dict()
    namings = [rename_to_torchreid(state, scheme) for scheme in SCHEMES]
    own = max(namings, key=lambda naming: len(naming.keys() & weights.keys()))
    if not (own.keys() & weights.keys()) - set(CLASSIFIER):
        raise UserError(
            f"{origin}: no tensor has a name that Torchreid's OSNet has; the first are {list_first(weights)}"
        )
    check_architecture(origin, weights, own)
    load_tensors(origin, weights, own, with_classifier=with_classifier, counters_may_lack=True)


def read_torchreid_weights(document: Any, origin: str) -> dict[str, Tensor]:
    """Returns the weights in a file's content, without wrapper and ``module.``; see ``load_torchreid_weights``.

    Raises:
        UserError: it holds something else than tensors by name.
    """
    content = document.get("state_dict", document) if isinstance(document, Mapping) else document
    weights = read_named_tensors(content, origin)
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def export_torchreid_weights(model: nn.Module, scheme: str | None = None) -> dict[str, Tensor]:
    """Returns a copy of a network's weights on the CPU under Torchreid's names.

    Args:
        model: A child or a super-network.
        scheme: ``osnet`` for what Torchreid's plain OSNet and OSNet-IBN load, ``ain`` for what all its other networks
            do; None: as the network needs it.

    Raises:
        UserError: ``scheme`` is unknown, or Torchreid has no such network under it.
    """
    state = model.state_dict()
    network = describe_torchreid_weights(rename_to_torchreid(state))
    if scheme is None:
        scheme = network.scheme
    if scheme not in SCHEMES:
        raise UserError(f"naming scheme {scheme!r}: allowed are {', '.join(SCHEMES)}")
    if scheme == "osnet" and network.scheme != "osnet":
        raise UserError("naming scheme 'osnet' is for osnet and osnet_ibn as published; use 'ain' for every other")
    return {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in rename_to_torchreid(state, scheme).items()
    }
