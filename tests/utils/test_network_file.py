"""Files of weights told apart, and loaded into a network strictly: whole and fitting, or not at all."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genotype import Genotype
from osnet_child import ChildNet, build_child
from osnet_nas import SuperNet, build_supernet
from tests.same import assert_same
from utils import network_file
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.network_file import NetworkFile, load_network_weights, read_network_file
from utils.torchreid_weights import export_torchreid_weights

OSNET = Genotype.named("osnet")
NAMES = ("conv1.conv.weight", "conv1.norm.running_var", "conv2.0.gate.fc1.bias", "conv5.norm.num_batches_tracked")


def build(num_classes: int = 5) -> ChildNet:
    return build_child(num_classes, OSNET, 0.25, "batch")


@pytest.fixture(scope="module")
def source() -> ChildNet:
    torch.manual_seed(1)
    return build()


def write(path: Path, model: object) -> Path:
    save_checkpoint(path / "best.pt", {"model": model})
    return path / "best.pt"


def assert_refused(weights: dict[str, Tensor], *words: str, model: ChildNet | SuperNet | None = None) -> None:
    """Loading fails with one line that has the words in it, and the network stays as it was."""
    model = model or build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_network_weights(model, NetworkFile("best.pt", weights, {"model": weights}))
    message = str(caught.value)
    assert message.startswith("best.pt: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert_same(dict(model.state_dict()), before)


def test_ours_and_torchreids_are_told_apart_and_read_once(tmp_path, source, monkeypatch):
    torch.save({"state_dict": export_torchreid_weights(source)}, tmp_path / "theirs.pth")
    paths, read = [], network_file.read_torch_file
    monkeypatch.setattr(network_file, "read_torch_file", lambda path: paths.append(str(path)) or read(path))
    for path, is_own in ((write(tmp_path, source.state_dict()), True), (tmp_path / "theirs.pth", False)):
        file = read_network_file(path)
        assert (file.checkpoint is not None) == is_own
        assert not file.is_supernet
        assert file.describe() == (OSNET, "batch", 16, 5)
        model = build()
        load_network_weights(model, file)
        assert_same(dict(model.state_dict()), dict(source.state_dict()))
    assert paths == [str(tmp_path / "best.pt"), str(tmp_path / "theirs.pth")]


def test_super_network(tmp_path):
    supernet = build_supernet(3, 0.25)
    path = write(tmp_path, supernet.state_dict())
    file = read_network_file(path)
    assert file.is_supernet
    assert file.describe() == (None, "instance", 16, 3)
    target = build_supernet(3, 0.25)
    load_network_weights(target, file)
    assert_same(dict(target.state_dict()), dict(supernet.state_dict()))
    other = {**supernet.state_dict(), "alphas": torch.ones(6, 5)}
    assert_refused(other, "alphas (6×5 in the weights, 6×4 in the network)", model=target)


@pytest.mark.parametrize("content", [{}, None, [], torch.ones(3), "weights", {"conv1": [1.0]}, {1: torch.ones(1)}])
def test_no_tensors_by_name(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=r"best\.pt: expected tensors by name") as caught:
        read_network_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_must_be_there(source, name):
    state = source.state_dict()
    del state[name]
    assert_refused(state, f"1 missing: {name}")


def test_the_first_three_are_named(source):
    state = {name: t for name, t in source.state_dict().items() if not name.startswith("conv4")}
    assert_refused(state, " missing: conv4.0.reduce.conv.weight, conv4.0.reduce.norm.weight, "
                   "conv4.0.reduce.norm.bias and ")  # fmt: skip
    assert_refused({**source.state_dict(), "conv6.weight": torch.ones(1)}, "1 not of this", "conv6")


def test_names_that_would_break_the_line_are_escaped(source):
    assert_refused({**source.state_dict(), "conv\n6": torch.ones(1), "x" * 10**6: torch.ones(1)}, r"'conv\n6'", "xxx")
    assert_refused({**source.state_dict(), "more\n": torch.ones(1).to_sparse()}, r"'more\n'")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda t: t.new_zeros(*t.shape, 2), lambda t: t.to(torch.complex64),
                                    lambda t: t.bool()], ids=["shape", "complex", "bool"])  # fmt: skip
def test_each_layer_must_be_of_the_right_shape_and_kind(source, name, change):
    state = source.state_dict()
    assert_refused({**state, name: change(state[name])}, name, "of another")


def test_whole_numbers_are_no_weights_and_fractions_no_counters(source):
    state = source.state_dict()
    whole = {name: tensor.long() for name, tensor in state.items()}
    assert_refused(whole, "of another shape or kind: conv1.conv.weight (16×3×7×7 torch.int64")
    counter = {**state, NAMES[3]: torch.tensor(1.5)}
    assert_refused(counter, NAMES[3])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_must_be_finite(source, value):
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    state["fc.0.weight"][3, 5] = value
    assert_refused(state, "not finite", "fc.0.weight")


def test_weights_must_be_finite_in_the_networks_own_precision(source):
    state = {**source.state_dict(), "fc.0.bias": torch.full((512,), 1e300, dtype=torch.float64)}
    assert_refused(state, "not finite", "fc.0.bias")


def test_variances_must_not_be_negative(source):
    assert_refused({**source.state_dict(), NAMES[1]: -torch.ones(16)}, "a variance below 0", NAMES[1])


def test_half_precision_loads(tmp_path, source):
    half = {name: t.half() if t.is_floating_point() else t for name, t in source.state_dict().items()}
    model = build()
    load_network_weights(model, read_network_file(write(tmp_path, half)))
    assert torch.equal(model.fc[0].weight, half["fc.0.weight"].float())
    assert model.fc[0].weight.dtype == torch.float32


# ---- classifier


def load(
    weights: dict[str, Tensor], num_classes: int, caplog: pytest.LogCaptureFixture
) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
    """Returns the classifier before and after loading, and what the log says."""
    model = build(num_classes)
    before = {name: tensor.clone() for name, tensor in model.classifier.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_network_weights(model, NetworkFile("best.pt", weights, {"model": weights}))
    return before, dict(model.classifier.state_dict()), caplog.text


def test_classifier_of_the_same_identities_is_loaded(source, caplog):
    _, after, told = load(source.state_dict(), 5, caplog)
    assert_same(after, dict(source.classifier.state_dict()))
    assert f"{len(source.state_dict())} tensors loaded\n" in told


def test_classifier_of_other_identities_stays_out_and_the_log_says_so(source, caplog):
    before, after, told = load(source.state_dict(), 8, caplog)
    assert_same(after, before)
    assert "their classifier is for 5 identities, the network keeps its own for 8" in told


def test_classifier_may_be_missing_as_a_whole(source, caplog):
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("classifier.")}
    before, after, told = load(state, 5, caplog)
    assert_same(after, before)
    assert "they have no classifier, the network keeps its own" in told


@pytest.mark.parametrize("with_classifier", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"classifier.bias": None},
        {"classifier.weight": None},
        {"classifier.bias": torch.zeros(6)},
        {"classifier.weight": torch.zeros(5, 511)},
        {"classifier.weight": torch.zeros(9, 512, dtype=torch.int64), "classifier.bias": torch.zeros(9)},
        {"classifier.weight": torch.zeros(0, 512), "classifier.bias": torch.zeros(0)},
        {"classifier.weight": torch.tensor(1.0)},
    ],
)
def test_half_a_classifier_is_refused(source, change, with_classifier):
    state = {name: t for name, t in {**source.state_dict(), **change}.items() if t is not None}
    file = NetworkFile("best.pt", state, {"model": state})
    with pytest.raises(UserError, match=r"classifier\.") as caught:
        load_network_weights(build(), file, with_classifier=with_classifier)
    assert "\n" not in str(caught.value)
