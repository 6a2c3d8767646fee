"""Two processes: the same gradients, scores and architecture as one, and errors and losses that end or restart all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from datasets.decode import decode_image, resize
from genotype import Genotype
from osnet_child import build_child
from tests.fork_server import ROOT, ForkServer, wait_for_text
from utils.checkpoint import load_checkpoint
from utils.seed import seed_everything

SETTINGS = [
    "model.width", "0.25", "data.height", "32", "data.width", "16", "data.workers", "0", "train.batch_size", "18",
    "train.max_epoch", "2", "test.batch_size", "5", "test.ranks", "[1, 5]", "data.transforms", "['random_flip']",
]  # fmt: skip
CHILD = ["model.name", "osnet_child", "model.genotype", "osnet_ain"]


@pytest.fixture(scope="module")
def server():
    server = ForkServer()
    yield server
    server.close()


def start_two(server: ForkServer, words: list[object], log: Path, *roots: Path) -> list[int]:
    """Starts two processes as torchrun does, with gloo on this machine; on data of their own where roots are given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    # as on two machines of which one took a lost one's place
    each = [{"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": 1 - rank} for rank in (0, 1)]
    own_words = [["--root", root] for root in roots] or [[], []]
    return [server.start([*words, *more], log, {**common, **own}) for own, more in zip(each, own_words, strict=True)]


def run_two(server: ForkServer, words: list[object], log: Path) -> list[int]:
    """Returns both exit codes."""
    return [server.wait(pid) for pid in start_two(server, words, log)]


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
    """A search's run of two processes, with as much set as can get in DistributedDataParallel's way."""
    folder = tmp_path_factory.mktemp("searched")
    words = ["--root", market_root, "data.save_dir", folder / "run", "model.name", "osnet_nas", *SETTINGS,
             "nas.mc_iter", 2, "train.fixbase_epoch", 1, "nas.sample_scope", "replica"]  # fmt: skip
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
    started = time.monotonic()
    assert [server.wait(pid) for pid in pids] == [2, 2]
    assert time.monotonic() - started < 30
    assert len(errors(log)) == 1, log.read_text()
    assert str(vanished) in errors(log)[0]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["batch"] == 1


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
    assert log.read_text().count("continue with: model.resume") == 1
    assert not errors(log)


@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_process_in_an_evaluation_stops_both(server, trained, market_root, tmp_path, rank):
    """It acts at once, while the other process waits for this one's features."""
    log = tmp_path / "log"
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SETTINGS,
             "test.evaluate", True, "model.load_weights", trained / "checkpoints" / "last.pt",
             "data.height", 1024, "data.width", 512, "test.batch_size", 1]  # fmt: skip
    pids = start_two(server, words, log)
    wait_for_text(log, "2 process(es)")
    time.sleep(0.2)
    os.kill(pids[rank], signal.SIGTERM)
    assert [server.wait(pid) for pid in pids] == [143, 143], log.read_text()
    assert log.read_text().count("stopped before anything was saved") == 1
    assert not errors(log)


def test_signal_to_a_process_that_waits_for_the_others(server, market_root, tmp_path):
    log = tmp_path / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0,
             "LOCAL_RANK": 0}  # fmt: skip
    pid = server.start(["--root", market_root, *CHILD], log, alone)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid, 10) == 130
    assert log.read_text() == "stopped, there was nothing to save\n"


def test_torchrun_restarts_after_a_lost_process(server, market_root, tmp_path):
    words = ["--root", market_root, "model.name", "osnet_nas", *SETTINGS, "train.max_epoch", 3, "model.resume", "auto"]
    assert run_two(server, [*words, "data.save_dir", tmp_path / "whole"], tmp_path / "log") == [0, 0]
    settings = [*map(str, words), "data.save_dir", str(tmp_path / "parts")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--max-restarts", "3", str(ROOT / "main.py"), *settings]  # fmt: skip
    log = tmp_path / "torchrun"
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
        try:
            wait_for_text(log, "epoch 1/3 done")
            os.kill(max(children(run.pid)), signal.SIGKILL)
            assert run.wait(200) == 0, log.read_text()
        finally:
            run.kill()
    assert "continuing at epoch 2" in log.read_text() or "continuing at epoch 3" in log.read_text()
    whole, parts = (load_checkpoint(tmp_path / n / "checkpoints" / "last.pt") for n in ("whole", "parts"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
    assert whole["progress"] == parts["progress"]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]
