"""Two processes: the same gradients, scores and architecture as one, and errors and losses that end or restart all."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.decode import decode_image, resize
from genotype import Genotype
from osnet_child import build_child
from tests.fork_server import ROOT, ForkServer, wait_for_text
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.seed import seed_everything

SETTINGS = [
    "model.width", "0.25", "data.height", "32", "data.width", "16", "data.workers", "0", "train.batch_size", "18",
    "train.max_epoch", "2", "test.batch_size", "5", "test.ranks", "[1, 5]", "data.transforms", "['random_flip']",
]  # fmt: skip
# with as much set as can get in DistributedDataParallel's way
SEARCH = ["model.name", "osnet_nas", *SETTINGS, "nas.mc_iter", "2", "train.fixbase_epoch", "1",
          "nas.sample_scope", "replica"]  # fmt: skip
CHILD = ["model.name", "osnet_child", "model.genotype", "osnet_ain"]


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(server: ForkServer, words: list[object], log: Path, *roots: Path, module: str = "main") -> list[int]:
    """Starts two processes as torchrun does, with gloo on this machine; on data of their own where roots are given."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_port(), "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    # as on two machines of which one took a lost one's place
    each = [{"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": 1 - rank} for rank in (0, 1)]
    own_words = [["--root", root] for root in roots] or [[], []]
    return [
        server.start([*words, *more], log, {**common, **own}, module) for own, more in zip(each, own_words, strict=True)
    ]


def run_two(server: ForkServer, words: list[object], log: Path, module: str = "main") -> list[int]:
    """Returns both exit codes."""
    return [server.wait(pid) for pid in start_two(server, words, log, module=module)]


def share_work(server: ForkServer, kind: str, setting: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what ``tests.shared_work`` finds in one process and in two."""
    log = folder / "log"
    pid = server.start([kind, setting, folder / "one"], log, module="tests.shared_work")
    assert server.wait(pid) == 0, log.read_text()
    assert run_two(server, [kind, setting, folder / "two"], log, "tests.shared_work") == [0, 0], log.read_text()
    one, two = (torch.load(folder / name, weights_only=True) for name in ("one", "two"))
    return one, two


def assert_same_step(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-12)
    for name, expected in one["gradients"].items():
        assert (two["gradients"][name] - expected).norm() <= 1e-9 * expected.norm() + 1e-15, name


@pytest.mark.parametrize("weight_x", ["0", "0.7"])
def test_triplet_loss_of_two_processes_is_that_of_the_whole_batch(server, tmp_path, weight_x):
    one, two = share_work(server, "triplet", weight_x, tmp_path)
    assert one["gradients"]["body.weight"].norm() > 0.01
    assert_same_step(one, two)
    if weight_x == "0":
        assert two["losses"] == pytest.approx([one["loss"]] * 2, rel=1e-12)  # the whole batch's, in each of them


@pytest.mark.parametrize("scope", ["global", "replica"])
def test_alphas_learn_from_two_processes_as_from_the_whole_batch(server, tmp_path, scope):
    one, two = share_work(server, "alphas", scope, tmp_path)
    assert (one["gradients"]["alphas"] != 0).any(dim=1).all()
    assert_same_step(one, two)


@pytest.mark.parametrize("last", ["weights", "alphas"])
def test_held_out_alphas_and_weights_learn_in_turn_from_triplets_of_the_whole_batch(server, tmp_path, last):
    one, two = share_work(server, "alternating", last, tmp_path)
    gradients = one["gradients"]
    assert (gradients["alphas"] != 0).any(dim=1).all() if last == "alphas" else gradients["conv5.conv.weight"].any()
    assert gradients.keys() == two["gradients"].keys()
    assert ("alphas" in gradients) == (len(gradients) == 1) == (last == "alphas")
    assert_same_step(one, two)


@pytest.mark.parametrize("setting", ["gumbel", "triplet", "uniform"])
def test_parts_of_two_processes_are_those_of_one(server, tmp_path, setting):
    one, two = share_work(server, "parts", setting, tmp_path)
    assert one["gradients"]["fc.0.weight"].norm() > 0.001
    assert one["gradients"].keys() == two["gradients"].keys()
    assert_same_step(one, two)
    for name, expected in one["buffers"].items():
        torch.testing.assert_close(two["buffers"][name], expected, rtol=1e-9, atol=1e-12)
    assert int(two["buffers"]["fc.1.num_batches_tracked"]) == 2


@pytest.mark.parametrize("watched", ["unwatched", "watched"])
def test_rankings_of_two_processes_are_those_of_one_bit_for_bit(server, tmp_path, watched):
    one, two = share_work(server, "scores", watched, tmp_path)
    assert two["equal"]
    assert two["scores"] == one["scores"]
    assert "camera_pairs" in one["scores"]["+rerank"]


def test_exchanges_outside_of_a_step_wait_for_days(server, tmp_path):
    assert run_two(server, ["patience", "", tmp_path / "two"], tmp_path / "log", "tests.shared_work") == [0, 0]
    step, others = torch.load(tmp_path / "two")["limits"]
    assert step <= 1800
    assert others > 86400


def test_step_of_two_processes_is_the_mean_of_the_halves(server, market_root, tmp_path):
    """One SGD step without momentum moves the weights by the mean of the halves' gradients."""
    lr = 0.5
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", "model.genotype",
             "osnet", *SETTINGS, "train.optim", "sgd", "sgd.momentum", 0.0, "train.weight_decay", 0.0, "train.lr", lr,
             "sampler.train_sampler", "SequentialSampler", "data.transforms", "[]", "train.batch_size", 36,
             "train.max_epoch", 1, "loss.softmax.label_smooth", False]  # fmt: skip
    assert run_two(server, words, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    after = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"]

    seed_everything(1)
    child = build_child(6, Genotype.named("osnet"), width=0.25, stem_norm="batch")
    before = {name: p.detach().clone() for name, p in child.named_parameters()}
    files = sorted((market_root / "market1501" / "Market-1501-v15.09.15" / "bounding_box_train").glob("*.jpg"))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = torch.stack([(resize(decode_image(str(f)), 32, 16) / 255 - mean) / std for f in files])
    labels = torch.tensor([int(f.name[:4]) - 1 for f in files])
    for half in (slice(0, 18), slice(18, 36)):  # gradients add up
        torch.nn.functional.cross_entropy(child(images[half]), labels[half]).backward()
    for name, parameter in child.named_parameters():
        expected = parameter.grad / 2
        error = ((before[name] - after[name]) / lr - expected).norm()
        assert error < 0.04 * expected.norm() + 1e-5, name  # rounding alone: these images are plain


@pytest.fixture(scope="module")
def trained(server, market_root, tmp_path_factory):
    """A child's run of one process."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["--root", market_root, "data.save_dir", folder / "run", "model.name", "osnet_child", *SETTINGS]
    assert server.run([*words, "train.max_epoch", 1], folder / "log") == 0, (folder / "log").read_text()
    return folder / "run"


@pytest.fixture(scope="module")
def searched(server, market_root, tmp_path_factory):
    """A search's run of two processes."""
    folder = tmp_path_factory.mktemp("searched")
    words = ["--root", market_root, "data.save_dir", folder / "run", *SEARCH]
    assert run_two(server, words, folder / "log") == [0, 0], (folder / "log").read_text()
    return folder


def test_search_of_two_processes(searched):
    """Alphas are compared in every epoch (``SearchTask.end_epoch`` raises where they differ)."""
    log = (searched / "log").read_text()
    for line in ("2 process(es) × 1 replica(s)", "found architecture", "epoch 2/2 done"):
        assert log.count(line) == 1, log
    assert "Warning" not in log
    assert (load_checkpoint(searched / "run" / "checkpoints" / "last.pt")["model"]["alphas"] != 1).all()


@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
def test_evaluation_of_two_processes_is_that_of_one(server, request, market_root, tmp_path, name):
    run = request.getfixturevalue("trained") if name == "osnet_child" else request.getfixturevalue("searched") / "run"
    words = ["--root", market_root, "model.name", name, *SETTINGS, "test.evaluate", True,
             "test.rerank", True, "model.load_weights", run / "checkpoints" / "last.pt"]  # fmt: skip
    assert server.run([*words, "data.save_dir", tmp_path / "one"], tmp_path / "log") == 0
    assert run_two(server, [*words, "data.save_dir", tmp_path / "two"], tmp_path / "log") == [0, 0]
    one, two = (json.loads((tmp_path / n / "metrics.json").read_text())["targets"] for n in ("one", "two"))
    assert one == two


def test_scores_inside_of_a_run_are_those_of_its_checkpoint(server, market_root, tmp_path):
    """Running statistics differ between the processes; the scores are those of what is saved."""
    words = ["--root", market_root, "model.name", "osnet_child", *SETTINGS, "train.max_epoch", 1]
    log = tmp_path / "log"
    assert run_two(server, [*words, "data.save_dir", tmp_path / "run"], log) == [0, 0], log.read_text()
    evaluation = ["test.evaluate", True, "model.load_weights", tmp_path / "run" / "checkpoints" / "last.pt"]
    assert server.run([*words, "data.save_dir", tmp_path / "one", *evaluation], log) == 0, log.read_text()
    inside, after = (json.loads((tmp_path / n / "metrics.json").read_text())["targets"] for n in ("run", "one"))
    assert inside == after


def errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("error:") or "Traceback" in line]


def test_mistake_is_told_once(server, market_root, tmp_path):
    words = [
        "--root",
        market_root,
        "data.save_dir",
        tmp_path / "run",
        "model.name",
        "osnet_child",
        *SETTINGS,
        "train.batch_size",
        15,
    ]
    assert run_two(server, words, tmp_path / "log") == [2, 2]
    assert len(errors(tmp_path / "log")) == 1
    assert run_two(server, [*words, "train.lrr", 1], tmp_path / "log2") == [2, 2]
    assert len(errors(tmp_path / "log2")) == 1


def test_process_whose_address_is_taken_says_so_in_one_line(server, market_root, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        first = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0,
                 "LOCAL_RANK": 0}  # fmt: skip
        pid = server.start(["--root", market_root, *CHILD], tmp_path / "log", first)
        assert server.wait(pid) == 2
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith(f"error: the 2 processes of this run did not find each other at 127.0.0.1 port {port}: ")


def test_what_torchrun_left_in_a_shell_hides_no_error(server, tmp_path):
    pid = server.start(["train.lrr", 1], tmp_path / "log", {"LOCAL_RANK": 1})
    assert server.wait(pid) == 2
    assert len(errors(tmp_path / "log")) == 1


def test_triplets_reach_over_the_processes_of_a_run(server, market_root, tmp_path):
    """Each process has images of one identity, whose triplets alone are none."""
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS,
             "train.max_epoch", 1, "train.batch_size", 8, "sampler.train_sampler", "RandomIdentitySampler",
             "sampler.num_instances", 4, "loss.name", "triplet"]  # fmt: skip
    assert run_two(server, words, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    loss = re.search(r"epoch 1/1 batch \S+  loss (\S+)", (tmp_path / "log").read_text())
    assert float(loss[1]) > 0.01


def test_processes_that_see_other_images_are_told(server, market_root, own_market_root, tmp_path):
    next(own_market_root.rglob("bounding_box_test/*.jpg")).unlink()
    words = ["data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS]
    pids = start_two(server, words, tmp_path / "log", market_root, own_market_root)
    assert [server.wait(pid) for pid in pids] == [2, 2]
    (told,) = errors(tmp_path / "log")
    assert told.startswith("error: the processes see different images")


def test_error_in_one_process_ends_both_with_one_line(server, own_market_root, tmp_path):
    """An image vanishes that only one process reads: it is told, the run is saved, and nobody waits for ever."""
    folder, log = own_market_root / "market1501" / "Market-1501-v15.09.15" / "bounding_box_train", tmp_path / "log"
    words = ["--root", own_market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS,
             "train.max_epoch", 500, "sampler.train_sampler", "SequentialSampler"]  # fmt: skip
    pids = start_two(server, words, log)
    wait_for_text(log, "epoch 1/500 done")
    vanished = max(folder.glob("*.jpg"))
    vanished.unlink()
    assert [server.wait(pid) for pid in pids] == [2, 2]
    assert len(errors(log)) == 1, log.read_text()
    assert str(vanished) in errors(log)[0]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["batch"] == 1


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_process_ends_the_other_with_one_line(server, market_root, tmp_path, killed):
    """Also where the store, which they could tell each other in, goes with it."""
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS,
             "train.max_epoch", 500]  # fmt: skip
    pids = start_two(server, words, tmp_path / "log")
    wait_for_text(tmp_path / "log", "epoch 1/500 done")
    os.kill(pids[killed], signal.SIGKILL)
    assert server.wait(pids[1 - killed]) == 2
    assert errors(tmp_path / "log") == ["error: another process of this run was lost; continue with model.resume auto"]


def test_signal_to_one_process_stops_both(server, market_root, tmp_path):
    log = tmp_path / "log"
    words = [
        "--root",
        market_root,
        "data.save_dir",
        tmp_path / "run",
        "model.name",
        "osnet_child",
        *SETTINGS,
        "train.max_epoch",
        500,
    ]
    pids = start_two(server, words, log)
    wait_for_text(log, "epoch 1/500 done")
    os.kill(pids[1], signal.SIGTERM)
    assert [server.wait(pid) for pid in pids] == [143, 143]
    told = r"continue with: torchrun as before and main\.py .* model\.resume auto"
    assert len(re.findall(told, log.read_text())) == 1
    assert not errors(log)


@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_process_in_an_evaluation_stops_both(server, trained, market_root, tmp_path, rank):
    """It acts at once, while the other process waits for this one's features."""
    log = tmp_path / "log"
    saved = load_checkpoint(trained / "checkpoints" / "last.pt")
    save_checkpoint(tmp_path / "weights.pt", {key: saved[key] for key in ("identity", "model")})  # for any size
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS,
             "test.evaluate", True, "model.load_weights", tmp_path / "weights.pt",
             "data.height", 1024, "data.width", 512, "test.batch_size", 1]  # fmt: skip
    pids = start_two(server, words, log)
    wait_for_text(log, "2 process(es)")
    os.kill(pids[rank], signal.SIGTERM)
    assert [server.wait(pid) for pid in pids] == [143, 143], log.read_text()
    assert log.read_text().count("stopped by SIGTERM before anything was saved") == 1
    assert not errors(log)


def test_signal_to_a_process_that_waits_for_the_others(server, market_root, tmp_path):
    log = tmp_path / "log"
    port = find_port()
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0,
             "LOCAL_RANK": 0}  # fmt: skip
    pid = server.start(["--root", market_root, *CHILD], log, alone)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid) == 130
    assert log.read_text() == "stopped, there was nothing to save\n"


def test_torchrun_restarts_after_a_lost_process(searched, market_root, tmp_path):
    settings = ["--root", str(market_root), *SEARCH, "model.resume", "auto", "data.save_dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--max-restarts", "3", str(ROOT / "main.py"), *settings]  # fmt: skip
    log = tmp_path / "torchrun"
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
        try:
            wait_for_text(log, "epoch 1/2 done")
            os.kill(max(children(run.pid)), signal.SIGKILL)
            assert run.wait(600) == 0, log.read_text()
        finally:
            run.kill()
    assert "continuing at epoch 2" in log.read_text() or "continuing at epoch 3" in log.read_text()
    whole, parts = (load_checkpoint(folder / "run" / "checkpoints" / "last.pt") for folder in (searched, tmp_path))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
    assert whole["progress"] == parts["progress"]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
