"""What is decoded at all: the bound on pixels, before memory is taken for them, and without a word on stderr."""

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.decode import CorruptImageError, decode_image
from datasets.integrity import find_broken
from utils import images
from utils.errors import UserError
from utils.images import ImageError, find_jpeg_size, read_rgb
from utils.thumbnails import read_thumbnail

ROOT = Path(__file__).parents[2]


def encode(kind: str, width: int = 20, height: int = 40, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, kind, **options)
    return stream.getvalue()


def claim(content: bytes, width: int, height: int) -> bytes:
    """Writes another size into the header of a JPEG or PNG."""
    if content.startswith(b"\x89PNG"):
        header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
        return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    at = next(i for i in range(len(content)) if content[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return content[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 9 :]


def test_no_other_program_is_started_for_an_image() -> None:
    """Pillow would start Ghostscript for an EPS file, whatever its name says."""
    with pytest.raises(ImageError, match="cannot identify image file"):
        read_rgb(encode("EPS"))


def test_floating_point_pixels_are_not_taken_for_black() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        read_rgb(encode("TIFF", mode="F"))


TOO_LARGE = {
    "JPEG of 4,225 megapixels": claim(encode("JPEG"), 65000, 65000),
    "JPEG of 100 megapixels": claim(encode("JPEG"), 10000, 10000),
    "JPEG of 225 megapixels": claim(encode("JPEG", progressive=True), 15000, 15000),
    "grey JPEG": claim(encode("JPEG", mode="L"), 16000, 16000),
    "PNG of 100 megapixels": claim(encode("PNG"), 10000, 10000),
    "PNG of 225 megapixels": claim(encode("PNG"), 15000, 15000),
}


@pytest.mark.parametrize("content", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_is_too_large_is_one_line(content: bytes, tmp_path: Path) -> None:
    """For batches and pictures alike, and found before a run, by looking at the file's beginning."""
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(CorruptImageError, match=r"broken image .*image.jpg: too large, .*89,478,485"):
        decode_image(path)
    with pytest.raises(UserError, match=r"cannot read image .*image.jpg for a picture: too large, .*89,478,485"):
        read_thumbnail(path, 10, 10)
    for thorough in (False, True):
        ((_, reason),) = find_broken([str(path)], thorough=thorough)
        assert reason.startswith("too large, ")


def test_real_pixels_just_within_and_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("JPEG", "PNG"):
        path = tmp_path / kind
        path.write_bytes(encode(kind, 30, 40))
        monkeypatch.setattr(images, "MAX_PIXELS", 1200)
        assert decode_image(path).shape == (3, 40, 30)
        assert read_thumbnail(path, 99, 99).size == (30, 40)
        monkeypatch.setattr(images, "MAX_PIXELS", 1199)
        with pytest.raises(CorruptImageError, match="too large, 30 × 40 pixels are more than 1,199"):
            decode_image(path)


def test_little_memory_is_taken_for_a_claim(tmp_path: Path) -> None:
    """A process that may have 2 GiB more says why; 65,000 × 65,000 pixels need 12."""
    (tmp_path / "image.jpg").write_bytes(TOO_LARGE["JPEG of 4,225 megapixels"])
    code = (
        "import resource, sys; from datasets.decode import decode_image; from utils.errors import UserError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, resource.RLIM_INFINITY))\n"
        "try: decode_image(sys.argv[1])\n"
        "except UserError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "image.jpg")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "too large" in done.stdout
    assert done.stdout.count("\n") == 1


def test_nothing_is_written_about_odd_files(tmp_path: Path) -> None:
    """Pillow warns of a JPEG that begins like several in one file but is a single one; here a warning is an error."""
    plain = encode("JPEG")
    odd = plain[:2] + b"\xff\xe2\0\x0fMPF\0II*\0\x08\0\0\0\xff" + plain[2:]
    (tmp_path / "odd.jpg").write_bytes(odd)
    assert read_rgb(odd).size == read_thumbnail(tmp_path / "odd.jpg", 40, 40).size == (20, 40)
    with pytest.raises(UserWarning):
        Image.open(io.BytesIO(odd))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(300)}, {"comment": b"\xff\xc0"}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_size_of_a_jpeg(options: dict[str, object], mode: str) -> None:
    assert find_jpeg_size(encode("JPEG", 301, 17, mode, **options)) == (301, 17)


def test_size_of_a_jpeg_with_fill_bytes_and_markers_without_a_length() -> None:
    content = encode("JPEG", 301, 17)
    assert find_jpeg_size(content[:2] + b"\xff\xff\xff\x01\xff\xd0" + content[2:]) == (301, 17)


@given(st.binary(max_size=400))
def test_size_of_anything(tail: bytes) -> None:
    """Bytes of any kind behind a JPEG's beginning end in a size or in None."""
    size = find_jpeg_size(b"\xff\xd8\xff" + tail)
    assert size is None or all(0 <= side < 65536 for side in size)


def test_colours_are_the_networks(tmp_path: Path) -> None:
    """16-bit grey, palettes with and without transparency, alpha: one conversion for batches and pictures."""
    noise = np.random.default_rng(0)
    deep = Image.fromarray(noise.integers(0, 65536, (8, 6)).astype(np.uint16))
    colours = Image.fromarray(noise.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    palette = colours.quantize(16)
    deep.save(tmp_path / "deep.png")
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.png", transparency=3)
    colours.convert("RGBA").save(tmp_path / "alpha.png")
    for path in tmp_path.iterdir():
        shown = np.asarray(read_thumbnail(path, 8, 6))
        np.testing.assert_array_equal(shown, decode_image(path).permute(1, 2, 0).numpy())
        if path.stem == "deep":
            np.testing.assert_array_equal(shown[..., 0], np.asarray(deep) >> 8)
