"""CUHK03 from a small file of the real one's structure (MATLAB 7.3)."""

import importlib
import shutil
import sys
import types
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from datasets.base import ReadOptions, count_identities, training_samples
from datasets.cuhk03 import read_cuhk03
from utils.errors import UserError

HEIGHT, WIDTH = 6, 4
CELLS = 10
# (pair, person): the numbers, from 1, of the images that are not empty
IMAGES = {(1, 1): (1, 2, 6), (1, 2): (1, 6, 7), (1, 3): (5, 10), (2, 1): (1, 6), (2, 2): (3, 8)}
TEST_SETS = [[(1, 2), (2, 1)], [(1, 1), (2, 2)]]
CLASSIC = ReadOptions(cuhk03_classic_split=True)


def pixels(kind: str, pair: int, person: int, number: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) in which each pixel and channel shows its place."""
    start = 100 * (kind == "labeled") + 10 * pair + 5 * person + number
    rows, columns, channels = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    return (start + 20 * rows + 3 * columns + channels).astype(np.uint8)


def write_mat(file: Path) -> None:
    """Writes as MATLAB does: every array is transposed, cells are references, an empty cell is its own shape."""
    file.parent.mkdir(parents=True)
    with h5py.File(file, "w") as mat:
        store = mat.create_group("#refs#")

        def keep(array: NDArray[np.generic]) -> h5py.Reference:
            return store.create_dataset(str(len(store)), data=array).ref

        for kind in ("detected", "labeled"):
            pairs = np.empty((2, 1), dtype=object)
            for pair in (1, 2):
                people = sorted(person for p, person in IMAGES if p == pair)
                grid = np.empty((len(people), CELLS), dtype=object)
                for row, person in enumerate(people):
                    for number in range(1, CELLS + 1):
                        full = number in IMAGES[pair, person]
                        image = pixels(kind, pair, person, number).T if full else np.zeros(2, np.uint64)
                        grid[row, number - 1] = keep(image)
                pairs[pair - 1, 0] = store.create_dataset(f"{kind}{pair}", data=grid.T, dtype=h5py.ref_dtype).ref
            mat.create_dataset(kind, data=pairs.T, dtype=h5py.ref_dtype)
        tests = np.empty((len(TEST_SETS), 1), dtype=object)
        for row, identities in enumerate(TEST_SETS):
            tests[row, 0] = keep(np.array(identities, dtype=np.float64).T)
        mat.create_dataset("testsets", data=tests.T, dtype=h5py.ref_dtype)


def names() -> list[str]:
    return sorted(
        f"{pair}_{person:03}_{1 if number <= 5 else 2}_{number:02}.png"
        for (pair, person), numbers in IMAGES.items()
        for number in numbers
    )


def write_config(file: Path, **changes: object) -> None:
    """Writes the new protocol's configuration: people 1, 3 (of pair 1) to train, 2 and those of pair 2 to test."""
    filelist = np.array(names(), dtype=object)[:, None]
    labels = {"1_001": 1, "1_002": 2, "1_003": 3, "2_001": 11, "2_002": 12}
    of_person = [labels[name[:5]] for name in names()]
    positions = np.arange(1, len(of_person) + 1)
    content = {
        "filelist": filelist,
        "labels": np.array(of_person)[:, None],
        "train_idx": positions[[label in (1, 3) for label in of_person]][:, None],
        "query_idx": np.array([[names().index("1_002_1_01.png") + 1], [names().index("2_001_2_06.png") + 1]]),
        "gallery_idx": np.array([[names().index(f"{stem}.png") + 1] for stem in ("2_001_1_01", "1_002_2_07")]),
    }
    savemat(file, {**content, **changes})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_mat(tmp_path / "cuhk03" / "cuhk03_release" / "cuhk-03.mat")
    for kind in ("detected", "labeled"):
        write_config(tmp_path / "cuhk03" / f"cuhk03_new_protocol_config_{kind}.mat")
    return tmp_path


@pytest.mark.parametrize("kind", ["detected", "labeled"])
def test_images_are_extracted_upright(kind: str, root: Path) -> None:
    read_cuhk03(root, ReadOptions(cuhk03_labeled=kind == "labeled"))
    folder = root / "cuhk03" / f"images_{kind}"
    assert sorted(file.name for file in folder.iterdir()) == names()
    for name in names():
        pair, person, _, number = (int(part) for part in name[:-4].split("_"))
        with Image.open(folder / name) as image:
            assert image.size == (WIDTH, HEIGHT)
            np.testing.assert_array_equal(np.asarray(image), pixels(kind, pair, person, number))
    assert sorted(f.name for f in (root / "cuhk03").iterdir() if f.is_dir()) == ["cuhk03_release", f"images_{kind}"]


def test_new_protocol(root: Path) -> None:
    splits = read_cuhk03(root, ReadOptions())
    parts = [[(Path(s.path).name, s.pid, s.camid) for s in p] for p in (splits.train, splits.query, splits.gallery)]
    assert parts == [
        [
            ("1_001_1_01.png", 1, 0),
            ("1_001_1_02.png", 1, 0),
            ("1_001_2_06.png", 1, 1),
            ("1_003_1_05.png", 3, 0),
            ("1_003_2_10.png", 3, 1),
        ],
        [("1_002_1_01.png", 2, 0), ("2_001_2_06.png", 11, 1)],
        [("1_002_2_07.png", 2, 1), ("2_001_1_01.png", 11, 0)],
    ]
    assert all(Path(s.path).parent == root / "cuhk03" / "images_detected" for s in splits.train)


def test_new_protocol_has_one_split(root: Path) -> None:
    """Of which split_id, meant for another data set of the run, says nothing."""
    splits = read_cuhk03(root, ReadOptions(split_id=19))
    assert splits == read_cuhk03(root, ReadOptions())
    assert not splits.split_ids


@pytest.mark.parametrize("split_id", [0, 1])
def test_classic_splits(split_id: int, root: Path) -> None:
    splits = read_cuhk03(root, ReadOptions(split_id=split_id, cuhk03_classic_split=True))
    test = {f"{pair}_{person:03}" for pair, person in TEST_SETS[split_id]}
    assert [Path(s.path).name for s in splits.query] == [name for name in names() if name[:5] in test]
    assert splits.query == splits.gallery
    assert [Path(s.path).name for s in splits.train] == [name for name in names() if name[:5] not in test]
    assert count_identities(splits.train) == 3
    assert all(s.camid == int(Path(s.path).name[6]) - 1 for s in [*splits.train, *splits.query])
    assert len(training_samples(splits, combineall=True)) == len(names())


def test_classic_split_id_out_of_range(root: Path) -> None:
    with pytest.raises(UserError, match="cuhk03 has splits 0 to 1"):
        read_cuhk03(root, ReadOptions(split_id=2, cuhk03_classic_split=True))


def test_images_are_extracted_once(root: Path) -> None:
    first = read_cuhk03(root, ReadOptions())
    (root / "cuhk03" / "cuhk03_release" / "cuhk-03.mat").unlink()
    assert read_cuhk03(root, ReadOptions()) == first
    with pytest.raises(UserError, match=r"no file .*cuhk-03.mat"):
        read_cuhk03(root, ReadOptions(cuhk03_labeled=True))


def test_an_interrupted_extraction_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[object] = []
    save = Image.Image.save

    def stop_at_the_third(image: Image.Image, file: Path) -> None:
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(file)
        save(image, file)

    monkeypatch.setattr(Image.Image, "save", stop_at_the_third)
    with pytest.raises(UserError, match="No space left"):
        read_cuhk03(root, ReadOptions())
    assert [f.name for f in (root / "cuhk03").iterdir() if f.is_dir()] == ["cuhk03_release"]
    monkeypatch.undo()
    read_cuhk03(root, ReadOptions())


def test_a_faster_process_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has put the folder there while this one was extracting."""
    rename = Path.rename
    calls: list[Path] = []

    def arrive_late(path: Path, target: Path) -> Path:
        if not calls:
            calls.append(path)
            target.mkdir()
            for file in path.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", arrive_late)
    assert len(read_cuhk03(root, ReadOptions()).train) == 5
    assert sorted(f.name for f in (root / "cuhk03").iterdir() if f.is_dir()) == ["cuhk03_release", "images_detected"]


@pytest.mark.parametrize("options", [ReadOptions(), CLASSIC])
def test_an_incomplete_folder_is_told(options: ReadOptions, root: Path) -> None:
    read_cuhk03(root, options)
    for file in (root / "cuhk03" / "images_detected").glob("1_002_*"):
        file.unlink()
    with pytest.raises(UserError, match="delete the folder to extract the images again"):
        read_cuhk03(root, options)


@pytest.mark.parametrize(("split_id", "classic"), [(0, False), (0, True), (1, True)])
@pytest.mark.parametrize("labeled", [False, True])
def test_beside_torchreid(
    split_id: int, classic: bool, labeled: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchreid 0.2.5 divides the same file alike; it numbers the training people anew."""
    pytest.importorskip("torchreid")
    options = ReadOptions(split_id=split_id, cuhk03_classic_split=classic, cuhk03_labeled=labeled)
    splits = read_cuhk03(root, options)
    parts = (splits.train, splits.query, splits.gallery)
    ours = [[(s.path, s.camid) for s in part] for part in parts]
    image = {path: np.asarray(Image.open(path)) for part in ours for path, _ in part}
    for folder in (root / "cuhk03").glob("images_*"):
        shutil.rmtree(folder)
    writer = types.SimpleNamespace(imwrite=lambda path, pixels: Image.fromarray(pixels).save(path))
    monkeypatch.setitem(sys.modules, "imageio", writer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs_module = importlib.import_module("torchreid.reid.data.datasets.image.cuhk03")
    theirs = theirs_module.CUHK03(
        root=str(root), split_id=split_id, cuhk03_labeled=labeled, cuhk03_classic_split=classic, verbose=False
    )
    assert ours == [
        sorted((path, camid) for path, _, camid, *_ in part) for part in (theirs.train, theirs.query, theirs.gallery)
    ]
    for part, reference in zip(parts, (theirs.train, theirs.query, theirs.gallery), strict=True):
        their_pid = {path: pid for path, pid, *_ in reference}
        assert (
            len({(s.pid, their_pid[s.path]) for s in part}) == len({s.pid for s in part}) == len({*their_pid.values()})
        )
    for path, pixels_of in image.items():
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels_of)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "not an HDF5 file"), (b"MATLAB 5.0 MAT-file" * 90, "not an HDF5 file")]
)
def test_a_damaged_mat(content: bytes, message: str, root: Path) -> None:
    (root / "cuhk03" / "cuhk03_release" / "cuhk-03.mat").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_cuhk03(root, ReadOptions())


@pytest.mark.parametrize("options", [ReadOptions(), CLASSIC])
def test_a_mat_of_something_else(options: ReadOptions, root: Path) -> None:
    if options.cuhk03_classic_split:
        read_cuhk03(root, options)
    with h5py.File(root / "cuhk03" / "cuhk03_release" / "cuhk-03.mat", "w") as mat:
        mat["x"] = 1
    with pytest.raises(UserError, match="copy it again"):
        read_cuhk03(root, options)


@pytest.mark.parametrize(
    "change", [{"train_idx": [[99]]}, {"labels": [[1]]}, {"query_idx": [[0]]}, {"gallery_idx": []}]
)
def test_a_config_that_does_not_fit(change: dict[str, object], root: Path) -> None:
    write_config(root / "cuhk03" / "cuhk03_new_protocol_config_detected.mat", **change)
    with pytest.raises(UserError, match=r"config_detected\.mat does not hold"):
        read_cuhk03(root, ReadOptions())


def test_a_damaged_config(root: Path) -> None:
    (root / "cuhk03" / "cuhk03_new_protocol_config_detected.mat").write_bytes(b"text")
    with pytest.raises(UserError, match=r"config_detected\.mat does not hold"):
        read_cuhk03(root, ReadOptions())


def test_no_config(root: Path) -> None:
    (root / "cuhk03" / "cuhk03_new_protocol_config_detected.mat").unlink()
    with pytest.raises(UserError, match=r"no file .*config_detected.mat"):
        read_cuhk03(root, ReadOptions())
