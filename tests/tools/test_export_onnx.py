"""ONNX models: the same features as PyTorch's, or no file."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genotype import Genotype
from osnet_child import ChildNet, build_child
from tools.export_onnx import compare_outputs, main
from utils.checkpoint import save_checkpoint
from utils.torchreid_weights import export_torchreid_weights

HEIGHT, WIDTH = 48, 32
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
# all four candidates, so that all places of an instance norm are there
ALL_FOUR = Genotype(("OSBlockINv3", "OSBlock"), ("OSBlockINv2", "OSBlockINv1"), ("OSBlock", "OSBlockINv1"))


def make_child(genotype: Genotype, width: float, stem_norm: str) -> ChildNet:
    """A child whose norms do something."""
    torch.manual_seed(0)
    model = build_child(5, genotype, width, stem_norm).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def child() -> ChildNet:
    return make_child(ALL_FOUR, 0.25, "instance")


@pytest.fixture(scope="module")
def exported(child: ChildNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the child, exported, compared on images of another size too."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("onnx")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (9, 30, 20, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    config = {"data.height": HEIGHT, "data.width": WIDTH, "data.norm_mean": MEAN, "data.norm_std": STD}
    save_checkpoint(folder / "best.pt", {"config": config, "model": child.state_dict()})
    assert main([str(folder / "best.pt"), str(folder / "child.onnx"), "--images", str(folder)]) == 0
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".png") == ["best.pt", "child.onnx"]
    return folder / "child.onnx"


def test_any_batch_size_gives_pytorchs_features(child, exported):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(3)
    for count in (1, 3, 8):
        images = generator.normal(size=(count, 3, HEIGHT, WIDTH)).astype(np.float32)
        (features,) = session.run(None, {"images": images})
        expected = child(torch.from_numpy(images)).numpy()
        assert features.shape == (count, 512)
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * expected.max())


def test_what_is_in_the_file(child, exported):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Gemm") + operators.count("MatMul") == 1
    # the stem's, and of the blocks v3: two, v2, v1, v1: one each
    assert operators.count("InstanceNormalization") + operators.count("GroupNormalization") == 6
    assert operators.count("Conv") == sum(isinstance(m, nn.Conv2d) for m in child.modules()) + 3 * 2 * 6  # shared gate
    (images,), (features,) = model.graph.input, model.graph.output
    assert (images.name, features.name) == ("images", "features")
    assert [d.dim_value for d in images.type.tensor_type.shape.dim] == [0, 3, HEIGHT, WIDTH]
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["genotype"]) == list(ALL_FOUR.blocks)
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == (MEAN, STD)
    size = json.loads(metadata["input"])
    assert (size["height"], size["width"]) == (HEIGHT, WIDTH)
    assert (metadata["width"], metadata["stem_norm"]) == ("0.25", "instance")


def test_another_network_is_told_apart(child, exported):
    """The comparison sees a change of one bias by a hundredth, an output that is not finite, and none where none is."""
    images = [torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))]
    content = exported.read_bytes()
    assert compare_outputs(content, child, images) < 1e-5
    other = make_child(ALL_FOUR, 0.25, "instance")
    other.fc[1].bias += 0.01
    assert compare_outputs(content, other, images) > 1e-3
    other.fc[1].bias[0] = float("nan")
    assert compare_outputs(content, other, images) == float("inf")


def test_features_that_differ_are_refused(child, exported, tmp_path, monkeypatch, capsys):
    """The child's own model within an impossible tolerance, from weights under Torchreid's names."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr("tools.export_onnx.make_onnx_model", lambda trained: onnx.load(exported))
    torch.save(export_torchreid_weights(child), tmp_path / "child.pth")
    target = tmp_path / "child.onnx"
    target.write_text("earlier")
    words = [str(tmp_path / "child.pth"), str(target), "--size", str(HEIGHT), str(WIDTH)]
    assert main([*words, "--tolerance", "1e-12"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("export_onnx: ONNX Runtime's features differ from PyTorch's by ")
    assert error.count("\n") == 1
    assert float(error.split(" by ")[1].split(" on ")[0]) < 1e-5
    assert target.read_text() == "earlier"
    assert {p.name for p in tmp_path.iterdir()} == {"child.pth", "child.onnx"}
    assert main(words) == 0
    assert onnx.load(target) == onnx.load(exported)


def test_a_missing_package_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", sys)
    assert main([str(tmp_path / "best.pt"), str(tmp_path / "child.onnx")]) == 2
    error = capsys.readouterr().err
    assert "-m pip install onnx onnxscript onnxruntime" in error
    assert error.count("\n") == 1


def test_mistakes_are_one_line(exported, tmp_path, capsys):
    weights = make_child(Genotype.named("osnet_ain"), 0.25, "instance")
    torch.save(export_torchreid_weights(weights), tmp_path / "ain.pth")
    for words, message in (
        ([str(tmp_path / "ain.pth"), str(tmp_path / "a.onnx"), "--size", "16", "16"], "at least 32×16"),
        ([str(tmp_path / "none.pt"), str(tmp_path / "child.onnx")], "no checkpoint"),
        ([str(tmp_path / "none.pt"), str(tmp_path / "none" / "child.onnx")], "no folder"),
        ([str(tmp_path / "none.pt"), str(tmp_path)], "there is a folder of that name"),
        ([str(tmp_path / "ain.pth"), str(tmp_path / "ain.pth")], "it is read as well, and would be lost"),
        ([str(tmp_path / "ain.pth"), str(tmp_path / "a.onnx"), "--tolerance", "nan"], "from 0 to 1"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("export_onnx: ")
        assert error.count("\n") == 1
