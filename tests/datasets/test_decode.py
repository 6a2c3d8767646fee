"""What is no file is not waited for; where torchvision's JPEG decoder is gone, Pillow takes its place."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import decode


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((20, 40), Image.Resampling.BICUBIC).save(path)
    return path


def load_anew(name: str) -> types.ModuleType:
    """Runs the module's file once more, beside the one that all others use."""
    spec = importlib.util.spec_from_file_location(name, decode.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("lacking", ["no torchvision", "no decode_jpeg", "built without a decoder"])
def test_without_torchvisions_decoder(lacking: str, photograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking == "built without a decoder":

        def fail(data: torch.Tensor) -> None:
            raise AttributeError("'_OpNamespace' 'image' object has no attribute 'decode_jpeg'")

        module = decode
        monkeypatch.setattr(decode, "decode_jpeg", fail)
    else:
        stub = None if lacking == "no torchvision" else types.ModuleType("torchvision.io")
        monkeypatch.setitem(sys.modules, "torchvision.io", stub)
        module = load_anew("decode_without_torchvision")

    decoded = module.decode_image(photograph)

    with Image.open(photograph) as image:
        np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), np.asarray(image))
    photograph.write_bytes(photograph.read_bytes()[:300])
    with pytest.raises(module.CorruptImageError, match=r"broken image .*image.jpg"):
        module.decode_image(photograph)


def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.jpg")
    for path in (tmp_path / "image.jpg", "/dev/zero"):
        with pytest.raises(decode.CorruptImageError, match="it is no regular file"):
            decode.decode_image(path)


def test_torchvisions_warnings_are_no_errors(photograph: Path) -> None:
    """Also where the user makes errors of warnings, as in PYTHONWARNINGS=error."""
    code = f"from datasets.decode import decode_image; print(decode_image({str(photograph)!r}).shape)"
    result = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:torchvision", "-W", "error::DeprecationWarning", "-c", code],
        cwd=Path(decode.__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "torch.Size([3, 40, 20])" in result.stdout, result.stderr
