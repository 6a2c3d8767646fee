"""The settings that a file of weights stands for: its network, and the images that it was trained on.

A checkpoint of this project knows all of them, Torchreid's weights only their network.
"""

import math
from collections.abc import Mapping
from typing import Any

from genotype import NAMED_STEM_NORMS, Genotype
from osnet_blocks import WIDTHS
from utils.errors import UserError
from utils.network_file import NetworkFile
from utils.torchreid_names import TorchreidNetwork
from utils.weight_check import CLASSIFIER

# The network halves height and width four times, and an instance norm of its last stage needs two pixels.
SMALLEST_HEIGHT, SMALLEST_WIDTH = 32, 16
LARGEST_SIDE = 4096

_SUPERNET, _CHILD = "osnet_nas", "osnet_child"


def find_settings(file: NetworkFile) -> dict[str, Any]:
    """Returns the settings that a file stands for, by the config's keys.

    Returns:
        ``model.name``, ``model.width`` and for a child ``model.stem_norm`` and ``model.genotype``, this one as a
        ``Genotype``; with a checkpoint of this project also those of ``nas.candidates`` (a super-network's),
        ``data.height``, ``data.width``, ``data.norm_mean`` and ``data.norm_std`` that it knows.

    Raises:
        UserError: the weights are not of an OSNet, or what is stored beside them is damaged or at odds with them.
    """
    if file.checkpoint is None:
        return name_network(file.describe(), file.path)
    stored = _read_identity(file)
    try:
        found = name_network(file.describe(), file.path)
    except UserError:
        if not stored:
            raise
        found = stored  # weights that are not whole: what is missing is named where they are loaded
    for key in sorted(found.keys() & stored.keys()):
        if found[key] != stored[key]:
            raise UserError(
                f"{file.path} is damaged: it says {key} {show_setting(stored[key])}, its weights are of "
                f"{show_setting(found[key])}"
            )
    return {**stored, **found, **_read_input(file.checkpoint, file.path)}


def name_network(network: TorchreidNetwork, origin: str) -> dict[str, Any]:
    """Returns a described network's settings by the config's keys, as ``find_settings`` does.

    Raises:
        UserError: there is no OSNet with that stem.
    """
    width = next((width for width, (stem, *_) in WIDTHS.items() if stem == network.stem_channels), None)
    if width is None:
        raise UserError(f"{origin}: no OSNet has a stem of {network.stem_channels} channels")
    if network.genotype is None:
        return {"model.name": _SUPERNET, "model.width": width}
    return {
        "model.name": _CHILD,
        "model.width": width,
        "model.stem_norm": network.stem_norm,
        "model.genotype": network.genotype,
    }


def settings_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a network's identity (see ``build.build_network``), as ``find_settings`` does."""
    found = {f"model.{key}": identity[key] for key in ("name", "width", "stem_norm") if key in identity}
    if "genotype" in identity:
        found["model.genotype"] = Genotype.from_blocks(identity["genotype"])
    if identity.get("name") == _SUPERNET:
        found["nas.candidates"] = identity.get("candidates", "separate")  # without it: from before there were others
    return found


def settings_at_odds(explicit: Mapping[str, Any], found: Mapping[str, Any], path: str) -> str:
    """Compares settings that were asked for with those that a file of weights stands for.

    Args:
        explicit: By key; ``model.genotype`` as a ``Genotype``. Keys that ``found`` lacks do not count.
        found: From ``find_settings``.
        path: Of the file.

    Returns:
        One line that names all differences and the settings that fit; empty where there is no difference.
    """
    asked, stored = explicit.get("model.name"), found["model.name"]
    if asked is not None and asked != stored:
        if stored == _SUPERNET:
            return (
                f"{path} holds a super-network, as a search leaves it, and the network asked for is a child; train a "
                "child from the search's genotype.json (model.genotype) first"
            )
        return f"{path} holds a child, and the network asked for is a super-network; set model.name {_CHILD}"
    differing = {key: found[key] for key in explicit if key in found and not _is_same(explicit[key], found[key])}
    if not differing:
        return ""
    told = ", ".join(f"{key} {show_setting(v)} and not {show_setting(explicit[key])}" for key, v in differing.items())
    return f"{path} is of {told}; set: {format_settings(found, differing)}"


def format_settings(found: Mapping[str, Any], differing: Mapping[str, Any]) -> str:
    """Writes the settings that fit, as on the command line: all of the network's where one of them differs."""
    network = [key for key in ("model.genotype", "model.width", "model.stem_norm") if key in found]
    shown = network if differing.keys() & set(network) else []
    if "model.genotype" in shown and _name_genotype(found["model.genotype"], found["model.stem_norm"]):
        shown = shown[:-1]  # the name says the stem norm
    shown = [*shown, *(key for key in differing if key not in network)]
    return " ".join(f"{key} {_write(found, key)}" for key in shown)


def write_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what ``find_settings`` found as a config has it: the genotype by its published name, or in digits."""
    return {key: _write(found, key) if isinstance(value, Genotype) else value for key, value in found.items()}


def show_setting(value: Any) -> str:
    """Writes a setting's value for a message."""
    if isinstance(value, Genotype):
        return next((name for name in NAMED_STEM_NORMS if Genotype.named(name) == value), _write_digits(value))
    return str(value)


def _write(found: Mapping[str, Any], key: str) -> str:
    value = found[key]
    if key == "model.genotype":
        return _name_genotype(value, found["model.stem_norm"]) or _write_digits(value)
    return f'"{value}"' if isinstance(value, list) else str(value)


def _name_genotype(genotype: Genotype, stem_norm: str) -> str:
    """Returns the name under which the genotype was published with this stem, empty where it was not."""
    names = [name for name, norm in NAMED_STEM_NORMS.items() if norm == stem_norm]
    return next((name for name in names if Genotype.named(name) == genotype), "")


def _write_digits(genotype: Genotype) -> str:
    return "".join(map(str, genotype.indices))


def _is_same(one: Any, other: Any) -> bool:
    both = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    return list(one) == list(other) if both else one == other


def _read_identity(file: NetworkFile) -> dict[str, Any]:
    """Returns what a checkpoint's identity says of its network; nothing where there is no identity."""
    assert file.checkpoint is not None
    identity = file.checkpoint.get("identity", {})
    if identity == {}:
        return {}
    try:
        if not isinstance(identity, Mapping):
            raise UserError(f"it is a {type(identity).__name__}")
        found = settings_of(identity)
        is_whole = found["model.width"] in WIDTHS and (
            found["model.name"] == _SUPERNET
            or (found["model.name"] == _CHILD and found["model.stem_norm"] in ("batch", "instance"))
        )
        if not is_whole or (found["model.name"] == _CHILD) != ("model.genotype" in found):
            raise UserError("unknown name, width or stem norm")
        classes, classifier = identity.get("num_classes"), file.weights.get(CLASSIFIER[0])
        if classes is not None and (classifier is None or len(classifier) != classes):
            stored = "no classifier" if classifier is None else f"a classifier for {len(classifier)}"
            raise UserError(f"num_classes is {classes}, there is {stored}")
        return found
    except (UserError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{file.path} is damaged: its identity is not that of its network ({error})") from error


def _read_input(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns size and normalisation of the images from a checkpoint's config, as far as they are there."""
    config = checkpoint.get("config", {})
    if not isinstance(config, Mapping):
        raise UserError(f"{path} is damaged: its config is a {type(config).__name__}, not named settings")
    found = {}
    for key, holds, wanted in (
        ("data.height", lambda v: _is_side(v, SMALLEST_HEIGHT), f"pixels from {SMALLEST_HEIGHT} to {LARGEST_SIDE}"),
        ("data.width", lambda v: _is_side(v, SMALLEST_WIDTH), f"pixels from {SMALLEST_WIDTH} to {LARGEST_SIDE}"),
        ("data.norm_mean", lambda v: _are_three(v, -10, 10), "three numbers in [-10, 10]"),
        ("data.norm_std", lambda v: _are_three(v, 1e-3, 1e3), "three numbers in [0.001, 1000]"),
    ):
        if key in config:
            value = config[key]
            if not holds(value):
                raise UserError(f"{path} is damaged: its {key} is {str(value)[:60]!r}, expected are {wanted}")
            found[key] = list(value) if isinstance(value, list | tuple) else value
    return found


def _is_side(value: Any, smallest: int) -> bool:
    return type(value) is int and smallest <= value <= LARGEST_SIDE


def _are_three(values: Any, low: float, high: float) -> bool:
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    return numbers and len(values) == 3 and all(low <= v <= high for v in values)
