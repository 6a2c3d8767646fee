"""Settings are merged, checked and frozen here; ``config_keys`` lists them all.

Names are Torchreid's where Torchreid has the setting. A setting comes from, in order: the table of ``config_keys``, the
file that the config file names as its ``base`` (a path from the config file's folder), the config file, the command
line's flags, the command line's ``KEY VALUE`` pairs.
"""

import ast
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from config_keys import KEYS, REFUSED
from utils.errors import UserError
from utils.suggest import nearest


def default_config() -> CfgNode:
    """Returns the settings at their defaults, not frozen."""
    cfg = CfgNode()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        node = cfg
        for group in groups:
            if group not in node:
                node[group] = CfgNode()
            node = node[group]
        node[last] = list(key.default) if isinstance(key.default, list) else key.default
    return cfg


def load_config(files: Iterable[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> CfgNode:
    """Merges defaults, config files and overrides (by full key), checks every value, and freezes the result.

    Raises:
        UserError: an unreadable file, an unknown key, a wrong type, a value out of range, settings at odds.
    """
    cfg = default_config()
    for file in files:
        for name, value in _read_file(Path(file)).items():
            set_value(cfg, name, value)
    for name, value in (overrides or {}).items():
        set_value(cfg, name, value)
    _check_together(cfg)
    cfg.freeze()
    return cfg


def set_value(cfg: CfgNode, name: str, value: object) -> None:
    """Sets one setting after checking its name, type and range.

    Raises:
        UserError: names the key, the value and what is allowed.
    """
    if name in REFUSED:
        neutral, reason = REFUSED[name]
        if value != neutral:
            raise UserError(f"config: {name} = {value!r} is not offered: {reason}")
        return
    if name not in KEYS:
        raise UserError(f"config: unknown key {name!r}{nearest(name, [*KEYS, *REFUSED])}")
    key = KEYS[name]
    value = _coerce(name, value, key.default)
    problem = "must be finite" if value in (math.inf, -math.inf) or value != value else key.check(value)
    if problem:
        raise UserError(f"config: {name} = {value!r}: {problem}")
    *groups, last = name.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[last] = value


def parse_pairs(words: Sequence[str]) -> dict[str, Any]:
    """Reads the command line's ``KEY VALUE …`` pairs; values are Python literals, else text.

    Raises:
        UserError: a key without a value.
    """
    if len(words) % 2:
        raise UserError(f"config: the key {words[-1]!r} has no value; settings come as KEY VALUE pairs")
    return {name: _parse_value(name, text) for name, text in zip(words[::2], words[1::2], strict=True)}


def _parse_value(name: str, text: str) -> object:
    """Reads a value of the command line; where a setting is text, 2024_05 is no number."""
    value = _parse_literal(text)
    is_text = name in KEYS and isinstance(KEYS[name].default, str)
    return text if is_text and not isinstance(value, str) else value


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Lists nested settings by full key: {"train.lr": 0.1, …}."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{prefix}{name}"
        flat |= flatten(value, f"{full}.") if isinstance(value, Mapping) else {full: value}
    return flat


# Settings that do not change what a run computes.
FREE_KEYS = frozenset(
    {
        "use_gpu", "data.root", "data.save_dir", "data.workers", "data.cache", "model.resume", "train.print_freq",
        "train.save_every_min", "train.keep_checkpoints", "test.batch_size", "test.evaluate", "test.visrank",
        "test.visrank_topk", "test.visactmap",
    }
)  # fmt: skip


def config_hash(cfg: CfgNode) -> str:
    """Returns 12 hex digits that stand for all settings that change what a run computes."""
    text = yaml.safe_dump({k: v for k, v in flatten(cfg).items() if k not in FREE_KEYS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_same_run(saved: Mapping[str, Any], cfg: CfgNode, path: str | Path) -> None:
    """Checks that a checkpoint was made under these settings.

    Raises:
        UserError: shows every setting that differs.
    """
    own = flatten(cfg)
    then = flatten(default_config()) | dict(saved)  # a setting that came later had its default then
    free = FREE_KEYS | {"model.load_weights"}  # what a run started from is in its checkpoint
    changed = [k for k in sorted(then.keys() | own.keys()) if k not in free and then.get(k) != own.get(k)]
    if changed:
        shown = "; ".join(f"{k}: {then.get(k)!r} then, {own.get(k)!r} now" for k in changed)
        raise UserError(f"{path} was made under other settings ({shown}); set them back, or start anew from it with "
                        "model.load_weights")  # fmt: skip


def _read_file(path: Path, is_base: bool = False) -> dict[str, Any]:
    """Reads a config file's settings by full key, over those of the file that it names as its ``base``, if any."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read config file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict | None):
        raise UserError(f"config file {path} must hold groups of settings, not {type(document).__name__}")
    settings = flatten(document or {})
    if "base" not in settings:
        return settings
    base = settings.pop("base")
    if is_base or not isinstance(base, str):
        raise UserError(
            f"config file {path}: base = {base!r}: must be the path of a config file, from this one's folder, that has "
            "no base itself"
        )
    return _read_file(path.parent / base, is_base=True) | settings


def _parse_literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _coerce(name: str, value: object, default: object) -> object:
    """Returns ``value`` in the type of ``default``: a whole number where a float is due, a tuple as a list."""
    if isinstance(default, float) and isinstance(value, str):
        value = _parse_literal(value)  # YAML takes 1e-3 for text
    if isinstance(default, list) and isinstance(value, list | tuple):
        return [_coerce(name, v, default[0] if default else 0) for v in value]
    if isinstance(default, list) and type(value) is type(default[0] if default else 0):
        return [value]
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, str) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a folder called 1
    if type(value) is not type(default):
        kind = {bool: "True or False", int: "a whole number", float: "a number", str: "text", list: "a list"}
        raise UserError(f"config: {name} = {value!r}: must be {kind[type(default)]}, not {type(value).__name__}")
    return value


def _check_together(cfg: CfgNode) -> None:
    """Checks what one key alone cannot show.

    Raises:
        UserError: settings that contradict each other.
    """
    if cfg.test.evaluate and not cfg.model.load_weights:
        raise UserError("config: test.evaluate needs model.load_weights PATH")
    if cfg.model.genotype and cfg.model.name == "osnet_nas":
        raise UserError(f"config: model.genotype = {cfg.model.genotype!r} is a child's; set model.name osnet_child")
    if cfg.model.name == "osnet_nas":
        _check_method(cfg)
    if cfg.nas.held_out == "cameras" and cfg.nas.fold >= cfg.nas.num_folds:
        raise UserError(f"config: nas.fold {cfg.nas.fold}: with nas.num_folds {cfg.nas.num_folds} the folds are 0 to "
                        f"{cfg.nas.num_folds - 1}")  # fmt: skip
    if cfg.train.ema_decay and cfg.model.name == "osnet_nas":
        raise UserError("config: train.ema_decay is for a child's training; a search is scored as it is: set it to 0")
    if cfg.nas.min_lmda > cfg.nas.init_lmda:
        raise UserError(f"config: nas.min_lmda {cfg.nas.min_lmda} is above nas.init_lmda {cfg.nas.init_lmda}")
    if cfg.sgd.nesterov and (cfg.sgd.momentum == 0 or cfg.sgd.dampening != 0):
        raise UserError("config: sgd.nesterov needs sgd.momentum above 0 and sgd.dampening 0")
    if cfg.train.fixbase_epoch > cfg.train.max_epoch:
        raise UserError(f"config: train.fixbase_epoch {cfg.train.fixbase_epoch} is above train.max_epoch "
                        f"{cfg.train.max_epoch}")  # fmt: skip
    if cfg.loss.name == "triplet" and cfg.loss.triplet.weight_t == 0 and cfg.loss.triplet.weight_x == 0:
        raise UserError("config: loss.triplet.weight_t and weight_x are both 0: nothing to learn")
    if any(s <= 0 for s in cfg.data.norm_std):
        raise UserError(f"config: data.norm_std = {cfg.data.norm_std}: must be above 0")


def _check_method(cfg: CfgNode) -> None:
    """Checks that a search's other settings go with its method.

    Raises:
        UserError: a combination that means nothing, with the reason.
    """
    method, test = cfg.nas.method, cfg.test
    if cfg.nas.alpha_data == "held_out" and (cfg.nas.held_out != "cameras" or cfg.nas.method != "gumbel"):
        raise UserError("config: nas.alpha_data held_out needs nas.method gumbel and nas.held_out cameras, whose "
                        "images show people with a label")  # fmt: skip
    if cfg.nas.method == "design" and cfg.nas.held_out == "none":
        raise UserError("config: nas.method design judges architectures by held-out images; set nas.held_out cameras "
                        "or source")  # fmt: skip
    if method == "design" and cfg.nas.candidates == "shared":
        raise UserError("config: nas.candidates shared is a super-network's; nas.method design trains children alone")
    if method != "uniform":
        return
    for is_so, reason in (
        (cfg.nas.held_out == "none", "ranks sub-networks on held-out images; set nas.held_out cameras or source"),
        (cfg.train.compile, "runs another network in each step; set train.compile False"),
        (test.evaluate, "says which network is evaluated at the end of its run; set test.evaluate False"),
        (test.eval_freq != -1 or test.eval_epochs, "finds its network after the last epoch, so nothing can be scored "
         "before; set test.eval_freq -1 and test.eval_epochs []"),
    ):  # fmt: skip
        if is_so:
            raise UserError(f"config: nas.method uniform {reason}")
