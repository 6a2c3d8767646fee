"""The command line of main.py: Torchreid's flags, and any setting as KEY VALUE or KEY=VALUE."""

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from yacs.config import CfgNode

from config_keys import DATA_KEYS, KEYS
from default_config import find_keys, flatten, load_config, parse_pairs
from utils.config_file import split_names
from utils.errors import UserError
from utils.suggest import nearest

_ONE_VALUE = ("--config-file", "--root", "--gpu-devices")
_SEVERAL_NAMES = ("-s", "--sources", "-t", "--targets", "--transforms")
_FLAGS = ("-h", "--help", *_ONE_VALUE, *_SEVERAL_NAMES)
_OF_TRAINING = ("model", "nas", "sampler", "train", "sgd", "rmsprop", "adam", "loss")  # groups of settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python main.py --help shows the command line")


def parse_arguments(words: Sequence[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Reads the command line; ``description`` stands above the flags in ``--help``.

    Raises:
        UserError: an unknown option, or a flag or setting without its value.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--config-file", metavar="FILE", help="settings in YAML: nas.yaml, child.yaml, your own")
    parser.add_argument("--root", metavar="DIR", help="folder that holds the data sets' folders")
    for flags, meaning in (
        (("-s", "--sources"), "data sets to train on"),
        (("-t", "--targets"), "data sets to test on"),
        (("--transforms",), "augmentations, such as random_flip"),
    ):
        parser.add_argument(*flags, nargs="+", action="extend", metavar="NAME", help=meaning)
    parser.add_argument("--gpu-devices", metavar="0,1", help="GPUs to use (default: all that are visible)")
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="any setting, such as train.lr 0.05")
    flag_words, pairs = divide_words(sys.argv[1:] if words is None else words)
    return parser.parse_args([*flag_words, "--", *pairs] if pairs else flag_words)


def divide_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides a command line into flags with their values, and settings as a list of keys and values.

    A flag's names end where a setting begins, which has a dot in its key or is one of the few without a group.

    Raises:
        UserError: an option that is none, or a setting without its value.
    """
    flags: list[str] = []
    pairs: list[str] = []
    takes_names = False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--":
            takes_names = False
        elif flag in _FLAGS:
            flags.append(flag if flag in _SEVERAL_NAMES else word)
            if flag in _SEVERAL_NAMES and equals:
                flags.append(value)
            if flag in _ONE_VALUE and not equals and rest and rest[0] not in _FLAGS:
                flags[-1] = f"{flag}={rest.pop(0)}"  # also where the value begins with a dash
            takes_names = flag in _SEVERAL_NAMES
        elif word.startswith("-"):
            refuse_option(flag)
        elif takes_names and not is_key(flag):
            flags.append(word)
        elif equals and is_key(flag):
            pairs += [flag, value]
            takes_names = False
        elif not rest or rest[0] in _FLAGS:
            hint = f"; did you mean --config-file {word}?" if word.endswith((".yaml", ".yml")) else ""
            raise UserError(f"config: the key {word!r} has no value; settings come as KEY VALUE pairs{hint}")
        else:
            pairs += [word, rest.pop(0)]
            takes_names = False
    return flags, pairs


def is_key(word: str) -> bool:
    """Whether a word of the command line is a setting's name: has its form, or is one without a group."""
    return re.fullmatch(r"\w+(\.\w+)+", word) is not None or word in KEYS


def refuse_option(flag: str) -> NoReturn:
    """Says what to write in place of an option that is none.

    Raises:
        UserError: always.
    """
    keys = find_keys(flag.strip("-").replace("-", "_"))
    value = "True" if keys and isinstance(KEYS[keys[0]].default, bool) else "VALUE"
    hint = f"; settings have no dashes: {keys[0]} {value}" if keys else nearest(flag, _FLAGS)
    raise UserError(f"unknown option {flag}{hint}")


def write_command(words: Sequence[str], changes: Mapping[str, str]) -> str:
    """Writes a command line of main.py's as a shell takes it, with settings added or changed.

    Args:
        words: Without the program's name.
        changes: Settings by key.
    """
    flags, pairs = divide_words(words)
    return _write(flags, parse_pairs(pairs) | dict(changes))


def build_next_steps(cfg: CfgNode, words: Sequence[str], trained: CfgNode | None = None) -> dict[str, str]:
    """Builds the command lines to go on with after a run, by what they do.

    Args:
        cfg: The run's config.
        words: Its command line without the program's name.
        trained: Config of the networks that a designed search has trained; None: the run's.
    """
    folder, test = Path(cfg.data.save_dir), cfg.test
    if cfg.model.name == "osnet_nas":
        return {} if test.evaluate else {"train what was found": _build_training(cfg, trained or cfg, folder)}
    weights = cfg.model.load_weights if test.evaluate else str(folder / "checkpoints" / "best.pt")
    flags, pairs = divide_words(words)
    kept = {key: value for key, value in parse_pairs(pairs).items() if key.partition(".")[0] not in _OF_TRAINING}
    evaluation = {"model.name": "osnet_child", **kept, "test.evaluate": "True", "model.load_weights": weights}
    steps = {}
    if not test.rerank:
        wanted = {"test.flip": "True", "test.rerank": "True"}
        steps["score it with flipped images and re-ranking"] = _write(flags, evaluation | wanted)
    if not test.visrank:
        wanted = {"test.visrank": "True", "test.visactmap": "True"}
        steps["draw ranked lists and activation maps"] = _write(flags, evaluation | wanted)
    target = shlex.join([weights, str(folder / "child.onnx")])
    return steps | {"export it": f"python -m tools.export_onnx {target}"}


def _build_training(cfg: CfgNode, trained: CfgNode, folder: Path) -> str:
    """Writes the command line that trains what a search found, on its data, by the recipe of ``child.yaml``."""
    recipe = Path(__file__).with_name("child.yaml")
    network = ("data.height", "data.width", "data.norm_mean", "data.norm_std", "model.width")
    ours, theirs = flatten(cfg), flatten(load_config([recipe]))
    ours |= {key: value for key, value in flatten(trained).items() if key in network}
    settings = {key: ours[key] for key in (*DATA_KEYS, "data.targets", *network) if ours[key] != theirs[key]}
    settings |= {"model.genotype": str(folder / "genotype.json"), "data.save_dir": f"{folder}_child"}
    here = Path(recipe.name)
    shown = str(here if here.exists() and here.samefile(recipe) else recipe)
    return _write(["--config-file", shown], {key: _write_value(value) for key, value in settings.items()})


def _write_value(value: Any) -> str:
    return ",".join(map(str, value)) or "[]" if isinstance(value, list) else str(value)


def _write(flags: Sequence[str], settings: Mapping[str, str]) -> str:
    return shlex.join(["python", "main.py", *flags, *(word for pair in settings.items() for word in pair)])


def collect_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings given on the command line, by key."""
    overrides: dict[str, Any] = {} if arguments.root is None else {"data.root": arguments.root}
    for key in ("sources", "targets", "transforms"):
        names = getattr(arguments, key)
        if names is not None:
            overrides[f"data.{key}"] = [name for word in names for name in split_names(word)]
    return overrides | parse_pairs(arguments.settings)
