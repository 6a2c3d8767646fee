"""Other people's code to compare with: files of Torchreid 0.2.5, and of a checkout of its repository."""

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

from torch import nn

from osnet_blocks import WIDTHS
from utils.errors import UserError

SEARCH_FILE = Path("projects") / "OSNet_AIN" / "osnet_search.py"


def load_torchreid(file: str) -> ModuleType:
    """Loads one file of Torchreid alone; importing the whole package needs modules for downloads and plots.

    Raises:
        UserError: Torchreid is not installed.
    """
    spec = importlib.util.find_spec("torchreid")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("this benchmark compares with Torchreid: pip install -r requirements-dev.txt")
    path = Path(spec.submodule_search_locations[0]) / "reid" / file
    if not path.is_file():
        raise UserError(f"no {path}: the benchmark needs Torchreid 0.2.5, pip install torchreid==0.2.5")
    return _load(path)


def build_torchreid_child(num_classes: int, width: float) -> nn.Module:
    """Builds Torchreid's OSNet-AIN.

    Raises:
        UserError: Torchreid is not installed.
    """
    build = getattr(load_torchreid("models/osnet_ain.py"), f"osnet_ain_x{width}".replace(".", "_"))
    model: nn.Module = build(num_classes=num_classes, pretrained=False)
    return model


def build_reference_supernet(folder: Path, num_classes: int, width: float) -> nn.Module:
    """Builds the super-network of a checkout of Torchreid's repository, which has x1.0 alone, at any width.

    Raises:
        UserError: the folder has no such file.
    """
    path = folder / SEARCH_FILE
    if not path.is_file():
        raise UserError(
            f"--reference {folder}: no {SEARCH_FILE} there; give a checkout of KaiyangZhou/deep-person-reid"
        )
    module = _load(path)
    candidates = [module.OSBlock, module.OSBlockINv1, module.OSBlockINv2, module.OSBlockINv3]
    blocks, layers = [module.NASBlock] * 3, [2, 2, 2]
    model: nn.Module = module.OSNet(num_classes, blocks, layers, list(WIDTHS[width]), search_space=candidates)
    return model


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its Cython version was not built, which is not the one compared
        spec.loader.exec_module(module)
    return module
