"""The main job end to end on a tiny data set: search, child, evaluation, resuming, what a run leaves."""

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch
import yaml

from engine import trainer as trainer_module
from genotype import Genotype
from main import main
from osnet_child import build_child
from tests.conftest import SMALL
from tests.same import assert_same
from utils import checkpoint
from utils.checkpoint import load_checkpoint

SHARED = ["nas.candidates", "shared"]  # a third of the time, where a search's candidates are not what is tested


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["model"]


def test_search_leaves_what_was_found(run_main, tmp_path, capsys):
    assert run_main(name="osnet_nas") == 0
    folder = tmp_path / "run"
    names = {p.name for p in folder.iterdir() if not p.name.startswith("events")}
    assert names == {"config.yaml", "train.log", "checkpoints", "metrics.json", "genotype.json", "architecture.png",
                     "history.jsonl", "ranking.npz", "report.html"}  # fmt: skip
    assert any(p.name.startswith("events") for p in folder.iterdir())
    genotype = Genotype.from_json(folder / "genotype.json")
    log = (folder / "train.log").read_text()
    for line in str(genotype).splitlines():
        assert line in log
    assert f"GENOTYPE = {genotype!r}" in log
    probabilities = torch.tensor(genotype.found["probabilities"])
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6))
    assert probabilities.argmax(dim=1).tolist() == list(genotype.indices)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "not retrained" in metrics["scored"]
    assert 0 <= metrics["targets"]["market1501"]["mAP"] <= 1
    assert "probability" not in capsys.readouterr().err


def test_found_genotype_is_retrained_and_evaluated(run_main, market_root, tmp_path):
    Genotype.named("osnet_ibn").to_json(tmp_path / "genotype.json")
    child = tmp_path / "child"
    assert run_main("model.genotype", tmp_path / "genotype.json", "train.lr", 0.01, save_dir=child) == 0
    trained = json.loads((child / "metrics.json").read_text())
    assert trained["model"]["genotype"] == list(Genotype.named("osnet_ibn").blocks)
    best = child / "checkpoints" / "best.pt"
    words = ["model.genotype", tmp_path / "genotype.json", "test.evaluate", True, "model.load_weights", best]
    assert run_main(*words, save_dir=tmp_path / "evaluation") == 0
    words = ["--root", market_root, "model.name", "osnet_child", "data.workers", 0, "test.evaluate", True,
             "model.load_weights", best, "test.ranks", [1, 5], "data.save_dir", tmp_path / "bare"]  # fmt: skip
    assert main([str(word) for word in words]) == 0  # network and images as trained
    log = (tmp_path / "bare" / "evaluate.log").read_text()
    assert (
        f"INFO as {best} was trained: model.width 0.25, model.genotype osnet_ibn, data.height 32, data.width 16" in log
    )
    bare = json.loads((tmp_path / "bare" / "metrics.json").read_text())
    assert bare["targets"] == trained["targets"]
    evaluated = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert evaluated["targets"] == trained["targets"]


def test_evaluation_beside_a_run_overwrites_nothing(run_main, tmp_path):
    assert run_main("model.genotype", "osnet") == 0
    folder = tmp_path / "run"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    words = ["model.genotype", "osnet", "test.evaluate", True, "model.load_weights", folder / "checkpoints" / "last.pt"]
    assert run_main(*words) == 0
    assert {p: p.read_bytes() for p in before} == before
    assert (folder / "metrics-2.json").exists()
    assert (folder / "evaluate.log").exists()


def test_evaluation_needs_no_training_data(run_main, own_market_root, tmp_path):
    assert run_main("model.genotype", "osnet") == 0
    words = ["-s", "dukemtmcreid", "-t", "market1501", "model.genotype", "osnet", "test.evaluate", "True",
             "model.load_weights", tmp_path / "run" / "checkpoints" / "best.pt"]  # fmt: skip
    assert run_main(*words, save_dir=tmp_path / "evaluation") == 0


def test_child_learns(run_main, tmp_path):
    assert run_main("model.genotype", "osnet_ain", "train.lr", 0.003, "train.max_epoch", 12) == 0
    log = (tmp_path / "run" / "train.log").read_text()
    losses = [float(line.split("loss ")[1].split()[0]) for line in log.splitlines() if "  loss " in line]
    assert losses[-1] < 0.75 * losses[0]


def test_named_genotype_brings_its_stem_norm(run_main, tmp_path):
    assert run_main("model.genotype", "osnet", "train.max_epoch", 1) == 0
    assert "conv1.norm.running_mean" in weights_of(tmp_path / "run" / "checkpoints" / "last.pt")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
@pytest.mark.parametrize(
    "extra",
    [[], ["train.optim", "sgd", "nas.mc_iter", 2, "nas.candidates", "shared", "data.transforms", "['random_flip']"]],
)
def test_two_and_two_epochs_are_four(run_main, tmp_path, monkeypatch, name, extra):
    words = ["train.max_epoch", 4, "train.batch_size", 18, "train.lr_scheduler", "cosine", *extra]
    assert run_main(*words, name=name, save_dir=tmp_path / "whole") == 0
    saved = trainer_module.Trainer._finish_epoch

    def stop_after_two(self, epoch, scores):
        saved(self, epoch, scores)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_finish_epoch", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run_main(*words, name=name, save_dir=tmp_path / "parts")
    last = tmp_path / "parts" / "checkpoints" / "last.pt"
    torch.manual_seed(12345)  # a new process would start from anything
    assert run_main(*words, "model.resume", last, name=name, save_dir=tmp_path / "parts") == 0
    a, b = (load_checkpoint(tmp_path / part / "checkpoints" / "last.pt") for part in ("whole", "parts"))
    for key in ("model", "optimizers", "schedulers", "task", "random", "progress"):
        assert_same(a[key], b[key], key)
    scores = [json.loads((tmp_path / part / "metrics.json").read_text())["targets"] for part in ("whole", "parts")]
    assert scores[0] == scores[1]


@pytest.fixture(scope="module")
def uninterrupted(market_root, tmp_path_factory):
    """Runs a network's training with small settings, once; returns its last checkpoint."""
    ends = {}

    def run(name, *more):
        if (name, *more) not in ends:
            folder = tmp_path_factory.mktemp(name)
            words = ["--root", market_root, "model.name", name, "data.save_dir", folder, *SMALL, *more]
            assert main([str(word) for word in words]) == 0
            ends[name, *more] = load_checkpoint(folder / "checkpoints" / "last.pt")
        return ends[name, *more]

    return run


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
def test_signal_in_mid_epoch_saves_and_the_run_continues_exactly(
    run_main, uninterrupted, tmp_path, monkeypatch, capfd, number, name
):
    more = [] if number == signal.SIGTERM else SHARED
    whole = uninterrupted(name, *more)
    capfd.readouterr()
    learn, count = trainer_module.Trainer._learn, [0]

    def signalled_step(self, batch):
        count[0] += 1
        if count[0] == 5:
            signal.raise_signal(number)
        learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_learn", signalled_step)
        codes = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}
        assert run_main(*more, name=name, save_dir=tmp_path / "parts") == codes[number]
    (told,) = re.findall(r"; continue with: python main\.py (.*)", capfd.readouterr().out)
    assert told.endswith(" model.resume auto")
    progress = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 2)
    assert main(shlex.split(told)) == 0
    parts = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.pt")
    for key in ("model", "optimizers", "schedulers", "task", "progress"):
        assert_same(whole[key], parts[key], key)


def test_a_finished_run_is_made_longer(run_main, tmp_path):
    words = ["train.lr_scheduler", "single_step", "train.stepsize", [1]]
    assert run_main(*words, "train.max_epoch", 3, save_dir=tmp_path / "whole") == 0
    assert run_main(*words, "train.max_epoch", 1) == 0
    assert run_main(*words, "train.max_epoch", 3, "model.resume", "auto") == 0
    ends = [tmp_path / folder / "checkpoints" / "last.pt" for folder in ("whole", "run")]
    for key in ("model", "optimizers", "schedulers", "task"):
        assert_same(*(load_checkpoint(end)[key] for end in ends), key)
    experiments = [json.loads((tmp_path / f / "metrics.json").read_text())["experiment"] for f in ("whole", "run")]
    assert experiments[0] == experiments[1]


def test_a_longer_cosine_run_is_another_experiment_and_stays_one(run_main, tmp_path, capsys):
    words = ["train.lr_scheduler", "cosine"]
    metrics = tmp_path / "run" / "metrics.json"
    assert run_main(*words, "train.max_epoch", 3, save_dir=tmp_path / "whole") == 0
    assert run_main(*words, "train.max_epoch", 2) == 0
    assert run_main(*words, "train.max_epoch", 1, "model.resume", "auto") == 2  # it cannot be made shorter
    assert "train.max_epoch: 2 then, 1 now" in capsys.readouterr().err
    found = []
    for _ in range(2):
        assert run_main(*words, "train.max_epoch", 3, "model.resume", "auto") == 0
        found.append(json.loads(metrics.read_text())["experiment"])
    assert found[0] == found[1] != json.loads((tmp_path / "whole" / "metrics.json").read_text())["experiment"]
    out = capsys.readouterr().out
    assert out.count("train.lr_scheduler cosine depends on train.max_epoch: the learning rate goes on at 7.5e-05") == 1


def test_a_log_begins_with_what_was_started_and_ends_with_what_is_next(run_main, tmp_path):
    assert run_main("train.max_epoch", 1, "train.print_freq", 2) == 0
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert re.search(r"INFO python main\.py --root .* model\.name osnet_child data\.save_dir .*/run ", lines[0])
    assert re.search(
        r"INFO seed 1, python 3\S+, torch \S+, torchvision \S+; runs of experiment \w{12} differ", lines[1]
    )
    text = "\n".join(lines)
    assert (
        "to do: 3 steps of 12 images (epochs: 1, batches of each: 3), then features of 24 images; the first 2 batches"
        in text
    )
    assert re.search(r"batch 2/3 .* epoch ends in \S+, training in \S+", text)
    assert text.count("rank-1") == 1  # scores are shown once
    title, *steps = lines[-4:]
    assert title.endswith("INFO next:")
    assert [step.partition(":")[0].strip() for step in steps][-1] == "export it"
    evaluation = shlex.split(steps[0].partition(": ")[2])[2:]
    assert main(evaluation) == 0
    assert (tmp_path / "run" / "metrics-2.json").exists()


def test_auto_starts_anew_where_there_is_nothing_to_continue(run_main, tmp_path):
    assert run_main("model.resume", "auto", "train.max_epoch", 1) == 0
    assert (tmp_path / "run" / "metrics.json").exists()
    assert "only scored" not in (log := tmp_path / "run" / "train.log").read_text()
    assert run_main("model.resume", "auto", "train.max_epoch", 1) == 0
    assert "already trained to epoch 1, only scored now" in log.read_text()


def test_auto_falls_back_to_the_checkpoint_before_a_damaged_one(run_main, tmp_path, capfd):
    assert run_main(save_dir=tmp_path / "whole") == 0
    assert run_main() == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[: len(content) // 2])
    assert run_main("model.resume", "auto") == 0
    assert "trying the checkpoint before it" in capfd.readouterr().out
    assert_same(weights_of(last), weights_of(tmp_path / "whole" / "checkpoints" / "last.pt"))


def test_checkpoint_is_read_once(run_main, monkeypatch):
    assert run_main("train.max_epoch", 1) == 0
    read, paths = checkpoint.read_torch_file, []
    monkeypatch.setattr(checkpoint, "read_torch_file", lambda path: paths.append(path) or read(path))
    assert run_main("model.resume", "auto", "train.max_epoch", 1) == 0
    assert len(paths) == 1


def test_best_is_kept_also_where_a_run_continues_in_another_folder(run_main, tmp_path):
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    saved = load_checkpoint(tmp_path / "first" / "checkpoints" / "last.pt")
    saved["progress"] = {**saved["progress"], "epoch": 0, "best": 1.0}  # better than what comes
    saved["schedulers"]["weights"]["last_epoch"] = 0
    checkpoint.save_checkpoint(tmp_path / "other.pt", saved)
    resume = ["train.max_epoch", 1, "model.resume", tmp_path / "other.pt"]
    assert run_main(*resume, save_dir=tmp_path / "second") == 0
    best = load_checkpoint(tmp_path / "second" / "checkpoints" / "best.pt")
    assert 0 <= best["progress"]["best"] <= 1


@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
def test_sound_run_has_no_complaint_of_gradients(run_main, tmp_path, name):
    assert run_main("train.max_epoch", 1, name=name) == 0
    assert "gradient" not in (tmp_path / "run" / "train.log").read_text()


def test_dead_candidate_is_warned_of_from_the_first_steps_on(run_main, tmp_path, monkeypatch):
    def forward(self, x, weights):
        parts = zip(weights, self.candidates, strict=True)
        return sum(w * c(x) * (i != 2) for i, (w, c) in enumerate(parts))

    monkeypatch.setattr("osnet_nas.MixedBlock.forward", forward)
    assert run_main("train.max_epoch", 1, name="osnet_nas") == 0
    log = (tmp_path / "run" / "train.log").read_text()
    dead = [f"conv{stage}.{block}.candidates.2" for stage in (2, 3, 4) for block in (0, 1)]
    assert f"WARNING the gradient was 0 throughout the first 2 steps in {', '.join(dead)}\n" in log


def test_epoch_starts_anew_on_other_images(run_main, own_market_root, tmp_path, monkeypatch, capfd):
    learn, count = trainer_module.Trainer._learn, [0]

    def signalled_step(self, batch):
        count[0] += 1
        if count[0] == 5:
            signal.raise_signal(signal.SIGTERM)
        learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_learn", signalled_step)
        assert run_main(root=own_market_root) == 143
    progress = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 2)
    next((own_market_root / "market1501" / "Market-1501-v15.09.15" / "bounding_box_train").iterdir()).unlink()
    assert run_main("model.resume", "auto", root=own_market_root) == 0
    output = capfd.readouterr().out
    assert "the training images are not those of the saved run; epoch 2 starts anew with them" in output
    assert "continuing at epoch 2, batch 1" in output


def test_broken_test_image_does_not_end_a_run_under_skip(run_main, own_market_root, tmp_path, monkeypatch):
    """It passes the check before the first batch, which does not decode."""
    base = own_market_root / "market1501" / "Market-1501-v15.09.15"
    image = min((base / "query").iterdir())
    monkeypatch.setattr("datasets.build.find_broken", lambda paths, share: [])
    image.write_bytes(image.read_bytes()[:-40])
    words = ["train.max_epoch", 1, "test.rerank", True]
    assert run_main(*words, root=own_market_root, save_dir=tmp_path / "stop") == 2
    words += ["data.on_corrupt", "skip", "test.visrank", True, "test.visrank_topk", 2]
    assert run_main(*words, root=own_market_root) == 0
    target = json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]["market1501"]
    assert target["num_queries"] == 7


def test_every_evaluation_and_the_best_are_kept(run_main, tmp_path):
    assert run_main("test.eval_freq", 1, "train.max_epoch", 3, "test.rerank", True, "test.flip", True) == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert [log.count(told) for told in ("after epoch", "scores of the child network:", "market1501+rerank  ")] == [
        2,
        1,
        3,
    ]
    targets = json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]
    assert set(targets) == {"market1501", "market1501+rerank"}
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")["progress"]["best"]
    assert best >= sum(t["mAP"] for t in targets.values()) / 2 - 1e-12


def test_pairs_of_cameras_are_shown_and_kept(run_main, tmp_path, capsys):
    assert run_main("train.max_epoch", 1, "test.camera_pairs", True) == 0
    target = json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]["market1501"]
    first, second = target["camera_pairs"]
    assert [(p["query_camid"], p["gallery_camid"], p["num_queries"]) for p in (first, second)] == [(0, 1, 4), (1, 0, 4)]
    assert (first["mAP"] + second["mAP"]) / 2 >= target["mAP"]  # without the images of the query's own camera
    output = capsys.readouterr().out
    assert re.search(r"market1501, mAP / rank-1 +1 +2\n[- ]+\n1 .*\n2 ", output)  # as names of files have them
    for line in ("market1501, mAP / rank-1", f"{first['mAP']:.1%} / {first['rank1']:.1%}"):
        assert line in output


def test_several_targets_are_all_scored(run_main, market_root, own_market_root, tmp_path):
    duke = own_market_root / "dukemtmc-reid"
    (own_market_root / "market1501").rename(duke)
    (duke / "Market-1501-v15.09.15").rename(duke / "DukeMTMC-reID")
    (own_market_root / "market1501").symlink_to(market_root / "market1501")
    words = ["-s", "market1501", "dukemtmcreid", "-t", "market1501", "dukemtmcreid", "train.max_epoch", "1"]
    assert run_main(*words, root=own_market_root) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["targets"]) == ["market1501", "dukemtmcreid"]
    assert metrics["model"]["num_classes"] == 12


@pytest.mark.parametrize(
    "words",
    [
        ["loss.name", "triplet", "sampler.train_sampler", "RandomIdentitySampler"],
        ["loss.name", "triplet", "loss.triplet.weight_x", 1.0, "sampler.train_sampler", "RandomIdentitySampler"],
        ["train.fixbase_epoch", 1, "train.max_epoch", 2],
        ["train.staged_lr", True, "train.optim", "radam"],
        ["train.amp", "bf16", "train.clip_grad_norm", 1.0],
        ["train.channels_last", False, "train.optim", "rmsprop"],
        ["nas.sample_scope", "replica", "nas.candidates", "separate", "data.combineall", True],
    ],
)
@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
def test_settings_run(run_main, tmp_path, name, words):
    quick = [*SHARED, "train.max_epoch", 1] if name == "osnet_nas" else []
    assert run_main(*quick, "sampler.num_instances", 3, *words, name=name) == 0
    assert (tmp_path / "run" / "metrics.json").exists()


def test_fixed_layers_do_not_move(run_main, tmp_path):
    words = ["train.fixbase_epoch", 1, "train.max_epoch", 1, "train.open_layers", "['classifier']"]
    assert run_main(*words, save_dir=tmp_path / "scratch") == 0
    torch.manual_seed(1)
    fresh = build_child(6, width=0.25).state_dict()
    start = tmp_path / "scratch" / "checkpoints" / "last.pt"
    assert run_main(*words, "model.load_weights", start) == 0
    told = "only classifier will learn in the first 1 epochs (train.fixbase_epoch), on"
    for folder, before, body in (("scratch", fresh, "random weights"), ("run", weights_of(start), start)):
        after = weights_of(tmp_path / folder / "checkpoints" / "last.pt")
        for key, tensor in before.items():
            assert torch.equal(tensor, after[key]) == (not key.startswith("classifier")), key
        assert f"{told} {body}" in (tmp_path / folder / "train.log").read_text()


def test_the_body_learns_from_the_first_epoch_on_from_scratch(run_main, tmp_path):
    assert run_main("train.fixbase_epoch", -1) == 0
    assert "all layers learn from the first epoch on" in (tmp_path / "run" / "train.log").read_text()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["fixbase_epoch"] == 0


def test_merged_config_is_written_and_loads_again(run_main, tmp_path):
    assert run_main("train.max_epoch", 1, "train.lr", 0.123) == 0
    path = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(path.read_text())["train"]["lr"] == 0.123
    assert run_main("--config-file", path, save_dir=tmp_path / "again") == 0


def test_help_names_the_flows_and_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("search", "train", "evaluate", "--config-file", "--root", "--sources", "--gpu-devices", "KEY VALUE"):
        assert word in text


def test_run_that_started_from_weights_continues(run_main, tmp_path):
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    words = ["model.load_weights", tmp_path / "first" / "checkpoints" / "last.pt", "train.max_epoch", 2]
    assert run_main(*words, save_dir=tmp_path / "second") == 0
    for again in (words, ["train.max_epoch", 2]):
        assert run_main(*again, "model.resume", "auto", save_dir=tmp_path / "second") == 0


def test_continuing_into_another_runs_folder_is_refused(run_main, tmp_path, capsys):
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "second") == 0
    resume = ["model.resume", tmp_path / "first" / "checkpoints" / "last.pt", "train.max_epoch", 1]
    assert run_main(*resume, save_dir=tmp_path / "second") == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_source_that_is_also_a_target_keeps_its_standard_split(run_main, tmp_path, capsys):
    assert run_main("data.combineall", True, "train.max_epoch", 1, save_dir=tmp_path / "all") == 0
    assert "data.combineall adds no images of market1501: they are tested on" in capsys.readouterr().out
    assert run_main("train.max_epoch", 1) == 0
    ends = [weights_of(tmp_path / name / "checkpoints" / "last.pt") for name in ("all", "run")]
    assert_same(*ends, "weights")


def test_runs_that_differ_in_their_seed_alone_are_one_experiment(run_main, tmp_path):
    genotypes = tmp_path / "a.json", tmp_path / "search" / "genotype.json"
    genotypes[1].parent.mkdir()
    for path in genotypes:
        Genotype.named("osnet_ibn").to_json(path)

    def run(name, *words):
        assert run_main("train.max_epoch", 1, *words, save_dir=tmp_path / name) == 0
        return json.loads((tmp_path / name / "metrics.json").read_text())

    first = run("first", "model.genotype", genotypes[0])
    second = run("second", "model.genotype", genotypes[1].parent, "train.seed", 2, "data.workers", 1)
    assert (first["format"], first["version"]) == ("osnet-metrics", 1)
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["command"][:2] == ["main.py", "--root"]
    assert first["command"][-2:] == ["model.genotype", str(genotypes[0])]
    assert first["experiment"] == second["experiment"]
    Genotype.named("osnet").to_json(genotypes[0])  # the same name, another content
    assert run("third", "model.genotype", genotypes[0])["experiment"] != first["experiment"]


def test_a_continued_run_is_the_same_experiment(run_main, tmp_path, capsys):
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    start, metrics = tmp_path / "first" / "checkpoints" / "last.pt", tmp_path / "run" / "metrics.json"
    weights = ["model.load_weights", start]
    assert run_main("train.max_epoch", 1, *weights) == 0
    whole = json.loads(metrics.read_text())["experiment"]
    for words in ([], weights):
        assert run_main("train.max_epoch", 1, "model.resume", "auto", *words) == 0
        assert json.loads(metrics.read_text())["experiment"] == whole
    start.unlink()
    assert run_main("train.max_epoch", 1, "model.resume", "auto", *weights) == 0
    assert f"{start}, which this run started from, cannot be read any more" in capsys.readouterr().out


def test_weights_that_decide_on_the_first_epochs_are_asked_for_again(run_main, tmp_path, capsys):
    assert run_main("train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    start = tmp_path / "first" / "checkpoints" / "last.pt"
    words = ["train.fixbase_epoch", -1]
    assert run_main(*words, "model.load_weights", start) == 0
    capsys.readouterr()
    assert run_main(*words, "model.resume", "auto") == 2
    told = f"(model.load_weights: '{start}' then, '' now; train.fixbase_epoch: 1 then, 0 now)"
    assert told in capsys.readouterr().err
    assert run_main(*words, "model.resume", "auto", "model.load_weights", start) == 0
