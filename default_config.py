"""Settings are merged, checked and frozen here; ``config_keys`` lists them all.

Names are Torchreid's where Torchreid has the setting. A setting comes from, in order: the table of ``config_keys``, the
file that the config file names as its ``base`` (a path from the config file's folder), the config file, the command
line's flags, the command line's ``KEY VALUE`` pairs.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from config_keys import DATA_KEYS, FREE_KEYS, KEYS, REFUSED, TORCHREID_NAME
from genotype import NAMED_STEM_NORMS
from utils.config_file import read_config_file
from utils.config_value import check_text, coerce, expand_path
from utils.errors import UserError
from utils.suggest import nearest

EARLIER_LENGTHS = "train.max_epoch, earlier"  # no setting; see ``continue_settings``


def default_config() -> CfgNode:
    """Returns the settings at their defaults, not frozen."""
    return _make_node({name: key.default for name, key in KEYS.items()})


def load_config(files: Iterable[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> CfgNode:
    """Merges defaults, config files and overrides (by full key), checks every value, and freezes the result.

    A text is read in the type of the setting. What one setting says of another is written into it: a name of
    Torchreid's says genotype and width, a published genotype its stem norm, and what a run starts from how many epochs
    ``train.fixbase_epoch`` -1 means.

    Raises:
        UserError: an unreadable file, an unknown key, a wrong type, a value out of range, settings at odds.
    """
    given: dict[str, Any] = {}
    for file in files:
        for name, (value, where) in _read_settings(str(file)).items():
            try:
                given |= _check_setting(name, value)
            except UserError as error:
                raise UserError(f"{error} ({where})") from error
    for name, value in (overrides or {}).items():
        given |= _check_setting(name, value)
    _check_refused(given)
    settings = {name: given.get(name, key.default) for name, key in KEYS.items()}
    _write_out_names(settings, given.keys())
    if settings["train.fixbase_epoch"] == -1:  # on a body of random weights a classifier would learn nothing of use
        num_epochs = settings["train.max_epoch"] if settings["model.load_weights"] else 0
        settings["train.fixbase_epoch"] = min(10, num_epochs // 2)
    cfg = _make_node(settings)
    _check_together(cfg)
    cfg.freeze()
    return cfg


def list_explicit(overrides: Mapping[str, Any]) -> set[str]:
    """Lists the settings that the command line gives, and those that a name among them stands for.

    Args:
        overrides: As ``load_config`` takes them; an empty text gives nothing.

    Raises:
        UserError: as ``load_config``.
    """
    given: dict[str, Any] = {}
    for name, value in overrides.items():
        given |= _check_setting(name, value)
    settings = dict.fromkeys(KEYS) | given
    _write_out_names(settings, given.keys())
    return {name for name, value in settings.items() if value not in (None, "")}


def parse_pairs(words: Sequence[str]) -> dict[str, str]:
    """Reads the command line's ``KEY VALUE …`` pairs; of a key given twice the last one counts.

    Raises:
        UserError: a key without a value.
    """
    if len(words) % 2:
        raise UserError(f"config: the key {words[-1]!r} has no value; settings come as KEY VALUE pairs")
    return dict(zip(words[::2], words[1::2], strict=True))


def find_keys(name: str) -> list[str]:
    """Lists the settings that a name without its group could mean: ``lr`` is ``train.lr``."""
    return [key for key in KEYS if key == name or key.endswith(f".{name}")]


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Lists nested settings by full key: {"train.lr": 0.1, …}."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        full = f"{prefix}{name}"
        flat |= flatten(value, f"{full}.") if isinstance(value, Mapping) else {full: value}
    return flat


def settle(cfg: CfgNode, name: str, value: Any) -> CfgNode:
    """Returns the config with what a setting turned out to mean, frozen."""
    settled = cfg.clone()
    settled.defrost()
    *groups, last = name.split(".")
    node = settled
    for group in groups:
        node = node[group]
    node[last] = value
    settled.freeze()
    return settled


def check_same_run(saved: Mapping[str, Any], cfg: CfgNode, path: str | Path) -> None:
    """Checks that a checkpoint was made under these settings; ``train.max_epoch`` may have grown.

    Raises:
        UserError: shows every setting that differs.
    """
    lengths = saved.get(EARLIER_LENGTHS, [])
    if not isinstance(lengths, list | tuple) or not all(type(length) is int for length in lengths):
        raise UserError(f"{path} is damaged: {EARLIER_LENGTHS} is no list of epochs; use an earlier checkpoint")
    own = flatten(cfg)
    then = flatten(default_config()) | dict(saved)  # a setting that came later had its default then
    _write_out_names(then, ())
    if own["train.device_batch"] == -1:  # was chosen when the run began
        own["train.device_batch"] = then["train.device_batch"]
    apart = {*FREE_KEYS, EARLIER_LENGTHS}
    if _is_longer(own["train.max_epoch"], then["train.max_epoch"]):
        apart.add("train.max_epoch")
    differing = [k for k in sorted(then.keys() | own.keys()) if k not in apart and then.get(k) != own.get(k)]
    if set(differing) <= {"model.load_weights"}:  # what a run started from is in its checkpoint
        return
    shown = "; ".join(f"{k}: {then.get(k)!r} then, {own.get(k)!r} now" for k in differing)
    raise UserError(f"{path} was made under other settings ({shown}); set them back, or start anew from it with "
                    "model.load_weights")  # fmt: skip


def continue_settings(cfg: CfgNode, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a continued run's settings by full key, with what only its beginning knows.

    Those are ``model.load_weights``, and under ``EARLIER_LENGTHS`` how many epochs it was to have before it was made
    longer, where its learning rates were others by that: such a run is no repeat of one that was to be so long at once.

    Args:
        cfg: Of this start.
        saved: The checkpoint's settings, which ``check_same_run`` has accepted.
    """
    settings, then = flatten(cfg), saved.get("train.max_epoch")
    lengths = saved.get(EARLIER_LENGTHS, [])
    if cfg.train.lr_scheduler == "cosine" and _is_longer(cfg.train.max_epoch, then):
        lengths = [*lengths, then]
    settings["model.load_weights"] = saved.get("model.load_weights", "")
    return settings | ({EARLIER_LENGTHS: lengths} if lengths else {})


def _is_longer(now: int, then: Any) -> bool:
    return type(then) is int and now > then


def _make_node(settings: Mapping[str, Any]) -> CfgNode:
    cfg = CfgNode()
    for name, value in settings.items():
        *groups, last = name.split(".")
        node = cfg
        for group in groups:
            node = node.setdefault(group, CfgNode())
        node[last] = list(value) if isinstance(value, list) else value
    return cfg


def _read_settings(file: str, is_base: bool = False) -> dict[str, tuple[Any, str]]:
    """Reads a config file's settings, over those of the file that it names as its ``base``, if any.

    Returns:
        By full key: the value, and the file and line that it comes from.
    """
    if not file:
        raise UserError("the config file's name is empty")
    try:
        path = Path(expand_path(file))
    except ValueError as error:
        raise UserError(f"config file {file[:80]}: {error}") from error
    entries = read_config_file(path)
    settings = {name: (entry.value, f"{path}, line {entry.line}") for name, entry in entries.items()}
    if "base" not in settings:
        return settings
    base, _ = settings.pop("base")
    if is_base or not isinstance(base, str) or not base:
        raise UserError(
            f"config file {path}: base = {_shorten(base)}: must be the path of a config file, from this one's folder, "
            "that has no base itself"
        )
    return _read_settings(base if base.startswith("~") else str(path.parent / base), is_base=True) | settings


def _check_setting(name: str, value: Any) -> dict[str, Any]:
    """Returns one setting, by full key, after checking its name, type and range; an empty group has none.

    Raises:
        UserError: names the key, the value and what is allowed.
    """
    if value is None and any(key.startswith(f"{name}.") for key in (*KEYS, *REFUSED)):
        return {}
    if name not in KEYS and name not in REFUSED:
        keys = find_keys(name)
        hint = f"; did you mean {keys[0]!r}?" if keys else nearest(name, [*KEYS, *REFUSED])
        raise UserError(f"config: unknown key {_shorten(name)}{hint}")
    if value is None:
        raise UserError(f"config: {name} has no value")
    key = KEYS.get(name)
    try:
        value = coerce(value, key.default if key else REFUSED[name][0])
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
            if isinstance(text, str):
                check_text(text)
        problem = key.check(value) if key else ""
        if key and key.is_path:
            value = expand_path(value)
    except ValueError as error:
        problem = str(error)
    if problem:
        raise UserError(f"config: {name} = {_shorten(value)}: {problem}")
    return {name: value}


def _check_refused(given: Mapping[str, Any]) -> None:
    """Checks that Torchreid's settings that are not offered here are at the value that changes nothing.

    ``model.pretrained`` changes nothing either where other weights are loaded over those that it would download.

    Raises:
        UserError: one is not.
    """
    for name, (neutral, reason) in REFUSED.items():
        is_overridden = name == "model.pretrained" and given.get("model.load_weights")
        if given.get(name, neutral) != neutral and not is_overridden:
            raise UserError(f"config: {name} = {_shorten(given[name])} is not offered: {reason}")


def _write_out_names(settings: dict[str, Any], given: Iterable[str]) -> None:
    """Writes out what Torchreid's names (``osnet_ain_x0_25``) and published genotypes (``osnet_ain``) say.

    Args:
        settings: By full key; changed in place.
        given: Those that were not left at their default.

    Raises:
        UserError: a setting that was given says something else.
    """
    said = {key for key in given if settings.get(key, "") != ""}
    for key in ("model.genotype", "model.name"):
        name = str(settings[key])
        if match := TORCHREID_NAME.fullmatch(name):
            settings["model.name"] = "osnet_child" if key == "model.name" else settings["model.name"]
            _imply(settings, said - {key}, f"{key} {name}", "model.genotype", match[1])
            _imply(settings, said, f"{key} {name}", "model.width", float(match[2].replace("_", ".")))
            said |= {"model.genotype", "model.width"}
    genotype = str(settings["model.genotype"])
    if genotype in NAMED_STEM_NORMS:
        _imply(settings, said, f"model.genotype {genotype}", "model.stem_norm", NAMED_STEM_NORMS[genotype])


def _imply(settings: dict[str, Any], said: Set[str], source: str, key: str, value: Any) -> None:
    """Sets ``key`` to what ``source`` means; raises UserError where it was given as something else."""
    if key in said and settings[key] != value:
        raise UserError(f"config: {source} means {key} {value}, but {key} is set to {settings[key]}; leave one out")
    settings[key] = value


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


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
    elif cfg.nas.alpha_data == "held_out":
        raise UserError("config: nas.alpha_data held_out is a search's, and model.name names a child; set it to train")
    if cfg.nas.held_out == "cameras" and cfg.nas.fold >= cfg.nas.num_folds:
        raise UserError(f"config: nas.fold {cfg.nas.fold}: with nas.num_folds {cfg.nas.num_folds} the folds are 0 to "
                        f"{cfg.nas.num_folds - 1}")  # fmt: skip
    if cfg.train.ema_decay and cfg.model.name == "osnet_nas":
        raise UserError("config: train.ema_decay is for a child's training; a search is scored as it is: set it to 0")
    if cfg.train.compile and cfg.train.recompute != "none":
        raise UserError(f"config: train.recompute {cfg.train.recompute} does not go with train.compile True, by which "
                        "PyTorch chooses what is computed again; set one of them to none or False")  # fmt: skip
    if cfg.nas.min_lmda > cfg.nas.init_lmda:
        raise UserError(f"config: nas.min_lmda {cfg.nas.min_lmda} is above nas.init_lmda {cfg.nas.init_lmda}")
    if cfg.sgd.nesterov and (cfg.sgd.momentum == 0 or cfg.sgd.dampening != 0):
        raise UserError("config: sgd.nesterov needs sgd.momentum above 0 and sgd.dampening 0")
    if cfg.train.fixbase_epoch > cfg.train.max_epoch:
        raise UserError(f"config: train.fixbase_epoch {cfg.train.fixbase_epoch} is above train.max_epoch "
                        f"{cfg.train.max_epoch}")  # fmt: skip
    if cfg.loss.name == "triplet" and cfg.loss.triplet.weight_t == 0 and cfg.loss.triplet.weight_x == 0:
        raise UserError("config: loss.triplet.weight_t and weight_x are both 0: nothing to learn")


def _check_method(cfg: CfgNode) -> None:
    """Checks that a search's other settings go with its method.

    Raises:
        UserError: a combination that means nothing, with the reason.
    """
    method, test = cfg.nas.method, cfg.test
    if cfg.nas.alpha_data == "held_out" and cfg.train.fixbase_epoch > 0:
        raise UserError("config: nas.alpha_data held_out teaches the alphas from the first step on; set "
                        "train.fixbase_epoch 0")  # fmt: skip
    if cfg.nas.alpha_data == "held_out" and (cfg.nas.held_out != "cameras" or cfg.nas.method != "gumbel"):
        raise UserError("config: nas.alpha_data held_out needs nas.method gumbel and nas.held_out cameras, whose "
                        "images show people with a label")  # fmt: skip
    if cfg.nas.method == "design" and cfg.nas.held_out == "none":
        raise UserError("config: nas.method design judges architectures by held-out images; set nas.held_out cameras "
                        "or source")  # fmt: skip
    if method == "design":
        _check_design(cfg)
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


def _check_design(cfg: CfgNode) -> None:
    """Checks that nothing is set that a designed search leaves to its recipe.

    Raises:
        UserError: a setting that would change nothing.
    """
    if cfg.test.evaluate:
        raise UserError("config: nas.method design trains networks and loads none; set test.evaluate False")
    own = {*DATA_KEYS, "model.name", "train.seed", "nas.method", "nas.held_out", "nas.num_folds"}
    for key, value in flatten(cfg).items():
        if key in own or key in FREE_KEYS or key.startswith("nas.design.") or value == KEYS[key].default:
            continue
        if key != "data.targets" or value:
            raise UserError(f"config: {key} {value} has no effect with nas.method design; what its trainings do stands "
                            f"in nas.design.recipe ({cfg.nas.design.recipe})")  # fmt: skip
