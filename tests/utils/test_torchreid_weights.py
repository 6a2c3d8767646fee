"""Torchreid's weights in and out: formats, names, mistakes, and parity with Torchreid itself where it is installed."""

import logging
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genotype import CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_child import ChildNet, build_child
from osnet_nas import build_supernet
from tests.torchreid_peer import Peer, load_peer
from utils.errors import UserError
from utils.network_file import read_network_file
from utils.torchreid_names import describe_torchreid_weights, rename_to_torchreid
from utils.torchreid_weights import export_torchreid_weights, load_torchreid_weights

GOLDEN = Path(__file__).parents[1] / "golden"
Weights = dict[str, Tensor]


def read_golden_weights(name: str) -> Weights:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        keys = [key for key in file.files if key.startswith("weight/")]
        return {key.removeprefix("weight/"): torch.from_numpy(file[key]) for key in keys}


@pytest.fixture(scope="module")
def golden_weights() -> Weights:
    return read_golden_weights("osnet_ain_x0_25")


@pytest.fixture(scope="module")
def supernet_weights() -> Weights:
    return read_golden_weights("supernet_x0_25")


def build_ain(num_classes: int = 10) -> ChildNet:
    return build_child(num_classes, Genotype.named("osnet_ain"), width=0.25)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name].double(), tensor.double()), name


def assert_refused(model: nn.Module, source: Any, *words: str) -> None:
    """The load fails with one line that has the words in it, and the model stays as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_torchreid_weights(model, source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert_same(model.state_dict(), before)


def randomise(model: nn.Module, seed: int) -> None:
    """Gives every parameter and running statistic its own value, of a size that keeps features alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(int(torch.randint(1000, (), generator=generator)))
            elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.ndim == 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
            else:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)


# ---- parity with Torchreid


@pytest.fixture(scope="module")
def peer() -> Peer:
    return load_peer()


PEERS = [
    *(("osnet", f"osnet_x{w}", float(w.replace("_", "."))) for w in ("1_0", "0_75", "0_5", "0_25")),
    ("osnet_ibn", "osnet_ibn_x1_0", 1.0),
    *(("osnet_ain", f"osnet_ain_x{w}", float(w.replace("_", "."))) for w in ("1_0", "0_75", "0_5", "0_25")),
]


@pytest.mark.parametrize(("genotype", "name", "width"), PEERS, ids=[row[1] for row in PEERS])
def test_agrees_with_torchreid(peer: Peer, genotype: str, name: str, width: float) -> None:
    theirs = peer[name](num_classes=7, pretrained=False)
    randomise(theirs, seed=1)
    theirs = theirs.double()
    ours = build_child(7, Genotype.named(genotype), width, NAMED_STEM_NORMS[genotype]).double()
    load_torchreid_weights(ours, theirs.state_dict())

    back = peer[name](num_classes=7, pretrained=False).double()
    back.load_state_dict(export_torchreid_weights(ours, "ain" if genotype == "osnet_ain" else "osnet"), strict=True)
    assert_same(back.state_dict(), theirs.state_dict())

    images = torch.randn(3, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for training in (False, True):
            expected = theirs.train(training)(images)
            assert expected.abs().max() > 0
            error = (ours.train(training)(images) - expected).abs().max() / expected.abs().max()
            assert error <= 1e-10
    statistics = export_torchreid_weights(ours, "ain" if genotype == "osnet_ain" else "osnet")
    torch.testing.assert_close(statistics, dict(theirs.state_dict()), rtol=1e-10, atol=1e-10)  # moved by one pass


# ---- names


def rename_to_osnet_scheme(weights: Weights) -> Weights:
    """Scheme (a) → (b) by the words of the reference: stream t is conv2{a,b,c,d}, the transitions are conv{2,3}.2.0."""
    renamed = {}
    for name, tensor in weights.items():
        if match := re.fullmatch(r"(conv\d\.\d)\.conv2\.(\d)\.layers\.(\d)\.(.*)", name):
            block, stream, depth, rest = match.groups()
            name = f"{block}.conv2a.{rest}" if stream == "0" else f"{block}.conv2{'abcd'[int(stream)]}.{depth}.{rest}"
        elif match := re.fullmatch(r"pool(\d)\.0\.(.*)", name):
            name = f"conv{match[1]}.2.0.{match[2]}"
        renamed[name] = tensor
    return renamed


def test_names_of_every_part_of_a_child() -> None:
    """Where each of our tensors goes, written out by hand for one block of each kind."""
    genotype = Genotype(("OSBlock", "OSBlockINv1"), ("OSBlockINv2", "OSBlockINv3"), ("OSBlock", "OSBlock"))
    state = build_child(3, genotype, width=0.25).state_dict()
    expected = {
        "conv1.conv.weight": "conv1.conv.weight",
        "conv1.norm.weight": "conv1.bn.weight",
        "conv2.0.reduce.conv.weight": "conv2.0.conv1.conv.weight",
        "conv2.0.reduce.norm.running_var": "conv2.0.conv1.bn.running_var",
        "conv2.0.streams.2.1.pointwise.weight": "conv2.0.conv2.2.layers.1.conv1.weight",
        "conv2.0.streams.2.1.depthwise.weight": "conv2.0.conv2.2.layers.1.conv2.weight",
        "conv2.0.streams.2.1.norm.bias": "conv2.0.conv2.2.layers.1.bn.bias",
        "conv2.0.gate.fc2.bias": "conv2.0.gate.fc2.bias",
        "conv2.0.expand.weight": "conv2.0.conv3.conv.weight",
        "conv2.0.norm_inside.running_mean": "conv2.0.conv3.bn.running_mean",
        "conv2.0.downsample.0.weight": "conv2.0.downsample.conv.weight",
        "conv2.0.downsample.1.num_batches_tracked": "conv2.0.downsample.bn.num_batches_tracked",
        "conv2.1.norm_inside.weight": "conv2.1.IN.weight",
        "pool2.conv.weight": "pool2.0.conv.weight",
        "pool2.norm.bias": "pool2.0.bn.bias",
        "conv3.0.norm_inside.weight": "conv3.0.conv3.bn.weight",
        "conv3.0.norm_outside.bias": "conv3.0.IN.bias",
        "conv3.1.norm_inside.bias": "conv3.1.IN_in.bias",
        "conv3.1.norm_outside.weight": "conv3.1.IN_out.weight",
        "conv5.norm.weight": "conv5.bn.weight",
        "fc.0.bias": "fc.0.bias",
        "fc.1.running_mean": "fc.1.running_mean",
        "classifier.weight": "classifier.weight",
    }
    renamed = rename_to_torchreid(state)
    for ours, theirs in expected.items():
        assert renamed[theirs] is state[ours]
    assert len(renamed) == len(state)
    assert rename_to_torchreid(state, "osnet").keys() == rename_to_osnet_scheme(renamed).keys()


def test_names_of_a_supernet() -> None:
    model = build_supernet(3, width=0.25)
    with torch.no_grad():
        model.alphas.copy_(torch.arange(24.0).reshape(6, 4))
    exported = export_torchreid_weights(model)
    for row, block in enumerate(("conv2.0", "conv2.1", "conv3.0", "conv3.1", "conv4.0", "conv4.1")):
        assert exported[f"{block}.weights"].tolist() == [4 * row, 4 * row + 1, 4 * row + 2, 4 * row + 3]
    expand = dict(model.named_parameters())["conv4.1.candidates.3.expand.weight"]
    assert torch.equal(exported["conv4.1.os_block.3.conv3.conv.weight"], expand)


@pytest.mark.parametrize("name", ["osnet", "osnet_ibn", "osnet_ain"])
@pytest.mark.parametrize("scheme", ["ain", "osnet"])
def test_both_schemes_load(name: str, scheme: str) -> None:
    source = build_child(4, Genotype.named(name), 0.25, NAMED_STEM_NORMS[name])
    randomise(source, seed=3)
    weights = export_torchreid_weights(source, "ain")
    target = build_child(4, Genotype.named(name), 0.25, NAMED_STEM_NORMS[name])
    load_torchreid_weights(target, rename_to_osnet_scheme(weights) if scheme == "osnet" else weights)
    assert_same(target.state_dict(), source.state_dict())


def test_osnet_scheme_of_golden_weights_loads(golden_weights: Weights) -> None:
    models = build_ain(), build_ain()
    load_torchreid_weights(models[0], golden_weights)
    load_torchreid_weights(models[1], rename_to_osnet_scheme(golden_weights))
    assert_same(models[1].state_dict(), models[0].state_dict())


def test_any_genotype_comes_back() -> None:
    rng = random.Random(4)
    for _ in range(8):
        genotype = Genotype.from_blocks(rng.choices(CANDIDATE_NAMES, k=6))
        stem_norm = rng.choice(("batch", "instance"))
        source, target = (build_child(3, genotype, 0.25, stem_norm) for _ in range(2))
        randomise(source, seed=rng.randrange(99))
        weights = export_torchreid_weights(source)
        assert describe_torchreid_weights(weights) == (genotype, stem_norm, 16, 3)
        load_torchreid_weights(target, weights)
        assert_same(target.state_dict(), source.state_dict())


def test_supernet_comes_back(supernet_weights: Weights) -> None:
    model = build_supernet(10, width=0.25)
    load_torchreid_weights(model, supernet_weights)
    assert_same(export_torchreid_weights(model), supernet_weights)
    assert describe_torchreid_weights(supernet_weights) == (None, "instance", 16, 10)


def test_export_is_a_copy(golden_weights: Weights) -> None:
    model = build_ain()
    load_torchreid_weights(model, golden_weights)
    exported = export_torchreid_weights(model.to(memory_format=torch.channels_last))
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in exported.values())
    for tensor in exported.values():
        tensor.zero_()
    assert_same(export_torchreid_weights(model), golden_weights)


def test_export_refuses_what_torchreid_lacks() -> None:
    with pytest.raises(UserError, match="allowed are ain, osnet"):
        export_torchreid_weights(build_ain(), "plain")
    with pytest.raises(UserError, match="osnet and osnet_ibn"):
        export_torchreid_weights(build_ain(), "osnet")
    with pytest.raises(UserError, match="osnet and osnet_ibn"):
        export_torchreid_weights(build_supernet(2, width=0.25), "osnet")


# ---- files


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["state_dict", "bare"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_file_formats(golden_weights: Weights, tmp_path: Path, zipped: bool, wrapped: bool, prefix: str) -> None:
    content: Any = {f"{prefix}{name}": tensor for name, tensor in golden_weights.items()}
    path = tmp_path / "model.pth.tar-10"
    torch.save({"state_dict": content} if wrapped else content, path, _use_new_zipfile_serialization=zipped)
    for source in (path, str(path)):
        model = build_ain()
        load_torchreid_weights(model, source)
        assert_same(export_torchreid_weights(model), golden_weights)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_training_checkpoint_with_numpy_scores(golden_weights: Weights, tmp_path: Path, zipped: bool) -> None:
    """As Torchreid's engine saves it: scores are NumPy scalars, which plain ``weights_only`` refuses."""
    trained = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(trained.parameters(), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    trained(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    path = tmp_path / "model-best.pth.tar"
    checkpoint = {
        "state_dict": golden_weights,
        "epoch": 60,
        "rank1": np.float32(0.94),
        "mAP": np.float64(0.83),
        "cmc": np.array([0.94, 0.97]),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    model, allowed = build_ain(), set(torch.serialization.get_safe_globals())
    load_torchreid_weights(model, path)
    assert_same(export_torchreid_weights(model), golden_weights)
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_file_of_python_2(tmp_path: Path) -> None:
    """Python 2 stored names as byte strings (opcode U, one byte of length) in place of text (X, four bytes)."""
    weights = {"module.conv1.conv.weight": torch.ones(2, 3), "module.fc.1.running_mean": torch.ones(4)}
    path = tmp_path / "model.pth.tar"
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=False)
    content = re.sub(rb"X(.)\x00\x00\x00", rb"U\1", path.read_bytes(), flags=re.DOTALL)
    path.write_bytes(content)
    assert content.count(b"module.") == 2
    assert b"X" not in content
    assert_same(dict(read_network_file(path).weights), {name.removeprefix("module."): t for name, t in weights.items()})


class MakesFolder:
    """Pickles as a call of ``os.mkdir``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_is_not_run(golden_weights: Weights, tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"state_dict": golden_weights, "extra": MakesFolder(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_refused(build_ain(), path, "evil.pth")
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have been


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_file(tmp_path: Path, zipped: bool) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "half.pth"
    torch.save({"state_dict": {"conv1.conv.weight": torch.ones(3)}}, whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    for length in range(0, len(content), 1 if not zipped else 29):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"half\.pth"):
            read_network_file(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    model = build_ain()
    assert_refused(model, tmp_path / "nowhere.pth", "nowhere.pth")
    assert_refused(model, tmp_path, str(tmp_path))
    text = tmp_path / "readme.txt"
    text.write_text("not weights\n")
    assert_refused(model, text, "readme.txt")
    assert_refused(model, GOLDEN / "ranking.npz", "ranking.npz")
    for content, word in (
        ([1, 2], "list"),
        ({}, "nothing"),
        ({"epoch": 3}, "'epoch' is a int"),
        (torch.ones(3), "Tensor"),
    ):
        torch.save(content, tmp_path / "other.pth")
        assert_refused(model, tmp_path / "other.pth", "other.pth", word)


# ---- numbers


@pytest.mark.parametrize("stored", [torch.float16, torch.float64])
def test_every_floating_type_loads(golden_weights: Weights, stored: torch.dtype) -> None:
    weights = {name: t.to(stored) if t.is_floating_point() else t for name, t in golden_weights.items()}
    model = build_ain().double().to(memory_format=torch.channels_last)
    load_torchreid_weights(model, weights)
    exported = export_torchreid_weights(model)
    assert exported["conv1.conv.weight"].dtype == torch.float64
    assert_same(exported, weights)


@pytest.mark.parametrize(
    "odd", [torch.ones(16, 3, 7, 7, dtype=torch.int64), torch.ones(16, 3, 7, 7, dtype=torch.complex64)]
)
def test_other_kinds_of_numbers_are_refused(golden_weights: Weights, odd: Tensor) -> None:
    assert_refused(build_ain(), golden_weights | {"conv1.conv.weight": odd}, "conv1.conv.weight", str(odd.dtype))


def test_tensors_without_plain_storage_are_refused(golden_weights: Weights) -> None:
    for odd in (torch.ones(16, 3, 7, 7).to_sparse(), torch.empty(16, 3, 7, 7, device="meta")):
        assert_refused(build_ain(), golden_weights | {"conv1.conv.weight": odd}, "conv1.conv.weight")


def test_batch_counters_may_be_missing(golden_weights: Weights) -> None:
    model = build_ain()
    weights = {name: t for name, t in golden_weights.items() if not name.endswith("num_batches_tracked")}
    load_torchreid_weights(model, weights)
    exported = export_torchreid_weights(model)
    assert_same({name: exported[name] for name in weights}, weights)


# ---- classifier


def test_classifier_of_another_size_is_left_out(golden_weights: Weights, caplog: pytest.LogCaptureFixture) -> None:
    model = build_ain(num_classes=7)
    before = {name: t.clone() for name, t in model.classifier.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_torchreid_weights(model, golden_weights)
    assert "classifier is for 10 identities, the network keeps its own for 7" in caplog.text
    assert f"{len(golden_weights) - 2} tensors" in caplog.text
    assert_same(model.classifier.state_dict(), before)
    exported = export_torchreid_weights(model)
    body = {name: t for name, t in golden_weights.items() if not name.startswith("classifier")}
    assert_same({name: exported[name] for name in body}, body)


def test_missing_classifier_is_allowed(golden_weights: Weights, caplog: pytest.LogCaptureFixture) -> None:
    model = build_ain()
    body = {name: t for name, t in golden_weights.items() if not name.startswith("classifier")}
    with caplog.at_level(logging.INFO):
        load_torchreid_weights(model, body)
    assert "no classifier" in caplog.text
    assert describe_torchreid_weights(body).num_classes is None


def test_classifier_that_nobody_wants_is_left_out(golden_weights: Weights, caplog: pytest.LogCaptureFixture) -> None:
    model = build_ain()
    before = {name: t.clone() for name, t in model.classifier.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_torchreid_weights(model, golden_weights, origin="best.pt", with_classifier=False)
    assert caplog.messages == [f"best.pt: {len(golden_weights) - 2} tensors loaded"]
    assert_same(model.classifier.state_dict(), before)


def test_half_a_classifier_is_refused(golden_weights: Weights) -> None:
    half = {name: t for name, t in golden_weights.items() if name != "classifier.bias"}
    assert_refused(build_ain(), half, "1 missing: classifier.bias")
    odd = golden_weights | {"classifier.weight": torch.ones(10, 2048)}
    assert_refused(build_ain(), odd, "classifier.weight", "10×2048")


# ---- weights of another network


def test_foreign_names_are_told(golden_weights: Weights) -> None:
    resnet = {"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64), "classifier.bias": torch.ones(10)}
    assert_refused(build_ain(), resnet, "no tensor", "conv1.weight, bn1.weight")
    with pytest.raises(UserError, match=r"conv1\.weight"):
        describe_torchreid_weights(resnet)


def test_missing_names_are_told(golden_weights: Weights) -> None:
    for gone in ("conv1.conv.weight", "conv2.0.conv3.conv.weight", "conv3.1.IN.bias", "conv4.1.conv3.bn.running_mean"):
        weights = {name: t for name, t in golden_weights.items() if name != gone}
        assert_refused(build_ain(), weights, f"1 missing: {gone}")
    blockless = {name: t for name, t in golden_weights.items() if not name.startswith("conv4.0.")}
    assert_refused(build_ain(), blockless, "missing: conv4.0.", "more")


def test_left_over_names_are_told(golden_weights: Weights) -> None:
    assert_refused(build_ain(), golden_weights | {"conv6.conv.weight": torch.ones(2)}, "1 not of", "conv6.conv.weight")


def test_another_width_is_told(golden_weights: Weights) -> None:
    model = build_child(10, Genotype.named("osnet_ain"), width=0.5)
    assert_refused(model, golden_weights, "conv1.conv.weight (16×3×7×7", "32×3×7×7", "width")


def test_another_genotype_is_told_block_by_block(golden_weights: Weights) -> None:
    for other in CANDIDATE_NAMES:
        if other == "OSBlockINv1":
            continue
        genotype = Genotype(("OSBlockINv1", other), ("OSBlock", "OSBlockINv1"), ("OSBlockINv1", "OSBlock"))
        model = build_child(10, genotype, width=0.25)
        assert_refused(model, golden_weights, f"conv2-2 is OSBlockINv1 in the weights and {other} in the network")
        with pytest.raises(UserError) as caught:
            load_torchreid_weights(model, rename_to_osnet_scheme(golden_weights))
        assert "conv2-1" not in str(caught.value)


def test_another_stem_norm_is_told(golden_weights: Weights) -> None:
    model = build_child(10, Genotype.named("osnet_ain"), 0.25, stem_norm="batch")
    assert_refused(model, golden_weights, "stem norm is instance in the weights and batch in the network")


def test_supernet_and_child_are_told_apart(golden_weights: Weights, supernet_weights: Weights) -> None:
    assert_refused(build_supernet(10, width=0.25), golden_weights, "of a child, the network is a super-network")
    assert_refused(build_ain(), supernet_weights, "of a super-network, the network is a child")


def test_shared_candidates_are_no_network_of_torchreids() -> None:
    weights = export_torchreid_weights(build_supernet(3, 0.25))
    shared = build_supernet(3, 0.25, candidates="shared")
    for convert in (lambda: load_torchreid_weights(shared, weights), lambda: export_torchreid_weights(shared)):
        with pytest.raises(UserError, match="have separate candidates: the weights of one"):
            convert()
