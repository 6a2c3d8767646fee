"""Exports a child network as an ONNX model, checked against PyTorch before it is written.

    python -m tools.export_onnx log/osnet_child/checkpoints/best.pt child.onnx --images PHOTOS
    python -m tools.export_onnx osnet_ain_x1_0.pth osnet_ain.onnx

Input ``images`` (batch, 3, H, W) float32, RGB in [0, 1], normalised; output ``features`` (batch, 512) float32; the
batch size is free. Batch norms are folded into the layers before them. Genotype, input size, mean and std are in the
model's metadata. Nothing is written when ONNX Runtime's features differ from PyTorch's by more than --tolerance.
Needs onnx, onnxscript and onnxruntime.
"""

import argparse
import importlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from feature_extractor import FeatureExtractor
from osnet_child import ChildNet, fold_batch_norms
from tools.extract_features import list_images
from trained_child import TrainedChild
from utils.errors import UserError
from utils.files import check_writable, write_atomically
from utils.tool import tool

MAX_REAL_IMAGES = 32
_OPSET = 18  # the lowest of PyTorch's exporter, read by every runtime since early 2023
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def import_onnx() -> tuple[ModuleType, ModuleType]:
    """Returns the modules onnx and onnxruntime.

    Raises:
        UserError: they, or onnxscript that PyTorch's exporter needs, are not installed.
    """
    try:
        onnx, _, onnxruntime = map(importlib.import_module, _PACKAGES)
    except ImportError as error:
        command = f"{Path(sys.executable).name} -m pip install {' '.join(_PACKAGES)}"
        raise UserError(f"the export needs a package that is not there ({error}); install with: {command}") from error
    return onnx, onnxruntime


def make_onnx_model(trained: TrainedChild) -> Any:
    """Exports a child, its batch norms folded, to an ``onnx.ModelProto`` with a free batch size and metadata."""
    onnx, _ = import_onnx()
    example = torch.zeros(2, 3, trained.height, trained.width)
    with warnings.catch_warnings():
        # of PyTorch's exporter about its own and onnxscript's insides
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        program = torch.onnx.export(
            fold_batch_norms(trained.model).eval(),
            (example,),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    kept = [node.op_type for node in model.graph.node if node.op_type == "BatchNormalization"]
    if kept:
        raise RuntimeError(f"{len(kept)} batch norms were not folded")
    metadata = {
        "genotype": json.dumps(trained.model.genotype.blocks),
        "stem_norm": trained.model.stem_norm,
        "width": f"{trained.multiplier:g}",
        "input": json.dumps({"height": trained.height, "width": trained.width, "channels": "RGB", "range": [0, 1]}),
        "mean": json.dumps(trained.mean),
        "std": json.dumps(trained.std),
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def compare_outputs(content: bytes, child: ChildNet, batches: Sequence[Tensor]) -> float:
    """Returns the largest difference between ONNX Runtime's and PyTorch's features over all batches.

    Args:
        content: The serialised ONNX model.
        child: What it was made from, on the CPU in evaluation mode.
        batches: Normalised images (N, 3, H, W) float32, at least one batch.

    Returns:
        Absolute difference over the largest feature of the same batch, unitless, ≥ 0; NaN counts as infinite.
    """
    _, onnxruntime = import_onnx()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in batches:
        with torch.no_grad():
            expected = child(images)
        features = torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])
        if features.shape != expected.shape:
            return float("inf")
        difference = float((features - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def draw_batches(height: int, width: int) -> list[Tensor]:
    """Draws random normalised images in batches of 1, 2 and 5, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, 3, height, width, generator=generator) for count in (1, 2, 5)]


def read_batches(extractor: FeatureExtractor, folder: Path) -> Iterator[Tensor]:
    """Yields normalised images of a folder, the first ``MAX_REAL_IMAGES``, in batches of up to 8.

    Raises:
        UserError: there is no image, or a broken one.
    """
    files = list_images(folder).files[:MAX_REAL_IMAGES]
    for start in range(0, len(files), 8):
        yield extractor.normalise(torch.stack([extractor.read(file) for file in files[start : start + 8]])).contiguous()


def export_onnx(
    weights: Path, target: Path, *, size: Sequence[int] | None, images: Path | None, tolerance: float
) -> str:
    """Exports, checks and writes; returns a summary.

    Raises:
        UserError: the weights or images cannot be read, a package is missing, the outputs differ by more than
            ``tolerance`` (of the largest feature), or ``target`` cannot be written. Nothing is written then.
    """
    import_onnx()
    check_writable(target, weights)
    height, width = size or (None, None)
    extractor = FeatureExtractor(weights, height=height, width=width)
    trained = extractor.child
    real = [] if images is None else list(read_batches(extractor, images))
    model = make_onnx_model(trained)
    content = model.SerializeToString()
    differences = {
        kind: compare_outputs(content, trained.model, batches)
        for kind, batches in (("random", draw_batches(trained.height, trained.width)), ("real", real))
        if batches
    }
    told = ", ".join(f"{difference:.1e} on {kind} images" for kind, difference in differences.items())
    if not max(differences.values()) <= tolerance:
        raise UserError(
            f"ONNX Runtime's features differ from PyTorch's by {told}, relative to the largest feature; --tolerance is "
            f"{tolerance:g}; nothing was written"
        )
    write_atomically(target, content)
    counts = {op: sum(n.op_type == op for n in model.graph.node) for op in ("Conv", "Gemm", "InstanceNormalization")}
    return (
        f"{target}: {len(content) / 1e6:.1f} MB, opset {model.opset_import[0].version}, no batch norm left, "
        f"{', '.join(f'{count} {op}' for op, count in counts.items())}\n"
        f"largest difference from PyTorch, relative to the largest feature: {told}"
    )


@tool("export_onnx")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error or a difference."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export_onnx",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="checkpoint of a child, or Torchreid's file")
    parser.add_argument("target", type=Path, help="ONNX file; an existing one is replaced")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="input in pixels (default: as trained)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help=f"compare on up to {MAX_REAL_IMAGES} real images too"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest difference, as a share of the largest feature (1e-4)"
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.tolerance <= 1:
        raise UserError(f"--tolerance {given.tolerance:g}: it is a share of the largest feature, from 0 to 1")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    summary = export_onnx(given.weights, given.target, size=given.size, images=given.images, tolerance=given.tolerance)
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
