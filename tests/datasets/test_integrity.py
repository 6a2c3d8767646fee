"""Broken image files: what the quick look finds, what decoding finds, and that whole images pass."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from datasets import integrity as module
from datasets.decode import decode_image
from datasets.integrity import find_broken
from tests.shares import run_shares

KINDS = ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"]
SIZED = ["JPEG", "PNG", "BMP", "WEBP"]  # whose end can be read off the file


def encode(kind: str, side: int = 32, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, kind)
    return stream.getvalue()


def check(tmp_path: Path, content: bytes, thorough: bool = False) -> list[str]:
    file = tmp_path / "image.jpg"
    file.write_bytes(content)
    return [reason for _, reason in find_broken([str(file)], thorough=thorough)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("side", [1, 32, 300])
def test_a_whole_image_passes(kind: str, thorough: bool, side: int, tmp_path: Path) -> None:
    """Whatever its name ends in, from less than one read of the file to several."""
    assert check(tmp_path, encode(kind, side), thorough) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("tail", [b"\0", b"\n", b"\0" * 1000])
def test_some_bytes_may_follow(kind: str, tail: bytes, tmp_path: Path) -> None:
    assert check(tmp_path, encode(kind) + tail) == []


WHOLE_BUT_ODD = {
    "JPEG with data behind it": encode("JPEG") + bytes(9000),
    "PNG with data behind it": encode("PNG") + b"x" * 9000,
    "PNG without the chunk that ends it": encode("PNG")[:-12],
    "BMP that says another size": b"BM" + (10**6).to_bytes(4, "little") + encode("BMP")[6:],
    "bits in letters": b"P1\n2 2\n1 0 0 1\n",
    "grey in letters": b"P2\n2 2\n255\n1 2 3 4\n",
    "colours in letters": b"P3\n2 2\n255\n" + b"1 2 3 " * 4,
    "bits": encode("PPM", mode="1"),
    "GIF": encode("GIF", mode="P"),
    "JPEG 2000": encode("JPEG2000"),
    **({"AVIF": encode("AVIF")} if features.check("avif") else {}),
}


@pytest.mark.parametrize("content", WHOLE_BUT_ODD.values(), ids=WHOLE_BUT_ODD.keys())
@pytest.mark.parametrize("thorough", [False, True])
def test_what_the_decoder_reads_is_whole(content: bytes, thorough: bool, tmp_path: Path) -> None:
    assert check(tmp_path, content, thorough) == []
    assert decode_image(tmp_path / "image.jpg").shape[0] == 3


@pytest.mark.parametrize("name", ["GIF", "JPEG 2000"])
@pytest.mark.parametrize("thorough", [False, True])
def test_an_odd_kind_cut_off(name: str, thorough: bool, tmp_path: Path) -> None:
    content = WHOLE_BUT_ODD[name]
    (reason,) = check(tmp_path, content[: len(content) // 2], thorough)
    assert reason.startswith("not an image: begins with")


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("side", [32, 300])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_cut_file(kind: str, side: int, share: float, tmp_path: Path) -> None:
    content = encode(kind, side)
    (reason,) = check(tmp_path, content[: int(share * len(content))])
    assert "cut off" in reason


@pytest.mark.parametrize("side", [32, 300])
@pytest.mark.parametrize("thorough", [False, True])
def test_a_file_filled_up_with_zeros(side: int, thorough: bool, tmp_path: Path) -> None:
    """As a copy leaves it that reserved the space and then stopped; the decoder takes the zeros for grey pixels."""
    content = encode("JPEG", side)
    half = len(content) // 2
    filled = content[:half] + bytes(len(content) - half)
    assert check(tmp_path, filled, thorough) == ["JPEG without its end marker: cut off"]
    assert decode_image(tmp_path / "image.jpg").shape == (3, side, side)


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<html><body>404 Not Found</body></html>", "not an image: begins with b'<html><b'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image"),
        (b"\xff\xd8", "not an image"),
        (b"BM", "not an image"),
        (b"\0" * 500, "not an image"),
    ],
)
def test_not_an_image(content: bytes, message: str, thorough: bool, tmp_path: Path) -> None:
    (reason,) = check(tmp_path, content, thorough)
    assert reason.startswith(message)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    paths = [str(tmp_path / "gone.jpg"), str(tmp_path / "folder.jpg")]
    assert [reason for _, reason in find_broken(paths)] == [
        "cannot be read: No such file or directory",
        "cannot be read: Is a directory",
    ]


def test_only_decoding_sees_damage_in_between(tmp_path: Path) -> None:
    content = bytearray(encode("PNG"))
    content[len(content) // 2] ^= 0xFF
    assert check(tmp_path, bytes(content)) == []
    (reason,) = check(tmp_path, bytes(content), thorough=True)
    assert reason.startswith("cannot be decoded: ")


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("thorough", [False, True])
def test_order_is_that_of_the_paths(workers: int, thorough: bool, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    whole.write_bytes(encode("JPEG", 4))
    broken = [tmp_path / f"{(37 * n) % 101}.jpg" for n in range(101)]
    for file in broken:
        file.touch()
    paths = [str(p) for file in broken for p in (whole, file, whole, whole, whole, whole, whole, whole)]
    assert find_broken(paths, workers=workers, thorough=thorough) == [(str(file), "empty file") for file in broken]


def test_nothing_to_check() -> None:
    assert find_broken([]) == []


def test_whole_files_are_not_decoded_and_large_ones_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a second is enough for 20,000 files (63,000 were measured)."""
    content, comment = encode("JPEG"), b"\xff\xfe\xff\xff" + bytes(65533)
    (tmp_path / "small.jpg").write_bytes(content)
    (tmp_path / "large.jpg").write_bytes(content[:2] + 16 * comment + content[2:])
    sizes: list[int] = []

    def count(name: str) -> None:
        original = getattr(os, name)

        def read(descriptor: int, size: int, *place: int) -> bytes:
            sizes.append(size)
            return original(descriptor, size, *place)

        monkeypatch.setattr(module.os, name, read)

    count("read")
    count("pread")
    monkeypatch.setattr("datasets.decode.decode_image", None)
    assert find_broken([f"{tmp_path}/{name}.jpg" for name in ("small", "large")], workers=1) == []
    assert len(sizes) == 3
    assert sum(sizes) < 200_000


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_leaves_no_file_open(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encode("JPEG"))

    def count_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count_open()
    for thorough in (False, True):
        find_broken([str(file)] * 50, thorough=thorough)
    assert count_open() == before


def test_processes_share_the_files_and_all_know_the_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    inspect = module._inspect

    def spy(path: str) -> str:
        opened.append(path)
        return inspect(path)

    monkeypatch.setattr(module, "_inspect", spy)
    paths = [str(tmp_path / f"{n}.jpg") for n in range(50)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(b"" if number % 7 == 3 else encode("JPEG", 4))
    expected = [(path, "empty file") for path in paths[3::7]]
    assert run_shares(3, lambda share: find_broken(paths, share=share)) == [expected] * 3
    assert sorted(opened) == sorted(paths)
