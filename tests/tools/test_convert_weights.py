"""The command line that imports and exports Torchreid's weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from build import build_network, load_weights
from default_config import load_config
from genotype import CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_child import build_child
from osnet_nas import build_supernet
from tests.torchreid_peer import Peer, load_peer, load_pretrained_weights
from tools.convert_weights import main
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.network_file import read_network_file
from utils.torchreid_names import rename_to_torchreid
from utils.torchreid_weights import export_torchreid_weights

GOLDEN = Path(__file__).parents[1] / "golden"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Returns exit code, stdout, stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path, words: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def peer() -> Peer:
    return load_peer()


@pytest.fixture(scope="module")
def golden_weights() -> dict[str, Tensor]:
    with np.load(GOLDEN / "osnet_ain_x0_25.npz", allow_pickle=False) as file:
        return {k.removeprefix("weight/"): torch.from_numpy(file[k]) for k in file.files if k.startswith("weight/")}


def test_import_then_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, golden_weights: dict[str, Tensor]
) -> None:
    source, checkpoint, back = tmp_path / "source.pth", tmp_path / "ours.pt", tmp_path / "back.pth"
    torch.save({"state_dict": {f"module.{name}": t for name, t in golden_weights.items()}}, source)
    code, out, err = run(capsys, "import", source, checkpoint)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "child: width 0.25, instance stem norm, 10 identities"
    assert str(Genotype.named("osnet_ain")) in out
    assert repr(Genotype.named("osnet_ain")) in out

    model = build_child(10, Genotype.named("osnet_ain"), width=0.25)
    model.load_state_dict(load_checkpoint(checkpoint)["model"], strict=True)
    assert run(capsys, "export", checkpoint, back)[0] == 0
    exported = torch.load(back, weights_only=True)
    assert exported.keys() == golden_weights.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in golden_weights.items())


@pytest.mark.parametrize("name", ["osnet", "osnet_ibn"])
def test_osnet_scheme(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    stem_norm = NAMED_STEM_NORMS[name]
    model = build_child(3, Genotype.named(name), 0.5, stem_norm)
    save_checkpoint(tmp_path / "best.pt", {"model": model.state_dict(), "epoch": 3})
    assert run(capsys, "export", tmp_path / "best.pt", tmp_path / "out.pth")[0] == 0
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    assert exported.keys() == rename_to_torchreid(model.state_dict(), "osnet").keys()
    code, out, _ = run(capsys, "import", tmp_path / "out.pth", tmp_path / "again.pt")
    assert code == 0
    assert out.startswith(f"child: width 0.5, {stem_norm} stem norm, 3 identities")
    again = load_checkpoint(tmp_path / "again.pt")["model"]
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("genotype", "width"), [("osnet", 1.0), ("osnet", 0.25), ("osnet_ibn", 1.0), ("osnet_ain", 0.25)]
)
def test_torchreid_loads_every_tensor_of_an_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, peer: Peer, genotype: str, width: float
) -> None:
    """By its own rule: a tensor that fits in name and shape is taken, another one is left out and only named."""
    model = build_child(7, Genotype.named(genotype), width, NAMED_STEM_NORMS[genotype])
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    save_checkpoint(tmp_path / "best.pt", {"model": model.state_dict()})
    assert run(capsys, "export", tmp_path / "best.pt", tmp_path / "out.pth")[0] == 0
    theirs = peer[f"{genotype}_x{str(width).replace('.', '_')}"](num_classes=7, pretrained=False)
    load_pretrained_weights(theirs, tmp_path / "out.pth")
    assert "discarded" not in capsys.readouterr().out
    expected = export_torchreid_weights(model)
    assert theirs.state_dict().keys() == expected.keys()
    assert all(torch.equal(theirs.state_dict()[name], tensor) for name, tensor in expected.items())


def test_supernet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = build_supernet(4, width=0.25)
    torch.nn.init.uniform_(model.alphas)
    torch.save(export_torchreid_weights(model), tmp_path / "in.pth")
    code, out, _ = run(capsys, "import", tmp_path / "in.pth", tmp_path / "out.pt")
    assert code == 0
    assert out == "super-network: width 0.25, instance stem norm, 4 identities\n"
    state = load_checkpoint(tmp_path / "out.pt")["model"]
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["osnet_nas", "osnet_child"])
def test_imported_checkpoint_is_for_load_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, golden_weights: dict[str, Tensor], name: str
) -> None:
    genotype = {"model.genotype": "osnet_ain"} if name == "osnet_child" else {}
    cfg = load_config([], {"model.name": name, "model.width": 0.25, **genotype})
    weights = golden_weights if name == "osnet_child" else export_torchreid_weights(build_supernet(10, width=0.25))
    torch.save(weights, tmp_path / "in.pth")
    assert run(capsys, "import", tmp_path / "in.pth", tmp_path / "out.pt")[0] == 0
    network = build_network(cfg, num_classes=10)
    load_weights(network, read_network_file(tmp_path / "out.pt"))
    loaded = export_torchreid_weights(network.model)
    assert all(torch.equal(loaded[key], tensor) for key, tensor in weights.items())


def test_file_without_classifier(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, golden_weights: dict[str, Tensor]
) -> None:
    body = {name: t for name, t in golden_weights.items() if not name.startswith("classifier")}
    torch.save(body, tmp_path / "in.pth")
    code, out, _ = run(capsys, "import", tmp_path / "in.pth", tmp_path / "out.pt")
    assert code == 0
    assert "no classifier" in out
    assert "classifier.weight" not in load_checkpoint(tmp_path / "out.pt")["model"]
    assert run(capsys, "export", tmp_path / "out.pt", tmp_path / "back.pth")[0] == 0
    assert torch.load(tmp_path / "back.pth", weights_only=True).keys() == body.keys()


def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, golden_weights: dict[str, Tensor]
) -> None:
    target, source = tmp_path / "out.pt", tmp_path / "in.pth"
    assert_mistake(capsys, "import", tmp_path / "nowhere.pth", target, words="nowhere.pth")
    torch.save({name: t for name, t in golden_weights.items() if name != "conv5.bn.bias"}, source)
    assert_mistake(capsys, "import", source, target, words="in.pth: the weights do not fit")
    torch.save({"layer1.weight": torch.ones(2)}, source)
    assert_mistake(capsys, "import", source, target, words="in.pth: not the weights")
    torch.save(golden_weights | {"conv1.conv.weight": torch.ones(20, 3, 7, 7)}, source)
    assert_mistake(capsys, "import", source, target, words="no OSNet has a stem of 20 channels")
    torch.save(golden_weights, source)
    assert_mistake(capsys, "import", source, source, words="it is read as well, and would be lost")
    (tmp_path / "link.pt").symlink_to(source)
    assert_mistake(capsys, "import", source, tmp_path / "link.pt", words="it is read as well")
    assert_mistake(capsys, "import", source, Path(), words="there is a folder of that name")
    assert_mistake(capsys, "import", source, tmp_path / "no folder" / "out.pt", words="cannot write")
    assert_mistake(
        capsys, "export", source, target, words="is Torchreid's file, not a checkpoint of this project: use import"
    )
    torch.save({"layer1.weight": torch.ones(2)}, source)
    assert_mistake(capsys, "export", source, target, words="in.pth: not the weights of one of Torchreid's OSNets")
    save_checkpoint(source, {"epoch": 3})
    assert_mistake(capsys, "export", source, target, words="expected tensors by name, got nothing")
    model = build_child(3, Genotype.from_blocks([CANDIDATE_NAMES[3]] * 6), 0.25)
    save_checkpoint(source, {"model": model.state_dict()})
    assert_mistake(
        capsys, "import", source, target, words="is a checkpoint of this project, not Torchreid's file: use export"
    )
    assert_mistake(capsys, "export", source, target, "--scheme", "osnet", words="osnet and osnet_ibn")
    save_checkpoint(source, {"model": {**build_supernet(3, 0.25).state_dict(), "alphas": torch.ones(5, 4)}})
    assert_mistake(capsys, "export", source, target, words="alphas: (5, 4) in the weights, 6 rows are needed")
    assert not target.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(source), str(target), "--scheme", "other"])
