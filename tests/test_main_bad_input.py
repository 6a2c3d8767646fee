"""User errors: one clear line on stderr, exit code 2, and nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genotype import Genotype
from main import main
from osnet_child import build_child
from utils.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fails(run_main, tmp_path, capsys):
    """Runs main, expects exit code 2 and one line that holds ``told``; nothing may have been written."""

    def check(*words, told, **settings):
        before = sorted(p for p in tmp_path.rglob("*") if "data" not in p.relative_to(tmp_path).parts[:1])
        capsys.readouterr()
        assert run_main(*words, **settings) == 2
        captured = capsys.readouterr().err
        assert told in captured
        assert captured.count("\n") == 1
        assert captured.startswith("error: ")
        after = sorted(p for p in tmp_path.rglob("*") if "data" not in p.relative_to(tmp_path).parts[:1])
        assert after == before

    return check


def train_folder(root: Path) -> Path:
    return root / "market1501" / "Market-1501-v15.09.15" / "bounding_box_train"


def first_image(root: Path) -> Path:
    return min(train_folder(root).glob("*.jpg"))


def test_missing_root(fails, tmp_path):
    fails(root=tmp_path / "nowhere", told="nowhere")


def test_empty_root(fails, tmp_path):
    (tmp_path / "data").mkdir()
    fails(root=tmp_path / "data", told="market1501")


def test_missing_dataset_folder_says_what_was_expected_where(fails, own_market_root):
    (own_market_root / "market1501").rename(own_market_root / "other")
    fails(root=own_market_root, told=str(own_market_root / "market1501"))


def test_missing_part_of_a_dataset(fails, own_market_root):
    (train_folder(own_market_root)).rename(own_market_root / "elsewhere")
    fails(root=own_market_root, told="bounding_box_train")


def test_file_name_that_does_not_parse(fails, own_market_root):
    first_image(own_market_root).rename(train_folder(own_market_root) / "holiday.jpg")
    fails(root=own_market_root, told="holiday.jpg")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_broken_images_are_named_and_counted_before_training(fails, own_market_root, damage):
    image = first_image(own_market_root)
    content = image.read_bytes()
    image.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image" * 50}[damage])
    fails(root=own_market_root, told=f"1 broken image(s) in market1501: {image}")


def test_broken_images_are_skipped_on_request(run_main, own_market_root, capsys):
    image = first_image(own_market_root)
    image.write_bytes(b"")
    assert run_main("data.on_corrupt", "skip", "train.max_epoch", 1, root=own_market_root) == 0
    assert str(image) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-s", "market1502"], "market1502"),
        (["-t", "duke"], "did you mean 'dukemtmcreid'?"),
        (["data.transforms", "['random_flop']"], "did you mean 'random_flip'?"),
        (["train.optim", "sgdd"], "allowed are adam"),
        (["train.lrr", "1"], "did you mean 'train.lr'?"),
        (["train.lr", "quick"], "must be a number"),
        (["train.lr", "0"], "must be greater than 0"),
        (["train.batch_size", "1000"], "1000"),
        (["sampler.train_sampler", "RandomSampling"], "did you mean 'RandomSampler'?"),
        (["train.staged_lr", "True", "train.new_layers", "['classifer']"], "did you mean 'classifier'?"),
        (["train.fixbase_epoch", "1", "train.open_layers", "['clasifier']"], "did you mean 'classifier'?"),
        (["train.lr_scheduler", "multi_step", "train.stepsize", "[20, 10]"], "rising epochs"),
        (["model.genotype", "osnet_iain"], "osnet_ain"),
        (["model.load_weights", "nowhere.pth"], "nowhere.pth"),
        (["model.resume", "nowhere.pt"], "nowhere.pt"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
        (["train.lr"], "has no value"),
        (["--gpu-devices", "zero"], "--gpu-devices zero"),
    ],
)
def test_wrong_settings(fails, words, told):
    fails(*words, told=told)


def test_single_identity(fails, own_market_root):
    keep = first_image(own_market_root).name[:4]
    for image in train_folder(own_market_root).glob("*.jpg"):
        if not image.name.startswith(keep):
            image.unlink()
    fails("train.batch_size", 2, root=own_market_root, told="identit")


def test_no_query_with_a_match(fails, own_market_root):
    for image in (train_folder(own_market_root).parent / "query").glob("*_c2*.jpg"):
        image.unlink()
    for image in (train_folder(own_market_root).parent / "bounding_box_test").glob("*_c2*.jpg"):
        image.unlink()
    fails(root=own_market_root, told="camera")


def test_query_and_gallery_without_a_common_identity(fails, own_market_root):
    for image in (train_folder(own_market_root).parent / "query").glob("*.jpg"):
        image.rename(image.with_name(f"9{image.name[1:]}"))
    fails(root=own_market_root, told="share no identity")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a genotype file"),
        ('{"format": "other"}', "not a genotype file"),
        ('{"format": "osnet-genotype", "version": 7}', "version 7"),
        ('{"format": "osnet-genotype", "version": 1, "conv2": []}', "lacks conv3, conv4"),
    ],
)
def test_broken_or_foreign_genotype(fails, tmp_path, content, told):
    path = tmp_path / "genotype.json"
    path.write_text(content)
    fails("model.genotype", path, told=told)


def test_genotype_with_unknown_block(fails, tmp_path):
    path = tmp_path / "genotype.json"
    Genotype.named("osnet").to_json(path)
    path.write_text(path.read_text().replace("OSBlock", "OSBlok", 1))
    fails("model.genotype", path, told="did you mean 'OSBlock'?")


def test_slip_in_the_genotype_line(fails, monkeypatch):
    wrong = Genotype(("OSBlock", "OSBlockIN1"), ("OSBlock", "OSBlock"), ("OSBlock", "OSBlock"))
    monkeypatch.setattr("build.GENOTYPE", wrong)
    fails(told="'OSBlockIN1'; did you mean 'OSBlockINv1'?")


@pytest.fixture
def child_checkpoint(run_main, tmp_path):
    assert run_main("model.genotype", "osnet", "train.max_epoch", 1, save_dir=tmp_path / "first") == 0
    return tmp_path / "first" / "checkpoints" / "last.pt"


def test_checkpoint_of_another_model(fails, child_checkpoint):
    words = ["test.evaluate", True, "model.load_weights", child_checkpoint]
    fitting = "; set: model.genotype osnet model.width 0.25"
    fails(*words, "model.genotype", "osnet_ain", told=f"model.genotype osnet and not osnet_ain{fitting}")
    fails(*words, "model.genotype", "osnet", "model.width", 0.5, told=f"model.width 0.25 and not 0.5{fitting}")
    fails(*words, name="osnet_nas", told="holds a child, and the network asked for is a super-network")


def test_search_given_to_a_child(fails, run_main, tmp_path):
    assert run_main("train.max_epoch", 1, name="osnet_nas", save_dir=tmp_path / "search") == 0
    told = "holds a super-network, as a search leaves it, and the network asked for is a child"
    fails("model.load_weights", tmp_path / "search" / "checkpoints" / "best.pt", told=told)


def test_continuing_under_other_settings_shows_the_difference(fails, child_checkpoint):
    words = ["model.resume", child_checkpoint, "model.genotype", "osnet", "train.max_epoch", 1]
    fails(*words, "train.lr", 0.5, told="train.lr: 0.0003 then, 0.5 now")


def test_continuing_a_search_as_a_child(fails, run_main, tmp_path):
    assert run_main("train.max_epoch", 1, name="osnet_nas", save_dir=tmp_path / "search") == 0
    checkpoint = tmp_path / "search" / "checkpoints" / "last.pt"
    fails("model.resume", checkpoint, "train.max_epoch", 1, told="model.name: 'osnet_nas' then")


def test_continuing_from_weights_alone(fails, child_checkpoint, tmp_path):
    """Such as ``tools.convert_weights`` writes."""
    saved = load_checkpoint(child_checkpoint)
    save_checkpoint(tmp_path / "weights.pt", {"identity": saved["identity"], "model": saved["model"]})
    told = f"holds a network's weights alone; start from them with model.load_weights {tmp_path / 'weights.pt'}"
    fails("model.resume", tmp_path / "weights.pt", "model.genotype", "osnet", told=told)


@pytest.mark.parametrize(
    ("where", "name", "told"),
    [
        ("utils.distributed.Runtime.wrap", "osnet_child", "lower train.batch_size and test.batch_size"),
        ("build.build_search_network", "osnet_nas", "lower train.batch_size and test.batch_size"),
        ("build.recalibrate_batch_norm", "osnet_nas", "lower train.batch_size, or set train.device_batch"),
        ("engine.scorer.evaluate_targets", "osnet_nas", "lower test.batch_size"),
    ],
)
def test_full_memory_anywhere_is_one_line(run_main, monkeypatch, capsys, where, name, told):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(where, fail)
    assert run_main("train.max_epoch", 1, name=name) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the memory is too small")
    assert error.endswith(f"{told}\n")


def test_full_memory_where_a_finished_run_is_scored_again_is_one_line(run_main, monkeypatch, capsys):
    assert run_main("train.max_epoch", 1) == 0
    capsys.readouterr()
    monkeypatch.setattr(
        "engine.scorer.evaluate_targets", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA full"))
    )
    assert run_main("train.max_epoch", 1, "model.resume", "auto") == 2
    assert capsys.readouterr().err.endswith("lower test.batch_size\n")


def test_only_best_is_left(fails, child_checkpoint):
    """The advice to resume automatically would go round in a circle."""
    best = child_checkpoint.with_name("best.pt")
    for last in best.parent.glob("last*.pt"):
        last.unlink()
    told = f"has no last.pt to continue from, only best.pt; continue with model.resume {best}"
    words = ["model.resume", "auto", "model.genotype", "osnet", "train.max_epoch", 1]
    fails(*words, save_dir=best.parents[1], told=told)


@pytest.mark.parametrize("key", ["model.resume", "model.load_weights"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_checkpoint(fails, child_checkpoint, key, share):
    content = child_checkpoint.read_bytes()
    child_checkpoint.write_bytes(content[: int(share * len(content))])
    fails(key, child_checkpoint, "model.genotype", "osnet", told=str(child_checkpoint))


@pytest.mark.parametrize("key", ["model.resume", "model.load_weights"])
def test_pickle_with_code_in_it(fails, tmp_path, key):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    fails(key, tmp_path / "evil.pth", told="evil.pth")


def test_weights_of_nothing_known(fails, tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    fails("model.load_weights", tmp_path / "foreign.pth", told="layer.weight")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_save_dir(fails, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    fails(save_dir=tmp_path / "locked" / "run", told="cannot write data.save_dir")


def test_save_dir_that_cannot_be_a_folder(fails, tmp_path):
    (tmp_path / "file").write_text("")
    fails(save_dir=tmp_path / "file" / "run", told="cannot write data.save_dir")


def test_save_dir_that_holds_a_run(fails, run_main, tmp_path):
    assert run_main("train.max_epoch", 1) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    fails("train.max_epoch", 1, told="already holds a run; continue it with model.resume auto")
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("words", [[], ["model.resume", "auto"]])
def test_save_dir_that_holds_results_alone(fails, tmp_path, words):
    """The advice to resume automatically would go round in a circle."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    fails(*words, told="a run that has left no checkpoint to continue from; choose another data.save_dir")


def test_loss_that_is_not_finite_stops_with_state_and_files(run_main, market_root, tmp_path, capsys):
    weights = build_child(6, width=0.25).state_dict()
    weights["conv1.conv.weight"][:] = 1e38  # weights that are not finite themselves are refused
    identity = {"name": "osnet_child", "width": 0.25, "loss": "softmax", "num_classes": 6, "stem_norm": "instance",
                "genotype": list(Genotype.named("osnet_ain").blocks)}  # fmt: skip
    save_checkpoint(tmp_path / "huge.pt", {"model": weights, "identity": identity})
    assert run_main("model.genotype", "osnet_ain", "model.load_weights", tmp_path / "huge.pt") == 2
    captured = capsys.readouterr().err
    assert "not finite in epoch 1, batch 1" in captured
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "not_finite.pt")
    files = {str(p) for p in train_folder(market_root).glob("*.jpg")}
    assert len(saved["batch_files"]) == 12
    assert set(saved["batch_files"]) <= files


def test_vanished_image_stops_or_is_replaced(run_main, own_market_root, tmp_path, monkeypatch, capsys):
    vanished = first_image(own_market_root)
    from run import start

    def start_then_vanish(*arguments):
        start(*arguments)
        vanished.unlink(missing_ok=True)

    monkeypatch.setattr("run.start", start_then_vanish)
    assert run_main(root=own_market_root, save_dir=tmp_path / "stop") == 2
    assert str(vanished) in capsys.readouterr().err
    vanished.write_bytes(min(train_folder(own_market_root).glob("*.jpg")).read_bytes())
    assert run_main("data.on_corrupt", "skip", root=own_market_root, save_dir=tmp_path / "skip") == 0
    out = capsys.readouterr().out
    assert out.count(str(vanished)) == 1
    assert json.loads((tmp_path / "skip" / "metrics.json").read_text())["targets"]


def test_command_line_ends_with_one_line_and_no_traceback(tmp_path):
    words = [sys.executable, "main.py", "--root", str(tmp_path / "nowhere"), "data.save_dir", str(tmp_path / "run")]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_defect_of_ours_ends_in_a_traceback(monkeypatch):
    monkeypatch.setattr("run.build_job", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([])
