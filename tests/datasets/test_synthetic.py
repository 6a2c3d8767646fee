"""Drawn data: layout, counts, repeatability, and what happens when drawing is disturbed."""

import filecmp
import hashlib
import logging
import re
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from datasets import synthetic
from datasets.base import ReadOptions, check_protocol
from datasets.synthetic import SYNTHETIC_READERS, SyntheticSize, check_drawn, draw_domain, find_domain
from datasets.synthetic_camera import Camera
from datasets.synthetic_domains import DOMAINS
from utils.errors import UserError

SMALL = SyntheticSize(train_ids=4, test_ids=3, cameras=2, images_per_camera=3, height=32, width=16)


def options(size: SyntheticSize) -> ReadOptions:
    return ReadOptions(synthetic=asdict(size))


def files_below(folder: Path) -> list[Path]:
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Domain a of the small size; not to be changed."""
    root = tmp_path_factory.mktemp("drawn") / "new" / "root"
    SYNTHETIC_READERS["synthetic_a"](root, options(SMALL))
    return root


@pytest.fixture
def forbid_drawing(monkeypatch):
    def fail(*_):
        raise AssertionError("an image was drawn")

    monkeypatch.setattr(Camera, "photograph", fail)


def test_names_and_counts_are_those_of_the_protocol(root):
    splits = SYNTHETIC_READERS["synthetic_a"](root, options(SMALL))
    assert len(splits.train) == 4 * 2 * 3
    # one query for each test identity and camera
    assert Counter((s.pid, s.camid) for s in splits.query) == {(p, c): 1 for p in (5001, 5002, 5003) for c in (0, 1)}
    strangers = [s for s in splits.gallery if s.pid in splits.distractor_pids]
    assert len(splits.gallery) - len(strangers) == 3 * 2 * (3 - 1)
    assert len(strangers) == 3
    assert not {s.pid for s in splits.train} & {s.pid for s in splits.query}
    check_protocol("synthetic_a", splits.query, splits.gallery)
    for sample in (*splits.train, *splits.query, *splits.gallery):
        assert re.fullmatch(r"\d{4}_c\ds1_\d{6}_\d\d\.jpg", Path(sample.path).name)
    with Image.open(splits.train[0].path) as image:
        assert (image.size, image.mode, image.format) == ((16, 32), "RGB", "JPEG")


def test_the_plain_name_is_domain_a(root, forbid_drawing):
    plain, named = (SYNTHETIC_READERS[name](root, options(SMALL)) for name in ("synthetic", "synthetic_a"))
    assert plain == named
    assert set(SYNTHETIC_READERS) == {"synthetic", *(f"synthetic_{d}" for d in DOMAINS)}


def test_nothing_is_drawn_twice(root, forbid_drawing):
    SYNTHETIC_READERS["synthetic_a"](root, options(SMALL))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(root, tmp_path, workers):
    first = find_domain("a", SMALL, root)
    draw_domain("a", SMALL, tmp_path / "a", workers)
    names = files_below(first)
    assert names == files_below(tmp_path / "a")
    assert filecmp.cmpfiles(first, tmp_path / "a", names, shallow=False)[0] == names


def test_an_image_does_not_depend_on_how_many_others_are_drawn(root, tmp_path):
    first = find_domain("a", SMALL, root)
    draw_domain("a", replace(SMALL, train_ids=6, test_ids=4, cameras=3, images_per_camera=4), tmp_path / "a")
    # strangers walk past another camera
    names = [n for n in files_below(first) if n.suffix == ".jpg" and not n.name.startswith("0000_")]
    assert filecmp.cmpfiles(first, tmp_path / "a", names, shallow=False)[0] == names


def test_seeds_and_domains_give_other_images(root, tmp_path):
    draw_domain("a", replace(SMALL, seed=2), tmp_path / "a")
    draw_domain("b", SMALL, tmp_path / "b")
    first = find_domain("a", SMALL, root)
    names = files_below(first)
    for other in (tmp_path / "a", tmp_path / "b"):
        assert filecmp.cmpfiles(first, other, names, shallow=False)[0] == []


def test_folders_can_be_read_by_others(root):
    folder = find_domain("a", SMALL, root)
    assert (
        folder.stat().st_mode & 0o777
        == (folder / "query").stat().st_mode & 0o777
        == folder.parent.stat().st_mode & 0o777
    )


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    whole = Camera.photograph
    calls = iter(range(5))

    def stop_after_five(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Camera, "photograph", stop_after_five)
        SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL))
    assert files_below(tmp_path) == []
    assert len(SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL)).train) == 24


def test_a_drawing_process_that_was_killed_is_one_line(tmp_path, monkeypatch):
    class Pool(ProcessPoolExecutor):
        def submit(self, *words):
            raise BrokenProcessPool

    monkeypatch.setattr(synthetic, "ProcessPoolExecutor", Pool)
    with pytest.raises(UserError, match="cannot draw synthetic_a: a drawing process was killed"):
        draw_domain("a", SMALL, tmp_path / "a", workers=2)
    assert files_below(tmp_path) == []


def test_a_drawing_that_comes_second_is_thrown_away(root, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    whole = synthetic._draw_all

    def another_is_faster(*arguments):
        whole(*arguments)
        (folder / "query").mkdir(parents=True)
        (folder / "query" / "of_the_other.jpg").touch()

    monkeypatch.setattr(synthetic, "_draw_all", another_is_faster)
    draw_domain("a", SMALL, folder)
    assert files_below(tmp_path) == [Path("a/query/of_the_other.jpg")]


# SHA-256 over names and contents of all images, before there were more than three domains and a list of files
BEFORE = {
    "a": "80aa5add8fd392914dfdd4828982367f57c00a5edb8d3969950c695b6c5e6f76",
    "b": "cc0e79e680a1211a9e929e54066a0a7016c636592008408b2bdff63c19bd3c69",
    "c": "0792b00be03df55fb05d16c9e59fe48262ffbacbb31e59fdee93a115fe750a9d",
}


@pytest.mark.skipif(features.version("libjpeg_turbo") != "3.2.0", reason="another JPEG encoder may write other bytes")
@pytest.mark.parametrize("domain", BEFORE)
def test_the_first_three_domains_stay_byte_for_byte(domain, tmp_path):
    draw_domain(domain, replace(SMALL, height=128, width=64), tmp_path / domain)
    digest = hashlib.sha256()
    for path in sorted((tmp_path / domain).rglob("*.jpg")):
        digest.update(path.relative_to(tmp_path / domain).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == BEFORE[domain]


@pytest.mark.parametrize("domain", ["a", "d", "l"])
def test_files_have_the_quality_of_their_domain(domain, tmp_path):
    """The first step of luminance follows from the quality by the rule of the JPEG group's library."""
    quality = DOMAINS[domain].quality
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    draw_domain(domain, SMALL, tmp_path / domain)
    with Image.open(next((tmp_path / domain / "query").iterdir())) as image:
        assert image.quantization[0][0] == (16 * scale + 50) // 100


def take(folder):
    (folder / "query/5001_c1s1_000000_00.jpg").unlink()


def add(folder):
    (folder / "bounding_box_train/0001_c1s1_000009_00.jpg").touch()


def add_of_another_name(folder):
    (folder / "bounding_box_test/holiday\n.png").touch()


def cut(folder):
    image = folder / "query/5002_c1s1_000000_00.jpg"
    image.write_bytes(image.read_bytes()[:-1])


def take_a_part(folder):
    for image in (folder / "query").iterdir():
        image.unlink()
    (folder / "query").rmdir()


def spoil_the_list(folder):
    (folder / "files.csv").write_bytes(b"\xff,\n\0")


TAKEN, ADDED = "1 missing ('query/5001_c1s1_000000_00.jpg')", "1 added ('bounding_box_train/0001_c1s1_000009_00.jpg')"


@pytest.mark.parametrize(
    ("damages", "message"),
    [
        ([take], f"images {TAKEN};"),
        ([add], f"images {ADDED};"),
        ([take, add], f"images {TAKEN}, {ADDED};"),
        ([add_of_another_name], r"images 1 added ('bounding_box_test/holiday\n.png');"),
        ([cut], "images 1 changed ('query/5002_c1s1_000000_00.jpg');"),
        ([take_a_part], "expected drawn images;"),
        ([spoil_the_list], "images 45 changed ('bounding_box_test/0000_c1s1_000000_00.jpg');"),
    ],
)
def test_a_folder_that_is_not_as_it_was_drawn_is_noticed_in_one_line(tmp_path, damages, message):
    SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL))
    folder = find_domain("a", SMALL, tmp_path)
    for damage in damages:
        damage(folder)
    with pytest.raises(UserError) as raised:
        SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL))
    told = str(raised.value)
    assert message in told
    assert str(folder) in told
    assert re.search(rf"delete ({folder}|the folder), and it is drawn anew$", told)
    assert "\n" not in told


def test_a_changed_byte_is_noticed_where_contents_are_checked(root, tmp_path):
    draw_domain("a", SMALL, tmp_path / "a")
    check_drawn(tmp_path / "a", SMALL, contents=True)
    image = tmp_path / "a/query/5002_c1s1_000000_00.jpg"
    content = bytearray(image.read_bytes())
    content[-10] ^= 4
    image.write_bytes(content)
    check_drawn(tmp_path / "a", SMALL)
    with pytest.raises(UserError, match=r"images 1 changed \('query/5002_c1s1_000000_00.jpg'\)"):
        check_drawn(tmp_path / "a", SMALL, contents=True)


def test_a_folder_drawn_before_there_was_a_list_is_checked_by_names(tmp_path, caplog, forbid_drawing, root):
    folder = find_domain("a", SMALL, tmp_path)
    shutil.copytree(find_domain("a", SMALL, root), folder, ignore=shutil.ignore_patterns("files.csv"))
    with caplog.at_level(logging.WARNING):
        assert len(SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL)).train) == 24
    assert [r.getMessage() for r in caplog.records] == [
        f"{folder} has no files.csv: only names of images are checked; delete the folder, and it is drawn anew"
    ]
    take(folder)
    add(folder)
    with pytest.raises(UserError, match=r"1 missing .*, 1 added "):
        SYNTHETIC_READERS["synthetic_a"](tmp_path, options(SMALL))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_ids", 1),
        ("train_ids", 5001),
        ("test_ids", 0),
        ("test_ids", 5000),
        ("cameras", 1),
        ("cameras", 10),
        ("images_per_camera", 1),
        ("height", 31),
        ("width", 0),
        ("seed", -1),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"synthetic\.{key} = {value}: must lie between"):
        SYNTHETIC_READERS["synthetic_b"](tmp_path, ReadOptions(synthetic={key: value}))
    assert files_below(tmp_path) == []


def test_a_root_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot draw synthetic_a into .*Not a directory"):
        SYNTHETIC_READERS["synthetic_a"](tmp_path / "file", options(SMALL))


def test_a_smaller_image_shows_the_same_scene(tmp_path):
    few = replace(SMALL, train_ids=2, test_ids=1)
    draw_domain("a", replace(few, height=128, width=64), tmp_path / "large")
    draw_domain("a", replace(few, height=64, width=32), tmp_path / "small")
    names = ("0001_c1s1_000000_00.jpg", "0001_c1s1_000001_00.jpg", "0002_c1s1_000000_00.jpg", "0002_c2s1_000001_00.jpg")
    shrunk, small = [], []
    for name in names:
        with Image.open(tmp_path / "large/bounding_box_train" / name) as image:
            shrunk.append(np.asarray(image.resize((32, 64), Image.Resampling.BOX), np.float64).ravel())
        with Image.open(tmp_path / "small/bounding_box_train" / name) as image:
            small.append(np.asarray(image, np.float64).ravel())
    likeness = np.corrcoef(shrunk, small)[:4, 4:]
    same = np.eye(4, dtype=bool)
    assert likeness[same].min() > 0.85
    assert likeness[same].min() > likeness[~same].max() + 0.1
