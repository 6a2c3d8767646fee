"""Decoding, resizing and augmentation against Pillow, torchvision and plain single-image versions."""

import contextlib
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import functional as tvf

from datasets import augment
from datasets.augment import ColorAug, ColorJitter, RandomCrop, RandomErase, RandomFlip, RandomPatch, rotate
from datasets.decode import CorruptImageError, decode_image, resize
from datasets.transforms import TRANSFORMS, Pipeline, draw_uniforms
from utils.errors import UserError

HEIGHT, WIDTH = 64, 32


def make_image(seed: int, height: int = 48, width: int = 30) -> Image.Image:
    """A smooth coloured picture with some noise, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + rng.integers(-9, 10, pixels.shape)).clip(0, 255).astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def make_batch(count: int, seed: int = 0) -> Tensor:
    return torch.stack([to_tensor(make_image(seed + i, HEIGHT, WIDTH)) for i in range(count)])


def largest_difference(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def uniforms(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, width))


# decoding


FORMATS = [
    ("rgb.jpg", "RGB", {"quality": 90}),
    ("progressive.jpg", "RGB", {"progressive": True}),
    ("grey.jpg", "L", {}),
    ("cmyk.jpg", "CMYK", {}),
    ("rgb.png", "RGB", {}),
    ("alpha.png", "RGBA", {}),
    ("grey.png", "L", {}),
    ("palette.png", "P", {}),
    ("see_through.png", "P", {"transparency": 3}),
    ("rgb.bmp", "RGB", {}),
    ("palette.gif", "P", {}),
]


@pytest.mark.parametrize(("name", "mode", "options"), FORMATS, ids=[f[0] for f in FORMATS])
def test_decoding_gives_the_pixels_of_pillow(tmp_path: Path, name: str, mode: str, options: dict) -> None:
    make_image(1).convert(mode).save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as image:
        expected = np.array(image.convert("RGBA").convert("RGB") if mode == "P" else image.convert("RGB"))

    decoded = decode_image(tmp_path / name)

    assert decoded.dtype == torch.uint8
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), expected)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 256 * 3, dtype=np.uint16).reshape(2, -1)
    Image.fromarray(values).save(tmp_path / "deep.png")

    decoded = decode_image(tmp_path / "deep.png")

    np.testing.assert_array_equal(decoded.numpy(), np.broadcast_to(values >> 8, (3, *values.shape)))


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    make_image(1, 48, 30).save(tmp_path / "turned.jpg", exif=exif)

    assert decode_image(tmp_path / "turned.jpg").shape == (3, 48, 30)


def truncated(suffix: str) -> bytes:
    buffer = io.BytesIO()
    make_image(1).save(buffer, suffix)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"\xff\xd8\xff", truncated("jpeg"), truncated("png"), truncated("bmp")]
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CorruptImageError, match=r"broken\.jpg") as caught:
        decode_image(path)

    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_png_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    """Each in a process of its own: torchvision's decoder ends the process."""
    whole = io.BytesIO()
    make_image(1, 48, 30).save(whole, "png")
    at = whole.getvalue().index(b"IDAT") + 4
    for position in range(at + 2, len(whole.getvalue()) - 20, 97):
        damaged = bytearray(whole.getvalue())
        damaged[position] ^= 0xFF
        path = tmp_path / "damaged.png"
        path.write_bytes(damaged)
        if not (pid := os.fork()):
            with contextlib.suppress(CorruptImageError):
                decode_image(path)
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, position


@given(st.tuples(*[st.integers(8, 90)] * 4), st.integers(0, 9))
@settings(max_examples=40)
def test_resizing_is_pillows(sizes: tuple[int, int, int, int], seed: int) -> None:
    height, width, new_height, new_width = sizes
    image = make_image(seed, height, width)

    resized = resize(to_tensor(image), new_height, new_width)

    expected = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
    assert resized.shape == (3, new_height, new_width)
    assert largest_difference(resized, to_tensor(expected)) <= 1


# each augmentation, image by image


def test_flip_mirrors_the_chosen_images() -> None:
    images = make_batch(4)
    params = torch.tensor([[1.0], [0.0], [0.0], [1.0]])

    flipped = RandomFlip().apply(images.clone(), params)

    for image, result, (chosen,) in zip(images, flipped, params.tolist(), strict=True):
        assert torch.equal(result, tvf.hflip(image) if chosen else image)


def test_crop_is_a_window_of_the_enlarged_image() -> None:
    images = make_batch(4)
    params = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 2.0], [1.0, 8.0, 4.0], [1.0, 5.0, 1.0]])

    cropped = RandomCrop(HEIGHT, WIDTH).apply(images.clone(), params)

    for image, result, (chosen, top, left) in zip(images, cropped, params.tolist(), strict=True):
        big = to_pil(image).resize((36, 72), Image.Resampling.BILINEAR)
        expected = to_tensor(big.crop((int(left), int(top), int(left) + WIDTH, int(top) + HEIGHT)))
        assert largest_difference(result, expected if chosen else image) <= 1


def test_crop_windows_stay_inside_and_reach_the_edges() -> None:
    drawn = RandomCrop(HEIGHT, WIDTH).draw(uniforms(2000, 3))

    assert set(drawn[:, 1]) == set(range(9))
    assert set(drawn[:, 2]) == set(range(5))


def is_uniform(values: np.ndarray, num_values: int) -> bool:
    """Chi-square test at 1e-6 of whole numbers 0 … num_values - 1 being equally frequent."""
    return stats.chisquare(np.bincount(values.astype(int), minlength=num_values)).pvalue > 1e-6


def test_crop_windows_are_equally_frequent() -> None:
    step = RandomCrop(128, 64)
    _, top, left = step.draw(draw_uniforms(1, 0, "crop", 0, 20_000, step.num_uniforms)).T
    for offset, margin in ((top, 16), (left, 8)):
        inner = (offset > 0) & (offset < margin)
        assert is_uniform(offset[inner] - 1, margin - 1)
        edges = np.array([(offset == 0).sum(), (offset == margin).sum()])
        assert edges == pytest.approx(len(offset) / margin / 2, rel=0.2)  # half of an inner one's share each


def test_patches_are_mirrored_and_turned_as_published() -> None:
    """Both with a probability of one half; turned by a whole number of degrees from -10 to 10."""
    step = RandomPatch(128, 64)
    params = step.draw(draw_uniforms(1, 0, "patch", 0, 20_000, step.num_uniforms))
    mirrored, angle = params[:, 8], params[:, 9]
    assert is_uniform(mirrored, 2)
    turned = angle != 0
    assert turned.mean() == pytest.approx(0.5 * 20 / 21, abs=0.02)
    others = angle[turned] + 10
    assert is_uniform(others - (others > 10), 20)


@pytest.mark.parametrize("angle", [-10, -3, 0, 1, 7, 10])
def test_a_turned_patch_is_pillows(angle: int) -> None:
    patch = make_batch(1)[0][:, 5:42, 3:25]

    expected = to_tensor(to_pil(patch).rotate(angle))

    different = (rotate(patch, angle) != expected).any(0).float().mean()
    assert different < 0.005  # a centre between two pixels may fall to either


def test_patch_is_cut_from_another_image_and_pasted() -> None:
    images = make_batch(3)
    params = torch.tensor(
        # acts, height, width, from top, left, to top, left, donor, mirrored, angle
        [[1, 20, 10, 5, 6, 30, 12, 0.9, 0, 0], [0, 9, 9, 1, 1, 1, 1, 0.1, 0, 0], [1, 8, 16, 0, 2, 3, 4, 0.1, 1, 5]]
    )

    pasted = RandomPatch(HEIGHT, WIDTH).apply(images.clone(), params)

    expected = images.clone()
    expected[0, :, 30:50, 12:22] = images[2, :, 5:25, 6:16]
    patch = to_pil(images[0, :, 0:8, 2:18]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(5)
    expected[2, :, 3:11, 4:20] = to_tensor(patch)
    assert torch.equal(pasted, expected)


def test_patch_leaves_a_single_image_alone() -> None:
    step = RandomPatch(HEIGHT, WIDTH)
    params = torch.from_numpy(step.draw(np.zeros((1, step.num_uniforms)))).float()

    assert torch.equal(step.apply(make_batch(1), params), make_batch(1))


def test_patch_donors_are_all_the_other_images_equally_often() -> None:
    step, count = RandomPatch(HEIGHT, WIDTH), 4
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, HEIGHT, WIDTH)
    seen = np.zeros((count, count), int)
    for seed in range(200):
        drawn = step.draw(uniforms(count, step.num_uniforms, seed))
        drawn[:, -2:] = 0
        pasted = step.apply(images.clone(), torch.from_numpy(drawn).float())
        for row in np.flatnonzero(drawn[:, 0]):
            top, left = drawn[row, 5:7].astype(int)
            seen[row, int(pasted[row, 0, top, left])] += 1

    assert (np.diag(seen) == 0).all()
    assert stats.chisquare(seen[~np.eye(count, dtype=bool)]).pvalue > 0.01


def jitter_like_torchvision(image: Tensor, brightness: float, contrast: float, brightness_first: bool) -> Tensor:
    if brightness_first:
        return tvf.adjust_contrast(tvf.adjust_brightness(image, brightness), contrast)
    return tvf.adjust_brightness(tvf.adjust_contrast(image, contrast), brightness)


def jitter_exactly(image: Tensor, brightness: float, contrast: float, brightness_first: bool) -> Tensor:
    """The same without rounding in between, float64."""
    pixels = image.double()

    def brighten(x: Tensor) -> Tensor:
        return (brightness * x).clamp(0, 255)

    def spread(x: Tensor) -> Tensor:
        grey = (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]).mean()
        return (contrast * x + (1 - contrast) * grey).clamp(0, 255)

    return spread(brighten(pixels)) if brightness_first else brighten(spread(pixels))


@pytest.mark.parametrize("version", ["one by one", "whole batch"])
def test_jitter_is_torchvisions_up_to_rounding(version: str) -> None:
    images = make_batch(40)
    params = torch.from_numpy(ColorJitter().draw(uniforms(40, 3))).float()

    if version == "one by one":
        jittered = ColorJitter().apply(images.clone(), params)
    else:
        jittered = augment._jitter_batch(images.clone(), params)

    for image, result, (brightness, contrast, first) in zip(images, jittered, params.tolist(), strict=True):
        exact = jitter_exactly(image, brightness, contrast, first == 1)
        assert float((result.double() - exact).abs().max()) <= 0.501
        assert largest_difference(result, jitter_like_torchvision(image, brightness, contrast, first == 1)) <= 2


def test_erase_paints_the_mean_colour() -> None:
    images = make_batch(2)
    params = torch.tensor([[1.0, 20, 10, 40, 3], [0.0, 5, 5, 5, 5]])

    erased = RandomErase(HEIGHT, WIDTH, (0.5, 0.25, 1.0)).apply(images.clone(), params)

    expected = images.clone()
    expected[0, :, 40:60, 3:13] = torch.tensor([128, 64, 255], dtype=torch.uint8).view(3, 1, 1)
    assert torch.equal(erased, expected)


def test_colour_noise_is_added_and_clipped() -> None:
    images = make_batch(3)
    params = torch.tensor([[10.4, -20.6, 3.0], [0.0, 0.0, 0.0], [-300.0, 300.0, 0.2]])

    noisy = ColorAug().apply(images.clone(), params)

    exact = (images.double() + params.double()[:, :, None, None]).clamp(0, 255)
    assert float((noisy.double() - exact).abs().max()) <= 0.5


def test_colour_noise_varies_most_along_grey() -> None:
    drawn = ColorAug().draw(uniforms(20000, 7))
    acts = drawn.any(axis=1)

    variances, directions = np.linalg.eigh(np.cov(drawn[acts].T))

    np.testing.assert_allclose(np.sqrt(variances[::-1]), 25.5 * ColorAug.EIGENVALUES, rtol=0.03)
    assert abs(directions[:, 2] @ np.ones(3)) / math.sqrt(3) > 0.999


# distributions of what is drawn


@pytest.mark.parametrize("step", [RandomFlip(), RandomCrop(HEIGHT, WIDTH), RandomErase(HEIGHT, WIDTH, (0, 0, 0)),
                                  RandomPatch(HEIGHT, WIDTH), ColorAug()])  # fmt: skip
def test_acts_on_half_of_the_images(step: augment.Augmentation) -> None:
    drawn = step.draw(uniforms(4000, step.num_uniforms))
    acts = drawn.any(axis=1) if isinstance(step, ColorAug) else drawn[:, 0]

    assert stats.binomtest(int(acts.sum()), 4000, 0.5).pvalue > 0.01


def test_jitter_ranges() -> None:
    drawn = ColorJitter().draw(uniforms(4000, 3))

    assert stats.kstest(drawn[:, 0], stats.uniform(0.8, 0.4).cdf).pvalue > 0.01
    assert stats.kstest(drawn[:, 1], stats.uniform(0.85, 0.3).cdf).pvalue > 0.01
    assert stats.binomtest(int(drawn[:, 2].sum()), 4000, 0.5).pvalue > 0.01


def draw_rectangle(
    rng: np.random.Generator, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Height, width, top and left by the published procedure, one image at a time."""
    while True:
        target = rng.uniform(*area) * HEIGHT * WIDTH
        ratio = rng.uniform(*aspect)
        height, width = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < height < HEIGHT and 0 < width < WIDTH:
            return height, width, int(rng.integers(HEIGHT - height + 1)), int(rng.integers(WIDTH - width + 1))


@pytest.mark.parametrize(
    ("step", "columns", "area", "aspect"),
    [
        (RandomErase(HEIGHT, WIDTH, (0, 0, 0)), [1, 2, 3, 4], (0.02, 0.4), (0.3, 1 / 0.3)),
        (RandomPatch(HEIGHT, WIDTH), [1, 2, 3, 4], (0.01, 0.5), (0.1, 10)),
        (RandomPatch(HEIGHT, WIDTH), [1, 2, 5, 6], (0.01, 0.5), (0.1, 10)),
    ],
    ids=["erase", "patch cut from", "patch pasted to"],
)
def test_rectangles_are_distributed_as_published(
    step: augment.Augmentation, columns: list[int], area: tuple[float, float], aspect: tuple[float, float]
) -> None:
    rng = np.random.default_rng(5)
    drawn = step.draw(uniforms(6000, step.num_uniforms))
    ours = drawn[drawn[:, 0] == 1][:, columns]
    theirs = np.array([draw_rectangle(rng, area, aspect) for _ in range(3000)])

    assert (ours[:, 0] + ours[:, 2] <= HEIGHT).all()
    assert (ours[:, 1] + ours[:, 3] <= WIDTH).all()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 0] * ours[:, 1], theirs[:, 0] * theirs[:, 1]).pvalue > 0.01


# the pipeline


def test_rows_of_random_numbers_do_not_depend_on_where_drawing_starts() -> None:
    whole = draw_uniforms(3, 1, "x", 0, 50, 7)

    np.testing.assert_array_equal(draw_uniforms(3, 1, "x", 20, 13, 7), whole[20:33])
    for other in [draw_uniforms(4, 1, "x", 0, 50, 7), draw_uniforms(3, 2, "x", 0, 50, 7),
                  draw_uniforms(3, 1, "y", 0, 50, 7)]:  # fmt: skip
        assert not np.isin(other, whole).any()
    assert stats.kstest(whole.ravel(), "uniform").pvalue > 0.01


def test_an_augmentation_draws_the_same_beside_others() -> None:
    alone, among = (Pipeline(names, HEIGHT, WIDTH, seed=9) for names in (["random_erase"], list(TRANSFORMS)))

    assert torch.equal(alone.draw(2, 30, 10), among.draw(2, 30, 10)[:, -5:])


def test_the_order_is_fixed() -> None:
    images = make_batch(8)
    forward, backward = Pipeline(TRANSFORMS, HEIGHT, WIDTH), Pipeline(TRANSFORMS[::-1], HEIGHT, WIDTH)
    params = forward.draw(0, 0, 8)

    assert torch.equal(params, backward.draw(0, 0, 8))
    assert torch.equal(forward.apply(images.clone(), params), backward.apply(images.clone(), params))


def test_the_pipeline_applies_each_step_with_its_own_parameters() -> None:
    pipeline = Pipeline(TRANSFORMS, HEIGHT, WIDTH, seed=2)

    result = pipeline.apply(make_batch(8), pipeline.draw(1, 16, 8))

    expected = make_batch(8)
    for name in ["random_flip", "random_crop", "random_patch", "color_jitter", "color_aug", "random_erase"]:
        single = Pipeline([name], HEIGHT, WIDTH, seed=2)
        expected = single.apply(expected, single.draw(1, 16, 8))
    assert torch.equal(result, expected)


def test_no_transforms_do_nothing() -> None:
    pipeline = Pipeline([], HEIGHT, WIDTH)

    assert not pipeline
    assert pipeline.draw(0, 0, 5).shape == (5, 0)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'random_flp'; did you mean 'random_flip'\?"):
        Pipeline(["random_flp"], HEIGHT, WIDTH)
