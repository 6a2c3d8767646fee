"""The command line that writes features of a folder or of a manifest's files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.base import Sample
from datasets.loaders import EvalLoader, Preparer
from engine import memory
from engine.evaluator import compute_features
from genotype import Genotype
from osnet_child import ChildNet, build_child
from tools.extract_features import main
from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime

HEIGHT, WIDTH = 48, 32


@pytest.fixture(scope="module")
def child() -> ChildNet:
    torch.manual_seed(0)
    return build_child(4, Genotype.named("osnet_ibn"), 0.25, "instance")


@pytest.fixture
def weights(child: ChildNet, tmp_path: Path) -> Path:
    save_checkpoint(
        tmp_path / "best.pt", {"config": {"data.height": HEIGHT, "data.width": WIDTH}, "model": child.state_dict()}
    )
    return tmp_path / "best.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of different sizes, one of them in a folder below, and a file that is none."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(["b.png", "a.jpg", "c/d.bmp", "e.PNG", "f.jpg"]):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 30 + i, 3), dtype=np.uint8)).save(file)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


def evaluate(child: ChildNet, files: list[str]) -> np.ndarray:
    """Features of the project's own evaluation."""
    preparer = Preparer()
    loader = EvalLoader([Sample(file, 0, 0) for file in files], batch_size=2, height=HEIGHT, width=WIDTH)
    cpu = torch.device("cpu")
    features, _, _ = compute_features(child, loader, lambda batch: preparer(batch, cpu), Runtime(cpu))
    return features.numpy()


@pytest.mark.parametrize("batch_size", ["1", "2", "100"])
def test_folder_as_the_evaluation_does_it(batch_size, child, weights, folder, tmp_path, capsys):
    output = tmp_path / "features.npz"
    words = [str(folder), "--weights", str(weights), "--output", str(output), "--batch-size", batch_size]
    assert main(words) == 0
    assert "5 of 5 images" in capsys.readouterr().out
    files = [str(folder / name) for name in ("a.jpg", "b.png", "c/d.bmp", "e.PNG", "f.jpg")]
    with np.load(output) as table:
        assert table["paths"].tolist() == files
        expected = evaluate(child, files)
        assert expected.std(0).max() > 1e-3
        np.testing.assert_allclose(table["features"], expected, rtol=1e-4, atol=1e-6)


def test_manifest_into_two_tables(child, weights, folder, tmp_path):
    (tmp_path / "people.csv").write_text("pid,path\n7,images/f.jpg\n3,images/a.jpg\n7,images/f.jpg\n")
    outputs = [tmp_path / "features.npz", tmp_path / "features.csv"]
    assert main([str(tmp_path / "people.csv"), "--weights", str(weights), "--output", *map(str, outputs)]) == 0
    with np.load(outputs[0]) as table:
        assert table["paths"].tolist() == ["images/f.jpg", "images/a.jpg", "images/f.jpg"]
        assert table["pid"].tolist() == [7, 3, 7]
        expected = evaluate(child, [str(folder / name) for name in ("f.jpg", "a.jpg", "f.jpg")])
        np.testing.assert_allclose(table["features"], expected, rtol=1e-4, atol=1e-6)
        lines = outputs[1].read_text().splitlines()
        assert lines[0].startswith("path,pid,f0,")
        assert lines[2].startswith("images/a.jpg,3,")
        np.testing.assert_array_equal(np.float32(lines[2].split(",")[2:]), table["features"][1])


def test_broken_images(child, weights, folder, tmp_path, capsys):
    (folder / "a.jpg").write_bytes(b"cut off")
    (folder / "g.jpg").symlink_to("nowhere")
    output = tmp_path / "features.npz"
    words = [str(folder), "--weights", str(weights), "--output", str(output), "--batch-size", "2"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"extract_features: broken image {folder / 'a.jpg'}: ")
    assert error.count("\n") == 1
    assert not output.exists()
    assert main([*words, "--on-corrupt", "skip"]) == 0
    printed = capsys.readouterr().out
    assert f"left out: broken image {folder / 'a.jpg'}" in printed
    assert f"left out: cannot read image {folder / 'g.jpg'}" in printed
    assert "4 of 6 images" in printed
    with np.load(output) as table:
        files = [str(folder / name) for name in ("b.png", "c/d.bmp", "e.PNG", "f.jpg")]
        assert table["paths"].tolist() == files
        np.testing.assert_allclose(table["features"], evaluate(child, files), rtol=1e-4, atol=1e-6)


def test_nothing_readable(weights, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.jpg").write_bytes(b"")
    words = ["--weights", str(weights), "--output", str(tmp_path / "f.npz"), "--on-corrupt", "skip"]
    assert main([str(tmp_path / "empty"), *words]) == 2
    assert "none of the 1 images can be read" in capsys.readouterr().err


def test_weights_gone_wrong(child, folder, tmp_path, capsys):
    state = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    state["fc.1.running_mean"][0], state["fc.1.weight"][0] = -3e38, 9.0  # finite, but not what comes of them
    save_checkpoint(tmp_path / "bad.pt", {"model": state})
    words = [str(folder), "--weights", str(tmp_path / "bad.pt"), "--output", str(tmp_path / "f.npz")]
    assert main([*words, "--size", "32", "16"]) == 2
    assert f"the features of {folder / 'a.jpg'} are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "16"])
def test_too_small_for_the_last_instance_norm(size, folder, tmp_path, capsys):
    """One image of 16×16 leaves one pixel to conv4; no size is not the trained one."""
    save_checkpoint(tmp_path / "ain.pt", {"model": build_child(1, Genotype.named("osnet_ain"), 0.25).state_dict()})
    (tmp_path / "one.csv").write_text("path\nimages/a.jpg\n")
    words = [str(tmp_path / "one.csv"), "--weights", str(tmp_path / "ain.pt"), "--output", str(tmp_path / "f.npz")]
    assert main([*words, "--size", size, size]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"extract_features: input of {size}×{size} pixels")
    assert error.count("\n") == 1
    assert main([*words, "--size", "32", "16"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images", "--output", "f.parquet"], "must end in .npz or .csv"),
        (["images", "--output", "none/f.npz"], "no folder"),
        (["images", "--output", "f.npz", "--batch-size", "0"], "at least 1"),
        (["images", "--output", "f.npz", "--size", "8", "8"], "at least 32×16"),
        (["images/a.jpg", "--output", "f.npz"], "is the file a CSV in UTF-8?"),
        (["nul.csv", "--output", "f.npz", "--on-corrupt", "skip"], "nul.csv, line 3: a NUL byte"),
        (["images", "--output", "bare.npz"], "bare.npz: there is a folder of that name"),
        (["images", "--output", "f.npz", "images/../f.npz"], "the same file is given twice"),
        (["nul.csv", "--output", "nul.csv"], "it is read as well, and would be lost"),
        (["images", "--output", "loop.npz", "--size", "8", "8"], "at least 32×16"),
        (["images", "--output", "pipe.npz"], "there is a pipe, device or socket of that name"),
        (
            ["images", "--output", "f.npz", "--size", "4096", "4096", "--batch-size", "1"],
            "the memory is too small for 1",
        ),
        (["odd", "--output", "f.npz"], "cannot read image odd/b.jpg: No such file"),
        (["long.csv", "--output", "f.npz"], "is nameless, too long, there twice"),
        (["nowhere", "--output", "f.npz"], "give a folder of images or a CSV manifest"),
        (["bare", "--output", "f.npz"], "no image in"),
    ],
)
def test_a_mistake_is_one_line(words, message, weights, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare.npz").mkdir()
    (tmp_path / "nul.csv").write_bytes(b"path\nimages/a.jpg\nimages/\0.jpg\n")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (tmp_path / "odd" / "b.jpg").symlink_to("nowhere")
    (tmp_path / "long.csv").write_text(f"path,{'x' * 70_000}\nimages/a.jpg,1\n")
    monkeypatch.setattr(memory, "measure_free_memory", lambda runtime: 2**25)
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--weights", str(weights)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("extract_features: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "f.npz").exists()
