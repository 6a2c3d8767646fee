"""Converts weights between Torchreid's files and this project's checkpoints.

    python -m tools.convert_weights import osnet_ain_x1_0.pth osnet_ain.pt
    python -m tools.convert_weights export checkpoints/best.pt osnet_ain_ours.pth

The network (genotype, width, stem norm, identities; child or super-network) is read off the weights and printed. Every
tensor is checked against it before anything is written. An imported checkpoint is for ``model.load_weights``, which
also takes Torchreid's file itself.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from network_settings import find_settings, name_network
from osnet_child import build_child
from osnet_nas import build_supernet
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.files import check_writable, write_atomically
from utils.network_file import NetworkFile, load_network_weights, read_network_file
from utils.tool import tool
from utils.torch_file import pack
from utils.torchreid_names import SCHEMES, TorchreidNetwork
from utils.torchreid_weights import export_torchreid_weights


def import_weights(source: Path, target: Path) -> TorchreidNetwork:
    """Writes a Torchreid file's weights as a checkpoint of this project and returns what network they are of.

    Raises:
        UserError: the file cannot be read or does not hold one whole OSNet, or ``target`` cannot be written.
    """
    file = read_network_file(source)
    if file.checkpoint is not None:
        raise UserError(f"{source} is a checkpoint of this project, not Torchreid's file: use export")
    model, network = _build_network(file)
    save_checkpoint(target, {"identity": _identify(network), "model": _stored(model.state_dict(), network)})
    return network


def export_weights(source: Path, target: Path, scheme: str | None) -> TorchreidNetwork:
    """Writes a checkpoint's weights as a file that Torchreid loads and returns what network they are of.

    Raises:
        UserError: the checkpoint cannot be read or does not hold one whole network, Torchreid has no such network
            under ``scheme``, or ``target`` cannot be written.
    """
    file = read_network_file(source)
    if file.checkpoint is None:
        file.describe()  # or it is nobody's
        raise UserError(f"{source} is Torchreid's file, not a checkpoint of this project: use import")
    model, network = _build_network(file)
    exported = _stored(export_torchreid_weights(model, scheme), network)
    write_atomically(target, pack(exported))
    return network


def _build_network(file: NetworkFile) -> tuple[nn.Module, TorchreidNetwork]:
    """Builds the network that a file's weights are of and loads them, all of them checked."""
    network = file.describe()
    num_classes = 1 if network.num_classes is None else network.num_classes
    width = find_settings(file)["model.width"]
    model: nn.Module
    if network.genotype is None:
        model = build_supernet(num_classes, width)
    else:
        model = build_child(num_classes, network.genotype, width, network.stem_norm)
    load_network_weights(model, file)
    return model, network


def _stored(state: Mapping[str, Tensor], network: TorchreidNetwork) -> dict[str, Tensor]:
    """Leaves out the classifier that a network had to be built with when the source has none."""
    return {k: v for k, v in state.items() if network.num_classes is not None or not k.startswith("classifier.")}


def _identify(network: TorchreidNetwork) -> dict[str, Any]:
    """Returns what ``model.load_weights`` compares with the network of the config (see ``build.build_network``)."""
    settings = {key.removeprefix("model."): value for key, value in name_network(network, "weights").items()}
    if network.genotype is not None:
        settings["genotype"] = list(network.genotype.blocks)
    return {**settings, "loss": "softmax", "num_classes": network.num_classes}


def _print_network(network: TorchreidNetwork) -> None:
    kind = "super-network" if network.genotype is None else "child"
    classes = "no classifier" if network.num_classes is None else f"{network.num_classes} identities"
    width = name_network(network, "weights")["model.width"]
    print(f"{kind}: width {width}, {network.stem_norm} stem norm, {classes}")
    if network.genotype is not None:
        print(network.genotype)
        print(repr(network.genotype))


@tool("convert_weights")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, reads, writes in (
        ("import", "Torchreid's file", "checkpoint of this project"),
        ("export", "checkpoint of this project", "file that Torchreid loads"),
    ):
        options = commands.add_parser(command, help=f"{reads} → {writes}")
        options.add_argument("source", type=Path, help=reads)
        options.add_argument("target", type=Path, help=f"{writes}; an existing one is replaced")
        if command == "export":
            options.add_argument(
                "--scheme", choices=SCHEMES, help="naming (default: the one under which Torchreid loads the network)"
            )
    given = parser.parse_args(arguments)
    check_writable(given.target, given.source)
    if given.command == "import":
        network = import_weights(given.source, given.target)
    else:
        network = export_weights(given.source, given.target, given.scheme)
    _print_network(network)
    return 0


if __name__ == "__main__":
    sys.exit(main())
