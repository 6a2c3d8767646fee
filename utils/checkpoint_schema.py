"""What a checkpoint has to hold so that a run can be continued from it: types, ranges, and parts that must agree.

Weights are compared with the network in ``utils.weight_check``.
"""

import math
import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.weight_check import check_weights, read_named_tensors

PARTS = {
    "kind": str, "identity": Mapping, "config": Mapping, "images": str, "progress": Mapping, "model": Mapping,
    "optimizers": Mapping, "schedulers": Mapping, "scaler": Mapping, "task": Mapping, "random": Mapping,
}  # fmt: skip
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
_MAX_SEC = 10**10  # of a run: three centuries
_MAX_DEPTH = 4  # of plain values inside each other
_NUM_PYTHON_WORDS = 625
_NUM_NUMPY_WORDS = 624
_NUM_CUDA_BYTES = 16


def load_training_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint that a run can be continued from; see ``check_training_checkpoint``."""
    document = load_checkpoint(path)
    check_training_checkpoint(document, path)
    return document


def check_training_checkpoint(document: Mapping[str, Any], path: str | Path) -> None:
    """Checks all of a training checkpoint that can be checked without its network, optimisers and data.

    Raises:
        UserError: names the first part that is missing, of another type, out of range, or at odds with another.
    """
    if "progress" not in document and "optimizers" not in document:
        raise UserError(f"{path} holds a network's weights alone; start from them with model.load_weights {path}")
    for name, kind in PARTS.items():
        if not isinstance(document.get(name), kind):
            expected = "text" if kind is str else "named values"
            _fail(path, name, _show(document.get(name)) if name in document else "missing", expected)
    for name in ("identity", "config"):
        _require(_is_plain(document[name]), path, name, "not plain", "numbers, texts and lists of them")
    _check_progress(document["progress"], document["config"].get("train.max_epoch"), path)
    seconds = document.get("seconds", 0)  # version 1 did not count them
    sound = _is_number(seconds) and 0 <= seconds <= _MAX_SEC
    _require(sound, path, "seconds", _show(seconds), f"a number from 0 to {_MAX_SEC:,}")
    _check_optimizers(document, path)
    _check_schedulers(document, path)
    _check_scaler(document["scaler"], document["config"].get("train.amp") == "fp16", path)
    if "generator" in document["task"]:
        _check_generator(document["task"]["generator"], path, "task.generator")
    _check_random_states(document["random"], path)


def check_fits_run(
    document: Mapping[str, Any],
    path: str | Path,
    *,
    kind: str,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    task: Mapping[str, Any],
    num_batches: int | None,
    all_learnt: bool = False,
) -> None:
    """Checks a training checkpoint, of sound form, against the run that is to go on from it.

    Args:
        document: The checkpoint.
        path: What messages call it.
        kind: What the run trains.
        modules: The bare network as ``model``, and what else the checkpoint keeps the whole state of; the classifier
            must be there too.
        optimizers: By name, over the model's parameters.
        task: The state of this run's own task.
        num_batches: Batches per epoch; None: of other images, so that the epoch starts anew.
        all_learnt: Whether every parameter has had a step, so that the optimisers must know them all.

    Raises:
        UserError: names the first part that does not fit.
    """
    _require(document["kind"] == kind, path, "kind", _show(document["kind"]), f"{kind!r}")
    for name, module in modules.items():
        origin = f"{path}: {name}"
        check_weights(origin, read_named_tensors(document.get(name), origin), module.state_dict())
    kept, needed = sorted(map(str, document["task"])), sorted(task)
    _require(kept == needed, path, "task", kept, f"{needed}")
    found = sorted(map(str, document["optimizers"]))
    _require(found == sorted(optimizers), path, "optimizers", found, f"{sorted(optimizers)}")
    for name, optimizer in optimizers.items():
        _check_optimizer(document["optimizers"][name], path, f"optimizers.{name}", optimizer, all_learnt)
    if num_batches is not None:
        _check_batch(document, path, num_batches)


def _check_batch(document: Mapping[str, Any], path: str | Path, num_batches: int) -> None:
    epoch, batch = document["progress"]["epoch"], document["progress"]["batch"]
    _require(batch <= num_batches, path, "progress.batch", batch, f"at most {num_batches}, the batches of an epoch")
    for name, state in document["schedulers"].items():
        stepped = state["last_epoch"] > epoch
        _require(batch == num_batches or not stepped, path, f"schedulers.{name}.last_epoch", state["last_epoch"],
                 f"{epoch} in the middle of that epoch")  # fmt: skip


def _check_optimizer(
    saved: Mapping[str, Any], path: str | Path, where: str, optimizer: Optimizer, all_learnt: bool
) -> None:
    """Compares groups, their settings, and the shapes of what is kept of each parameter."""
    own = optimizer.state_dict()
    sizes, expected = ([len(group["params"]) for group in s["param_groups"]] for s in (saved, own))
    _require(sizes == expected, path, f"{where}.param_groups", sizes, f"groups of {expected} parameters")
    for group, live in zip(saved["param_groups"], own["param_groups"], strict=True):
        for key in live.keys() - {"params", "lr", "fused", "foreach"}:  # the last two: how it is computed
            same = key not in group or group[key] == live[key]  # an older PyTorch may lack a key
            _require(same, path, f"{where}.{key}", _show(group.get(key)), f"{live[key]} as in this run")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    known = len(saved["state"])
    _require(not (all_learnt and known) or known == len(numbers), path, f"{where}.state", f"{known} parameters",
             f"{len(numbers)}")  # fmt: skip
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, value in saved["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.ndim:
                _require(value.shape == parameter.shape, path, f"{where}.state.{number}.{key}", tuple(value.shape),
                         f"the parameter's shape {tuple(parameter.shape)}")  # fmt: skip


def _check_progress(progress: Mapping[str, Any], max_epoch: Any, path: str | Path) -> None:
    counts = ("epoch", "batch", "num_correct", "num_seen", "num_steps")
    expected = {*counts, "loss_sum", "best"}
    _require(progress.keys() == expected, path, "progress", sorted(map(str, progress)), f"{sorted(expected)}")
    for key in counts:
        value = progress[key]
        _require(type(value) is int and value >= 0, path, f"progress.{key}", _show(value), "a whole number from 0")
    for key, holds, wanted in (
        ("loss_sum", _is_number, "a finite number"),
        ("best", lambda value: _is_number(value) and -1 <= value <= 1, "a number from -1 to 1"),
    ):
        _require(holds(progress[key]), path, f"progress.{key}", _show(progress[key]), wanted)
    beyond = type(max_epoch) is int and progress["epoch"] > max_epoch
    _require(not beyond, path, "progress.epoch", progress["epoch"], f"at most train.max_epoch, {max_epoch}")
    correct, seen = progress["num_correct"], progress["num_seen"]
    _require(correct <= seen, path, "progress.num_correct", correct, f"at most num_seen, {seen}")
    for key in ("num_seen", "num_steps"):
        agrees = (progress[key] > 0) == (progress["batch"] > 0)
        _require(agrees, path, f"progress.{key}", progress[key], f"what {progress['batch']} batches bring")


def _check_optimizers(document: Mapping[str, Any], path: str | Path) -> None:
    has_stepped = document["progress"]["epoch"] > 0 or document["progress"]["batch"] > 0
    _require(bool(document["optimizers"]), path, "optimizers", "empty", "at least one")
    for name, saved in document["optimizers"].items():
        where = f"optimizers.{name}"
        whole = isinstance(saved, Mapping) and isinstance(saved.get("state"), Mapping)
        _require(whole and _are_groups(saved.get("param_groups")), path, where, _show(saved), "an optimiser's state")
        groups, state = saved["param_groups"], saved["state"]
        numbers = [number for group in groups for number in group["params"]]
        _require(state.keys() <= set(numbers), path, f"{where}.state", f"{len(state)} parameters", f"{len(numbers)}")
        keeps_nothing = all(group.get("momentum") == 0 and "alpha" not in group for group in groups)  # plain SGD
        _require(bool(state) or keeps_nothing or not has_stepped, path, f"{where}.state", "empty", "that of past steps")
        for number, values in state.items():
            _check_parameter_state(values, next(iter(state.values())), path, f"{where}.state.{number}")


def _check_parameter_state(values: Any, first: Any, path: str | Path, where: str) -> None:
    """Checks what an optimiser keeps of one parameter; ``first`` is what it keeps of its first."""
    _require(isinstance(values, Mapping) and values.keys() == first.keys(), path, where, _show(values),
             "the same as of the first parameter")  # fmt: skip
    for key, value in values.items():
        sound = value is None or _is_number(value)
        if isinstance(value, Tensor):
            sound = value.is_floating_point() and bool(value.isfinite().all())
            if key == "step" or key.endswith("sq") or key == "square_avg":
                sound = sound and bool((value >= 0).all())
        _require(sound, path, f"{where}.{key}", _show(value), "finite numbers, squares from 0")


def _check_schedulers(document: Mapping[str, Any], path: str | Path) -> None:
    epoch, batch = document["progress"]["epoch"], document["progress"]["batch"]
    optimizers, schedulers = document["optimizers"], document["schedulers"]
    known = bool(schedulers) and schedulers.keys() <= optimizers.keys()  # alphas of their own learn at a fixed rate
    _require(known, path, "schedulers", sorted(map(str, schedulers)), f"of {sorted(map(str, optimizers))}")
    for name, state in schedulers.items():
        where = f"schedulers.{name}"
        last = state.get("last_epoch") if isinstance(state, Mapping) else None
        _require(type(last) is int, path, f"{where}.last_epoch", _show(last), "a whole number")
        allowed = (epoch, epoch + 1) if batch else (epoch,)  # it steps at the end of an epoch, before the epoch counts
        _require(last in allowed, path, f"{where}.last_epoch", last, f"{epoch}, as progress.epoch is")
        count = state.get("_step_count", 1)
        _require(type(count) is int and count > 0, path, f"{where}._step_count", _show(count), "a whole number from 1")
        rates = [group["lr"] for group in optimizers[name]["param_groups"]]
        _require(state.get("_last_lr") == rates, path, f"{where}._last_lr", _show(state.get("_last_lr")), f"{rates}")


def _check_scaler(scaler: Mapping[str, Any], is_used: bool, path: str | Path) -> None:
    if scaler or is_used:
        found = sorted(map(str, scaler))
        _require(found == sorted(_SCALER), path, "scaler", found, f"{sorted(_SCALER)}")
    for key, value in scaler.items():
        sound = _is_number(value) and (value > 0 or (value == 0 and key == "_growth_tracker"))
        _require(sound, path, f"scaler.{key}", _show(value), "a number above 0")


def _check_random_states(states: Mapping[str, Any], path: str | Path) -> None:
    """Checks that the states are what ``utils.seed.capture_random_states`` gives, on generators of its own."""
    _check_restores(_restore_python, states.get("python"), path, "random.python")
    _check_restores(_restore_numpy, states.get("numpy"), path, "random.numpy")
    _check_generator(states.get("torch"), path, "random.torch")
    cuda = states.get("cuda")
    sound = isinstance(cuda, list) and all(
        isinstance(s, Tensor) and s.dtype == torch.uint8 and s.shape == (_NUM_CUDA_BYTES,) for s in cuda
    )
    _require(sound, path, "random.cuda", _show(cuda), f"{_NUM_CUDA_BYTES} bytes per GPU")


def _check_generator(state: Any, path: str | Path, where: str) -> None:
    _check_restores(torch.Generator().set_state, state, path, where)


def _check_restores(restore: Callable[[Any], object], state: Any, path: str | Path, where: str) -> None:
    try:
        restore(state)
    except (TypeError, ValueError, RuntimeError, OverflowError, LookupError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {where} is {_show(state)}, not the state of such a generator") from error


def _restore_python(state: Any) -> None:
    version, words, gauss = state
    if len(words) != _NUM_PYTHON_WORDS or not (gauss is None or _is_number(gauss)):
        raise ValueError
    random.Random(0).setstate((version, tuple(words), gauss))


def _restore_numpy(state: Any) -> None:
    kind, words, position, has_gauss, cached = state
    if words.shape != (_NUM_NUMPY_WORDS,) or words.dtype != torch.int64 or not 0 <= position <= _NUM_NUMPY_WORDS:
        raise ValueError
    if int(words.min()) < 0 or int(words.max()) >= 2**32 or has_gauss not in (0, 1) or not _is_number(cached):
        raise ValueError
    np.random.RandomState(0).set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, cached))


def _are_groups(groups: Any) -> bool:
    """Whether these are an optimiser's groups: parameter numbers, each once, and a learning rate."""
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return False
    if not all(isinstance(g.get("params"), list) and _is_number(g.get("lr")) and g["lr"] >= 0 for g in groups):
        return False
    numbers = [number for group in groups for number in group["params"]]
    return all(type(number) is int for number in numbers) and len(set(numbers)) == len(numbers) > 0


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether this is a number, a text, nothing, or named values or a list of such."""
    if value is None or isinstance(value, str | bool | int | float):
        return True
    if depth == _MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
        return False
    parts: Collection[Any] = value.values() if isinstance(value, Mapping) else value
    names = value.keys() if isinstance(value, Mapping) else ()
    return all(isinstance(name, str) for name in names) and all(_is_plain(part, depth + 1) for part in parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _show(value: Any) -> str:
    """Writes a value so that it fits into a line."""
    if isinstance(value, Tensor):
        return f"a tensor of {tuple(value.shape)} {value.dtype}"
    is_short = isinstance(value, list | tuple) and len(value) <= 4 and all(map(_is_number, value))
    if is_short or isinstance(value, str | int | float | None):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}…"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, Collection) else type(value).__name__


def _require(holds: bool, path: str | Path, where: str, found: Any, expected: str) -> None:
    if not holds:
        _fail(path, where, found, expected)


def _fail(path: str | Path, where: str, found: Any, expected: str) -> None:
    raise UserError(f"{path} is damaged: {where} is {found}, expected is {expected}; use an earlier checkpoint")
