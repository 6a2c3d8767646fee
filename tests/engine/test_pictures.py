"""Pictures of an evaluation: what they show, and that a run leaves them where and when it should."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from engine.evaluator import ScoringRules, evaluate_targets
from engine.picture_files import MAPS_OF_A_SHEET, compute_activation_maps
from engine.pictures import MAPS_OF_A_TARGET, Pictures, choose_shown
from osnet_child import build_child
from utils.distance import compute_distmat
from utils.distributed import Runtime
from utils.label_names import LabelNames

RUNTIME = Runtime(torch.device("cpu"))
NAMES = LabelNames({3: "zoë"}, {0: "yard"})  # the others are called by their numbers, cameras from 1


class FakeBatches:
    """Features in place of images, in batches of four."""

    def __init__(self, features, pids, camids, folder, kind):
        self.features, self.pids, self.camids = features, torch.as_tensor(pids), torch.as_tensor(camids)
        labels = zip(pids.tolist(), camids.tolist(), strict=True)
        self.samples = [
            SimpleNamespace(path=str(folder / f"{kind}_{i}.png"), pid=p, camid=c) for i, (p, c) in enumerate(labels)
        ]
        for sample in self.samples:
            Image.new("RGB", (8, 16), (sample.pid * 20, sample.camid * 60, 90)).save(sample.path)

    def __len__(self):
        return -(-len(self.features) // 4)

    def __iter__(self):
        for indices in torch.arange(len(self.features)).split(4):
            yield SimpleNamespace(
                indices=indices, images=self.features[indices], pids=self.pids[indices], camids=self.camids[indices]
            )


@pytest.fixture
def target(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()

    def make(kind, count):
        features = torch.from_numpy(rng.random((count, 6), dtype=np.float32))
        return FakeBatches(features, rng.integers(1, 6, count), rng.integers(0, 3, count), tmp_path / "images", kind)

    return SimpleNamespace(query=make("query", 14), gallery=make("gallery", 45), splits={}, names=NAMES)


def evaluate(target, pictures, **settings):
    return evaluate_targets(
        nn.Identity(), {"drawn": target}, lambda b: b.images, RUNTIME, ScoringRules(ranks=(1, 5), **settings), pictures
    )


@pytest.mark.parametrize("rerank", [False, True])
def test_watching_changes_no_score(target, rerank):
    watched, alone = (evaluate(target, observer, rerank=rerank) for observer in (Pictures(5), None))
    assert watched == alone


def call(sample):
    person = "zoë" if sample.pid == 3 else str(sample.pid)
    return person, {0: "yard", 1: "2", 2: "3"}[sample.camid]


def test_lists_follow_from_the_distances(target, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "engine.picture_files.format_ranked_lists_page", lambda name, summary, sections, _: drawn.update(sections) or ""
    )
    pictures = Pictures(5)
    evaluate(target, pictures)
    pictures.write(tmp_path)
    assert list(drawn) == ["best", "worst", "random"]
    assert [len(lists) for lists in drawn.values()] == [10, 10, 10]
    precisions = pictures.rankings["drawn"].result.average_precision
    assert [r.average_precision for r in drawn["worst"]] == sorted(precisions)[:10]
    assert [r.average_precision for r in drawn["best"]] == sorted(precisions, reverse=True)[:10]
    distmat = compute_distmat(target.query.features, target.gallery.features)
    query_of = {sample.path: index for index, sample in enumerate(target.query.samples)}
    for ranked in drawn["random"]:
        own = target.query.samples[query_of[ranked.path]]
        assert (ranked.person, ranked.camera) == call(own)
        counted = [
            (float(distance), image)
            for distance, image in zip(distmat[query_of[ranked.path]], target.gallery.samples, strict=True)
            if (image.pid, image.camid) != (own.pid, own.camid)
        ]
        counted.sort(key=lambda pair: pair[0])
        shown = [(n.distance, n.path, (n.person, n.camera)) for n in ranked.neighbours]
        assert shown == [(d, image.path, call(image)) for d, image in counted[:5]]
        assert [n.is_match for n in ranked.neighbours] == [image.pid == own.pid for _, image in counted[:5]]
        first = next(i for i, (_, image) in enumerate(counted) if image.pid == own.pid)
        assert (ranked.first_match.rank, ranked.first_match.path) == (first + 1, counted[first][1].path)
        assert ranked.num_matches == sum(image.pid == own.pid for _, image in counted)


def test_reranked_lists_are_drawn_beside_the_plain_ones(target, tmp_path):
    pictures = Pictures(1)
    evaluate(target, pictures, rerank=True)
    pictures.write(tmp_path)
    assert {"visrank_drawn", "visrank_drawn+rerank", "cmc.png"} <= {p.name for p in tmp_path.iterdir()}
    assert "re-ranked distance" in (tmp_path / "visrank_drawn+rerank" / "index.html").read_text(encoding="utf-8")


def test_activation_map_is_the_energy_of_conv5():
    torch.manual_seed(0)
    model, images = build_child(3, width=0.25), torch.randn(2, 3, 64, 32)
    maps = compute_activation_maps(model, images)
    assert model.training
    assert not model.conv5._forward_hooks
    model.eval()
    kept = []
    model.conv5.norm.register_forward_hook(lambda module, inputs, output: kept.append(output.detach().double()))
    model(images)
    energy = np.square(np.maximum(kept[0].numpy(), 0)).sum(axis=1)
    energy /= np.sqrt(np.square(energy).sum(axis=(1, 2), keepdims=True))
    grown = F.interpolate(torch.from_numpy(energy)[None], (64, 32), mode="bilinear")[0].numpy()
    low, high = grown.min(axis=(1, 2), keepdims=True), grown.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps.numpy(), (grown - low) / (high - low), atol=1e-5)


def test_map_without_activation_is_zero():
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv5 = nn.ReLU()

        def forward(self, images):
            return self.conv5(-images.abs())

    assert not compute_activation_maps(Dead(), torch.rand(2, 3, 8, 4)).any()


def test_shown_images_are_the_same_in_every_run():
    chosen = choose_shown(1000)
    assert chosen == choose_shown(1000) == sorted(set(chosen))
    assert len(chosen) == MAPS_OF_A_TARGET
    assert chosen[0] > 0 or chosen[-1] > MAPS_OF_A_TARGET
    assert choose_shown(3) == [0, 1, 2]


PICTURES = {"cmc.png", "distances_market1501.png", "visrank_market1501", "visactmap_market1501"}


def names_in(folder):
    return {p.name for p in folder.iterdir()}


def test_evaluation_leaves_pictures(run_main, tmp_path):
    torch.manual_seed(0)
    child = tmp_path / "child"
    assert run_main("train.max_epoch", 1, save_dir=child) == 0
    assert not names_in(child) & PICTURES
    folder = tmp_path / "run"
    words = ["test.evaluate", True, "model.load_weights", child / "checkpoints" / "last.pt"]
    words += ["test.visrank", True, "test.visrank_topk", 4, "test.visactmap", True]
    assert run_main(*words) == 0
    assert names_in(folder) >= PICTURES
    assert names_in(folder / "visrank_market1501") == {"index.html", "best.png", "worst.png", "random.png"}
    page = (folder / "visrank_market1501" / "index.html").read_text(encoding="utf-8")
    num_queries, num_gallery = 8, 16  # 4 people under 2 cameras
    assert page.count("<article") == 3 * num_queries
    later = page.count('class="later"')
    assert page.count("<img") == 3 * num_queries * (1 + 4) + later
    assert f"<dd>{num_gallery}</dd>" in page
    mAP = json.loads((folder / "metrics.json").read_text())["targets"]["market1501"]["mAP"]
    assert f"<dd>{mAP:.1%}</dd>" in page
    assert str(tmp_path) not in page
    assert "id 101, cam 1" in page  # as 0101_c1s1_000000_00.jpg says
    sheets = names_in(folder / "visactmap_market1501")
    assert sheets == {f"sheet_{i + 1}.png" for i in range(-(-num_queries // MAPS_OF_A_SHEET))}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 1, path
    assert "pictures are in" in (folder / "evaluate.log").read_text()


@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
def test_only_the_last_evaluation_draws(run_main, tmp_path, monkeypatch, name):
    taken = []
    keep = Pictures.keep_network
    monkeypatch.setattr(Pictures, "keep_network", lambda *arguments: (taken.append(1), keep(*arguments)))
    words = ["test.visrank", True, "test.visrank_topk", 1, "test.visactmap", True]
    assert run_main("test.eval_freq", 1, *words, name=name) == 0
    assert len(taken) == 1
    assert (tmp_path / "run" / "train.log").read_text().count("after epoch") == 1
    assert names_in(tmp_path / "run") >= PICTURES


def test_maps_name_people_and_cameras_as_the_files_do(target, tmp_path, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "engine.picture_files.draw_activation_maps", lambda images, maps, part, title: captions.extend(part) or Figure()
    )
    monkeypatch.setattr(
        "engine.picture_files.compute_activation_maps", lambda model, images: torch.zeros(len(images), 4, 2)
    )
    query = target.query
    query.features = torch.zeros(len(query.features), 3, 4, 2)
    pictures = Pictures(shown={"drawn": (query, NAMES)})
    pictures.keep_network(nn.Identity(), lambda batch: batch.images)
    pictures.write(tmp_path)
    assert (
        captions[:12]
        == ["id {}, camera {}\n{}".format(*call(sample), f"query_{i}.png") for i, sample in enumerate(query.samples)][
            :12
        ]
    )


def test_finished_run_draws_when_it_is_continued(run_main, tmp_path):
    assert run_main("train.max_epoch", 1) == 0
    assert not names_in(tmp_path / "run") & PICTURES
    assert run_main("train.max_epoch", 1, "model.resume", "auto", "test.visactmap", True) == 0
    assert names_in(tmp_path / "run") & PICTURES == {"visactmap_market1501"}


def test_image_that_is_gone_when_its_map_is_drawn_leaves_the_scores(run_main, own_market_root, tmp_path, monkeypatch):
    write = Pictures.write

    def remove_and_write(self, folder):
        for path in own_market_root.rglob("query/*.jpg"):
            path.unlink()
        write(self, folder)

    monkeypatch.setattr(Pictures, "write", remove_and_write)
    assert run_main("train.max_epoch", 1, "test.visactmap", True, root=own_market_root) == 2
    assert (tmp_path / "run" / "metrics.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()


def test_pictures_leave_out_images_that_cannot_be_read(run_main, own_market_root, tmp_path):
    """``data.on_corrupt skip`` holds for activation maps and ranked lists too, also of damage inside a file."""
    damaged = min(own_market_root.rglob("query/*.jpg"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:20] + bytes(len(content) - 22) + content[-2:])  # its beginning and end are whole
    words = ["train.max_epoch", 1, "test.visrank", True, "test.visactmap", True]
    assert run_main(*words, "data.on_corrupt", "skip", root=own_market_root) == 0
    assert names_in(tmp_path / "run") >= PICTURES
    page = (tmp_path / "run" / "visrank_market1501" / "index.html").read_text(encoding="utf-8")
    assert damaged.name not in page


def test_pictures_that_cannot_be_written_are_reported_and_the_scores_stay(run_main, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "visactmap_market1501").write_text("in the way")
    assert run_main("train.max_epoch", 1, "test.visactmap", True) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.json").exists()
