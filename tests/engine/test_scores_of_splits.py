"""Scores of one split and of several: means, deviations, the table, and what is computed for them."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.evaluator import ScoringRules, evaluate_targets
from engine.scores import Scores, average_splits, format_camera_pairs, format_scores
from utils.distributed import choose_runtime
from utils.label_names import LabelNames
from utils.match_ranks import CameraPairs
from utils.ranking import evaluate_ranking

SPLITS = {
    0: Scores({1: 0.5, 5: 0.75}, mAP=0.25, mINP=0.125, num_queries=4),
    2: Scores({1: 0.0, 5: 0.75}, mAP=0.75, mINP=0.0, num_queries=5),
    4: Scores({1: 1.0, 5: 0.75}, mAP=0.125, mINP=0.25, num_queries=4),
}


def test_mean_and_sample_deviation_over_splits() -> None:
    document = average_splits(SPLITS).as_document()
    for key in ("mAP", "mINP", "rank1", "rank5"):
        values = [getattr(s, key) if key[0] == "m" else s.ranks[int(key[4:])] for s in SPLITS.values()]
        assert document[key] == pytest.approx(np.mean(values))
        assert document[f"{key}_std"] == pytest.approx(np.sqrt(np.sum((values - np.mean(values)) ** 2) / 2))
    assert document["num_queries"] == 13
    assert document["splits"] == {str(i): split.as_dict() for i, split in SPLITS.items()}


def test_scores_of_one_split_have_no_deviation() -> None:
    flat = {"rank1": 0.5, "rank5": 0.75, "mAP": 0.25, "mINP": 0.125, "num_queries": 4}
    assert SPLITS[0].as_dict() == SPLITS[0].as_document() == flat


def test_numbers_for_tensorboard_are_flat() -> None:
    assert all(isinstance(value, float | int) for value in average_splits(SPLITS).as_dict().values())


def test_table_has_a_line_a_split_and_one_for_the_mean() -> None:
    _, _, *lines, note = format_scores({"viper": average_splits(SPLITS), "market1501": SPLITS[0]}).splitlines()
    assert note == "±: sample standard deviation (n − 1) over the splits"
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    labels = ["viper split 0", "viper split 2", "viper split 4", "viper mean ± std", "market1501"]
    assert [row[0] for row in cells] == labels
    assert [cell.strip() for cell in cells[3][1:]] == [
        *("37.5% ± 33.1%", "50.0% ± 50.0%", "75.0% ± 0.0%", "12.5% ± 12.5%", "13"),
    ]
    assert [cell.strip() for cell in cells[4][1:]] == ["25.0%", "50.0%", "75.0%", "12.5%", "4"]
    assert "±" not in format_scores({"market1501": SPLITS[0]})


NAMES = {"a": LabelNames(cameras={0: "yard"}), "b": LabelNames(), "v": LabelNames()}


def test_table_of_pairs_of_cameras() -> None:
    nan = np.nan
    mAP, rank1 = np.array([[nan, 0.5], [0.25, nan]]), np.array([[nan, 1.0], [0.0, nan]])
    pairs = CameraPairs(np.array([0, 3]), np.array([0, 3]), mAP, rank1, np.array([[0, 2], [4, 0]]))
    scored = replace(SPLITS[0], camera_pairs=pairs)
    header, _, *lines = format_camera_pairs({"a+rerank": scored, "b": SPLITS[0]}, NAMES).splitlines()
    assert header.split() == ["a+rerank,", "mAP", "/", "rank-1", "yard", "4"]
    assert [" ".join(line.split()) for line in lines] == ["yard – 50.0% / 100.0%", "4 25.0% / 0.0% –"]
    assert scored.as_document()["camera_pairs"] == [
        {"query_camid": 0, "gallery_camid": 3, "mAP": 0.5, "rank1": 1.0, "num_queries": 2},
        {"query_camid": 3, "gallery_camid": 0, "mAP": 0.25, "rank1": 0.0, "num_queries": 4},
    ]
    assert format_camera_pairs({"b": SPLITS[0]}, NAMES) == ""
    assert "v split 2, mAP / rank-1" in format_camera_pairs({"v": average_splits({0: SPLITS[0], 2: scored})}, NAMES)


class Images:
    """Batches of three over numbered images; an image's feature is looked up by its number."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return -(-len(self.samples) // 3)

    def __iter__(self) -> Any:
        for start in range(0, len(self.samples), 3):
            part = self.samples[start : start + 3]
            yield SimpleNamespace(
                indices=torch.arange(start, start + len(part)),
                images=torch.tensor([int(s.path) for s in part]),
                pids=torch.tensor([s.pid for s in part]),
                camids=torch.tensor([s.camid for s in part]),
            )


@dataclass
class Target:
    query: Images
    gallery: Images
    splits: dict[int, "Target"] = field(default_factory=dict)
    names: LabelNames = field(default_factory=LabelNames)


class Lookup(nn.Module):
    """Gives the feature of each image and counts the images."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table, self.seen = table, 0

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        self.seen += len(numbers)
        return self.table[numbers]


def test_splits_are_scored_as_if_alone_and_each_image_is_computed_once() -> None:
    rng = np.random.default_rng(3)
    table = torch.from_numpy(rng.normal(size=(40, 8)).astype(np.float32))
    images = [SimpleNamespace(path=str(i), pid=i % 20, camid=i // 20) for i in range(40)]
    splits = {}
    for split_id in (1, 3, 5):
        people = set(rng.permutation(20)[:10].tolist())
        test = [s for s in images if s.pid in people]
        splits[split_id] = Target(
            Images([s for s in reversed(test) if s.camid == 0]), Images([s for s in test if s.camid == 1])
        )
    whole = Target(Images(images[:20]), Images(images[20:]), splits)
    network = Lookup(table)

    scores = evaluate_targets(
        network, {"t": whole}, lambda batch: batch.images, choose_runtime(False), ScoringRules(ranks=(1, 5))
    )

    assert network.seen == 40
    assert list(scores) == ["t"]
    assert list(scores["t"].splits) == [1, 3, 5]
    for split_id, split in splits.items():
        query, gallery = split.query.samples, split.gallery.samples
        features = [table[[int(s.path) for s in part]] for part in (query, gallery)]
        labels = [np.array([getattr(s, f) for s in part]) for f in ("pid", "camid") for part in (query, gallery)]
        alone = Scores.from_result(evaluate_ranking(*features, *labels, metric="euclidean", max_rank=5), (1, 5))
        assert scores["t"].splits[split_id].as_dict() == pytest.approx(alone.as_dict(), abs=1e-12)
