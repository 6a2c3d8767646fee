"""The presets: what each trains and tests on, and protocol 1 end to end on small drawn trees of its eight data sets."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from datasets import DATASETS, FOLDERS
from datasets.base import ReadOptions
from default_config import flatten, load_config
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

RunMain = Callable[..., int]
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
M, D, S, C, CS = "market1501", "dukemtmcreid", "msmt17", "cuhk03", "cuhksysu"
PRESETS = {  # sources, targets, all images of the sources; and, where they are not the recipe's, splits or epochs
    "msmt17all_to_market_duke": ([S], [M, D], True, {}),
    "market_to_duke": ([M], [D], False, {}),
    "duke_to_market": ([D], [M], False, {}),
    "leave_one_out_market": ([S, D, C], [M], False, {"train.max_epoch": 50}),
    "leave_one_out_duke": ([S, M, C], [D], False, {"train.max_epoch": 50}),
    "leave_one_out_cuhk03": ([S, M, D], [C], False, {"train.max_epoch": 50}),
    "leave_one_out_msmt17": ([M, D, C], [S], False, {"train.max_epoch": 50}),
    "p1": ([M, "cuhk02", C, CS], ["prid", "grid", "viper", "ilids"], True, {"test.num_splits": 10}),
    "p2_market": ([S, C, CS], [M], False, {}),
    "p2_msmt17": ([M, C, CS], [S], False, {}),
    "p2_cuhk03": ([M, S, CS], [C], False, {}),
    "p3_market": ([S, C, CS], [M], True, {}),
    "p3_msmt17": ([M, C, CS], [S], True, {}),
    "p3_cuhk03": ([M, S, CS], [C], True, {}),
}
TARGETS = ["prid", "grid", "viper", "ilids"]
FIRST_TWO = {"prid": ["0", "1"], "grid": ["0", "1"], "viper": ["0", "2"], "ilids": ["0", "1"]}


def test_every_preset_is_listed() -> None:
    assert {p.stem for p in CONFIGS.iterdir()} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_the_retraining_recipe_on_the_protocols_data(name: str) -> None:
    sources, targets, combineall, rest = PRESETS[name]
    data = {"data.sources": sources, "data.targets": targets, "data.combineall": combineall}
    expected = flatten(load_config([ROOT / "child.yaml"])) | data | rest | {"data.save_dir": f"log/{name}"}
    assert flatten(load_config([CONFIGS / f"{name}.yaml"])) == expected
    assert set(sources) | set(targets) <= set(DATASETS)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("base: nowhere.yaml\n", "cannot read config file .*nowhere.yaml"),
        ("base: second.yaml\n", "second.yaml: base = 'third.yaml': must be"),
        ("base: first.yaml\n", "first.yaml: base = 'first.yaml': must be"),
        ("base: [a.yaml, b.yaml]\n", "must be the path of a config file"),
        ("base: {file: a.yaml}\n", "unknown key 'base.file'"),
    ],
)
def test_a_base_that_cannot_be_used_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "first.yaml").write_text(content)
    (tmp_path / "second.yaml").write_text("base: third.yaml\n")
    with pytest.raises(UserError, match=told) as caught:
        load_config([tmp_path / "first.yaml"])
    assert "\n" not in str(caught.value)


def test_a_file_wins_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("train: {lr: 0.5, max_epoch: 7}\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file.yaml").write_text("base: ../base.yaml\ntrain: {lr: 0.25}\n")
    cfg = load_config([tmp_path / "own" / "file.yaml"])
    assert (cfg.train.lr, cfg.train.max_epoch) == (0.25, 7)


def test_folders_are_those_that_the_readers_look_for(tmp_path: Path) -> None:
    assert {n for n in DATASETS if not n.startswith("synthetic")} - {"folder"} == set(FOLDERS)
    for name, folder in FOLDERS.items():
        with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path / folder))}\b"):
            DATASETS[name](tmp_path, ReadOptions())


def list_images() -> list[str]:
    """Lists a few people of each of protocol 1's data sets, below the root."""
    images = []
    for pid in range(1, 7):
        images += [f"cuhksysu/cropped_images/p{pid}_s{n}_1.jpg" for n in (1, 2)]
        images += [f"cuhk02/Dataset/P{pair}/cam{c}/{pid:03}_1.png" for pair in range(1, 6) for c in (1, 2)]
        images += [f"cuhk03/images_detected/1_{pid:03}_{view}_0{1 + 5 * (view - 1)}.png" for view in (1, 2)]
        images += [f"viper/VIPeR/{camera}/{pid:03}_45.bmp" for camera in ("cam_a", "cam_b")]
        images += [f"prid2011/prid_2011/single_shot/{camera}/person_{pid:04}.png" for camera in ("cam_a", "cam_b")]
        images += [f"grid/underground_reid/{p}/{pid:04}_{c}_1.jpeg" for c, p in ((1, "probe"), (2, "gallery"))]
        images += [f"ilids/i-LIDS_Pedestrian/Persons/{pid:04}{number:03}.jpg" for number in (1, 2, 3)]
        for part, first, numbers in (
            ("bounding_box_train", 0, (0, 1)),
            ("query", 50, (0,)),
            ("bounding_box_test", 50, (1,)),
        ):
            folder = f"market1501/Market-1501-v15.09.15/{part}"
            images += [f"{folder}/{first + pid:04}_c{c}s1_00000{n}_00.jpg" for c in (1, 2) for n in numbers]
    images += [f"prid2011/prid_2011/single_shot/cam_b/person_{pid:04}.png" for pid in (201, 202)]
    return [*images, "grid/underground_reid/gallery/0000_3_1.jpeg"]


@pytest.fixture(scope="module")
def p1_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small trees of protocol 1's data sets, images of noise; not to be changed."""
    root = tmp_path_factory.mktemp("p1")
    rng = np.random.default_rng(0)
    for name in list_images():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(root / name)
    cells = np.empty((1, 2), dtype=object)
    for position, pids in enumerate(([1, 2, 3], [2, 4, 6])):
        kind = [("testA", object), ("testB", object), ("train", object)]
        cells[0, position] = np.array([[(np.array([[1]]), np.array([[1]]), np.array([pids], np.uint16))]], dtype=kind)
    savemat(root / "grid/underground_reid/features_and_partitions.mat", {"trainIdxAll": cells})
    files = sorted(p.name for p in (root / "cuhk03/images_detected").iterdir())
    positions = {"train_idx": range(1, 9), "query_idx": (9, 11), "gallery_idx": (10, 12)}
    savemat(
        root / "cuhk03/cuhk03_new_protocol_config_detected.mat",
        {"filelist": np.array(files, dtype=object), "labels": [int(f[2:5]) for f in files]}
        | {part: list(numbers) for part, numbers in positions.items()},
    )
    return root


P1 = ["--config-file", CONFIGS / "p1.yaml", "test.num_splits", 2]


def read_targets(file: Path) -> dict[str, dict[str, Any]]:
    return json.loads(file.read_text())["targets"]


def test_protocol_1_trains_and_prints_means_over_splits(
    run_main: RunMain, p1_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(*P1, "train.max_epoch", 1, "test.ranks", [1, 2], root=p1_root) == 0
    targets = read_targets(tmp_path / "run" / "metrics.json")
    assert list(targets) == TARGETS
    output = capsys.readouterr().out
    for name, scores in targets.items():
        assert list(scores["splits"]) == FIRST_TWO[name]
        for key in ("mAP", "mINP", "rank1", "rank2"):
            values = [split[key] for split in scores["splits"].values()]
            assert scores[key] == pytest.approx(np.mean(values), abs=1e-12)
            assert scores[f"{key}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert re.search(rf"{name} mean ± std +{scores['mAP']:.1%} ± {scores['mAP_std']:.1%} ", output)
        for split_id, split in scores["splits"].items():
            assert re.search(rf"{name} split {split_id} +{split['mAP']:.1%} ", output)
    # the best weights are chosen by the mean over targets, each counted once
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    assert best["progress"]["best"] == pytest.approx(np.mean([scores["mAP"] for scores in targets.values()]), abs=1e-12)
    # market 6 + 6, cuhk02 5 × 6, cuhk03 6, cuhksysu 6 people
    assert best["identity"]["num_classes"] == 12 + 30 + 6 + 6

    weights = ["test.evaluate", True, "model.load_weights", tmp_path / "run" / "checkpoints" / "best.pt"]
    for position in (0, 1):  # each split alone, as any other target is scored
        for name, split_ids in FIRST_TWO.items():
            folder = tmp_path / f"{name}{position}"
            words = ["-t", name, "data.split_id", split_ids[position], "test.num_splits", 1, "test.ranks", [1, 2]]
            assert run_main(*P1, *words, *weights, root=p1_root, save_dir=folder) == 0
            alone = read_targets(folder / "metrics.json")[name]
            assert "splits" not in alone
            assert alone == pytest.approx(targets[name]["splits"][split_ids[position]], abs=1e-6)


def test_a_target_with_one_split_is_scored_once(run_main: RunMain, p1_root: Path, tmp_path: Path) -> None:
    words = ["-s", "cuhk02", "-t", "market1501", "viper", "data.split_id", 17, "test.rerank", True]
    assert run_main(*P1, *words, "train.max_epoch", 1, root=p1_root) == 0
    targets = read_targets(tmp_path / "run" / "metrics.json")
    assert list(targets) == ["market1501", "market1501+rerank", "viper", "viper+rerank"]
    assert [list(scores.get("splits", [])) for scores in targets.values()] == [[], [], ["17", "19"], ["17", "19"]]


def test_protocol_1_in_the_other_direction(run_main: RunMain, p1_root: Path, tmp_path: Path) -> None:
    """As the preset's head tells it, with all of its sources and splits."""
    documented = re.search(r"The other direction: (.*)\.$", (CONFIGS / "p1.yaml").read_text(), re.MULTILINE)
    assert documented
    words = ["--config-file", CONFIGS / "p1.yaml", *documented[1].split()]
    assert run_main(*words, "train.max_epoch", 1, "test.ranks", [1], root=p1_root) == 0
    targets = read_targets(tmp_path / "run" / "metrics.json")
    assert {name: list(scores["splits"]) for name, scores in targets.items()} == {
        "viper": [str(split_id) for split_id in range(1, 20, 2)]
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.split_id", 1], r"test.num_splits is 2, but from data.split_id 1 on grid has 1 \(split_id 1\)"),
        (["-t", "viper", "test.num_splits", 11], r"on viper has 10 \(split_id 0, 2, 4, .*, 18\): lower one of the two"),
        (["-t", "prid", "data.split_id", 9], r"from data.split_id 9 on prid has 1 \(split_id 9\)"),
        (["-t", "prid", "data.split_id", 10], r"data.split_id is 10, but prid has splits 0 to 9"),
        (["-s", "cuhk02", "viper", "-t", "viper"], r"viper is a source, so split 0's training people are in the tests"),
        (["-t", "market1501"], r"test.num_splits is 2, but market1501 has a single split: leave it at 1"),
        (["test.num_splits", 0], r"test.num_splits = 0: must be at least 1"),
    ],
)
def test_splits_that_cannot_be_had_are_told_in_one_line(
    run_main: RunMain,
    p1_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[object],
    told: str,
) -> None:
    sources = [] if "-s" in words else ["-s", "cuhk02"]
    assert run_main(*P1, *sources, *words, root=p1_root) == 2
    error = capsys.readouterr().err
    assert re.search(told, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_all_missing_data_sets_are_told_before_any_is_read(
    run_main: RunMain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("market1501", "prid2011"):  # empty, which their readers would complain about
        (tmp_path / "data" / name).mkdir(parents=True)
    assert run_main(*P1, root=tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 6 of the 8 data sets of this run are not there: cuhk02 (no folder ")
    for name in ("cuhk02", "cuhk03", "cuhksysu", "grid", "viper", "ilids"):
        assert f"{name} (no folder {tmp_path / 'data' / name})" in error
    assert not re.search("market1501|prid", error)
    assert error.count("\n") == 1
    assert run_main("-s", "viper", "-t", "viper", root=tmp_path / "data") == 2
    assert capsys.readouterr().err.startswith("error: the data set of this run is not there: viper (no folder ")
