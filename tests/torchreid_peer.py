"""Torchreid itself, where it is installed: its networks and how it loads weights.

Its files are loaded alone: importing the package needs its whole data stack.
"""

import ast
import importlib.util
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

Peer = dict[str, Callable[..., nn.Module]]


def find_folder() -> Path:
    """Returns where the package is; skips the test where it is not installed."""
    spec = importlib.util.find_spec("torchreid")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torchreid is not installed")
    return Path(spec.submodule_search_locations[0])


def load_peer() -> Peer:
    """Returns Torchreid's OSNets by name."""
    modules: list[ModuleType] = []
    for name in ("osnet", "osnet_ain"):
        path = next(find_folder().rglob(f"models/{name}.py"))
        spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        modules.append(module)
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def load_pretrained_weights(model: nn.Module, path: Path) -> None:
    """Loads weights as Torchreid does: what fits in name and shape is taken, the rest is named on stdout."""
    source = next(find_folder().rglob("utils/torchtools.py")).read_text()
    names = ("load_checkpoint", "load_pretrained_weights")
    functions: list[ast.stmt] = [
        n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name in names
    ]
    space: dict[str, Any] = {"torch": torch, "warnings": warnings, "OrderedDict": OrderedDict, "osp": os.path}
    exec(compile(ast.Module(functions, []), "torchtools.py", "exec"), space)
    space["load_pretrained_weights"](model, str(path))
