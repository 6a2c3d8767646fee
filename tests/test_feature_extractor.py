"""A trained child read from a file, and the features of images of every kind."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from datasets.decode import CorruptImageError
from default_config import load_config
from feature_extractor import FeatureExtractor
from genotype import Genotype
from network_settings import SMALLEST_HEIGHT, SMALLEST_WIDTH
from osnet_child import ChildNet, build_child
from osnet_nas import build_supernet
from trained_child import load_trained_child
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.torchreid_weights import export_torchreid_weights

GOLDEN = Path(__file__).parent / "golden" / "osnet_ain_x0_25.npz"
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
HEIGHT, WIDTH = 48, 32
GENOTYPE = Genotype(("OSBlockINv3", "OSBlock"), ("OSBlockINv2", "OSBlock"), ("OSBlock", "OSBlockINv1"))


@pytest.fixture(scope="module")
def child() -> ChildNet:
    """A child whose norms do something."""
    torch.manual_seed(0)
    model = build_child(7, GENOTYPE, 0.25, "batch").eval().requires_grad_(False)
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
def checkpoint(child: ChildNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    config = {"data.height": HEIGHT, "data.width": WIDTH, "data.norm_mean": [*MEAN], "data.norm_std": [*STD]}
    save_checkpoint(path, {"config": config, "model": child.state_dict()})
    return path


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Three images of the network's input size, each of 6×4 squares."""
    colours = np.random.default_rng(0).integers(0, 256, (3, HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return [*colours.repeat(8, axis=1).repeat(8, axis=2)]


@pytest.fixture(scope="module")
def files(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def expect(child: ChildNet, pictures: list[np.ndarray]) -> torch.Tensor:
    """Features by way of NumPy's float64 normalisation and the model alone."""
    normalised = (np.stack(pictures) / 255 - MEAN) / STD
    return child(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float())


def test_every_kind_of_input_gives_the_same_features(child, checkpoint, pictures, files):
    extract = FeatureExtractor(checkpoint)
    expected = expect(child, pictures)
    assert expected.std(0).max() > 0.02
    kinds = {
        "paths": files,
        "text paths": [str(file) for file in files],
        "PIL": [Image.fromarray(picture) for picture in pictures],
        "arrays": pictures,
        "one array of all": np.stack(pictures),
        "mixed": [files[0], pictures[1], Image.fromarray(pictures[2])],
        "uint8 tensor": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
        "normalised": torch.from_numpy((np.stack(pictures) / 255 - MEAN) / STD).permute(0, 3, 1, 2),
    }
    for kind, images in kinds.items():
        features = extract(images)
        assert features.shape == (3, 512), kind
        assert features.dtype == torch.float32, kind
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5, msg=kind)


def test_arrays_that_may_not_be_written(checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    extract = FeatureExtractor(checkpoint)
    expected = extract([image])
    image.setflags(write=False)
    assert torch.equal(extract([image]), expected)


def test_one_image_and_none(child, checkpoint, pictures, files):
    extract = FeatureExtractor(checkpoint)
    expected = expect(child, pictures[:1])
    for image in (files[0], str(files[0]), pictures[0], Image.fromarray(pictures[0])):
        torch.testing.assert_close(extract(image), expected, rtol=1e-4, atol=1e-5)
    assert extract([]).shape == (0, 512)


def test_batches_do_not_matter(checkpoint, files):
    torch.testing.assert_close(FeatureExtractor(checkpoint, batch_size=2)(files), FeatureExtractor(checkpoint)(files))


def test_flip_is_the_mean_over_the_mirror_image(child, checkpoint, pictures):
    mirrored = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    expected = (expect(child, pictures) + expect(child, mirrored)) / 2
    features = FeatureExtractor(checkpoint, flip=True)(pictures)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, expect(child, pictures), rtol=1e-4, atol=1e-5)


def test_other_sizes_are_resized_as_pillow_does(child, checkpoint, pictures):
    large = Image.fromarray(pictures[0]).resize((97, 201), Image.Resampling.NEAREST)
    resized = np.asarray(large.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    features = FeatureExtractor(checkpoint)(large)
    torch.testing.assert_close(features, expect(child, [resized]), rtol=1e-2, atol=1e-2)  # a grey level's rounding


def test_torchreid_weights_give_the_reference_features(tmp_path):
    """Golden features of the reference implementation, float32 here (see reference: held to 5e-4)."""
    golden = np.load(GOLDEN)
    weights = {k.removeprefix("weight/"): torch.from_numpy(v) for k, v in golden.items() if k.startswith("weight/")}
    torch.save({"state_dict": weights}, tmp_path / "osnet_ain.pth")
    extract = FeatureExtractor(tmp_path / "osnet_ain.pth", genotype=Genotype.named("osnet_ain"))
    assert (extract.child.height, extract.child.width) == (256, 128)
    features = extract(torch.from_numpy(golden["in/images"]).float())
    expected = torch.from_numpy(golden["out/features"]).float()
    torch.testing.assert_close(features, expected, rtol=5e-4, atol=5e-4 * float(expected.max()))


def test_what_a_checkpoint_says_and_what_is_asked_for(checkpoint):
    trained = load_trained_child(checkpoint)
    assert (trained.height, trained.width, trained.mean, trained.std) == (HEIGHT, WIDTH, MEAN, STD)
    assert (trained.multiplier, trained.model.genotype, trained.model.stem_norm) == (0.25, GENOTYPE, "batch")
    assert not trained.model.training
    assert not any(p.requires_grad for p in trained.model.parameters())
    other = load_trained_child(checkpoint, height=64, width=64, genotype=GENOTYPE)
    assert (other.height, other.width) == (64, 64)


def test_both_naming_schemes_and_the_batch_norm_stem(tmp_path):
    for scheme in ("ain", "osnet"):
        model = build_child(3, Genotype.named("osnet"), 0.5, "batch")
        torch.save(export_torchreid_weights(model, scheme), tmp_path / "osnet.pth")
        trained = load_trained_child(tmp_path / "osnet.pth")
        assert (trained.multiplier, trained.model.stem_norm) == (0.5, "batch")
        torch.testing.assert_close(trained.model.fc[0].weight, model.fc[0].weight, rtol=0, atol=0)


def test_a_broken_image_is_named(checkpoint, files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match=r"broken\.jpg") as caught:
        FeatureExtractor(checkpoint)([*files, broken])
    assert "\n" not in str(caught.value)


def test_the_smallest_input(tmp_path):
    """Instance norms wherever they can be; the config allows the same size."""
    child = build_child(1, Genotype.from_blocks(["OSBlockINv3"] * 6), 0.25)
    save_checkpoint(tmp_path / "best.pt", {"model": child.state_dict()})
    extract = FeatureExtractor(tmp_path / "best.pt", height=SMALLEST_HEIGHT, width=SMALLEST_WIDTH)
    assert extract(np.zeros((40, 20, 3), np.uint8)).isfinite().all()
    for key, smallest in (("data.height", SMALLEST_HEIGHT), ("data.width", SMALLEST_WIDTH)):
        assert load_config(overrides={key: smallest})
        with pytest.raises(UserError, match=key):
            load_config(overrides={key: smallest - 1})


def test_the_classifier_is_not_needed_and_not_spoken_of(child, checkpoint, tmp_path, caplog):
    body = {name: t for name, t in child.state_dict().items() if not name.startswith("classifier.")}
    save_checkpoint(tmp_path / "body.pt", {"model": body})
    for path in (checkpoint, tmp_path / "body.pt"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            load_trained_child(path)
        assert caplog.messages[0] == f"{path}: {len(body)} tensors loaded"


def test_weights_that_cannot_be_used(checkpoint, tmp_path):
    torch.save(export_torchreid_weights(build_supernet(2, 0.25)), tmp_path / "supernet.pth")
    (tmp_path / "text.pth").write_text("no weights")
    save_checkpoint(tmp_path / "empty.pt", {"epoch": 3})
    state = load_checkpoint(checkpoint)["model"]
    save_checkpoint(tmp_path / "part.pt", {"model": {k: v for k, v in state.items() if k != "fc.1.bias"}})
    for path, settings, message in (
        (tmp_path / "supernet.pth", {}, r"supernet\.pth: these are the weights of a super-network"),
        (tmp_path / "text.pth", {}, r"text\.pth "),
        (tmp_path / "none.pth", {}, r"no checkpoint .*none\.pth"),
        (checkpoint, {"genotype": Genotype.named("osnet")}, "wanted is Genotype"),
        (checkpoint, {"height": 31}, "at least 32×16"),
        (checkpoint, {"width": 15}, "at least 32×16"),
        (checkpoint, {"height": 0}, "input of 0×32 pixels"),
        (checkpoint, {"width": 0}, "input of 48×0 pixels"),
        (checkpoint, {"batch_size": 0}, "batch_size 0: it must be at least 1"),
        (checkpoint, {"batch_size": -1}, "batch_size -1: it must be at least 1"),
        (tmp_path / "empty.pt", {}, r"empty\.pt: expected tensors by name, got nothing"),
        (tmp_path / "part.pt", {}, r"part\.pt: the weights do not fit the network: 1 missing: fc\.1\.bias"),
        (checkpoint, {"device": "cuda:99"}, "'cuda:99' cannot be used"),
        (checkpoint, {"device": "meta"}, "'meta' cannot be used"),
        (checkpoint, {"device": "nowhere"}, "'nowhere' cannot be used"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            FeatureExtractor(path, **settings)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8), np.uint8), "got uint8"),
        ([np.zeros((8, 8, 3), np.float32)], "got float32"),
        ([np.zeros((8, 8, 4), np.uint8)], "got uint8"),
        ([np.zeros((0, 8, 3), np.uint8)], "got uint8"),
        (torch.zeros(2, 1, 8, 8), "expected a tensor"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "torch.int64"),
        ([Image.new("I;16", (8, 8))], "mode I;16"),
        ([3], "got int"),
    ],
)
def test_arguments_of_another_kind(images, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(checkpoint)(images)
