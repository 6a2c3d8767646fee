"""Kill -9 at random moments: the continued run ends as the one that was never killed, to the last bit.

The environment variable KILLS sets how many kills each of search and child gets (default 2; 20 before a release).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.fork_server import ROOT, ForkServer, wait_for_text
from tests.same import assert_same
from utils.checkpoint import load_checkpoint

KILLS = int(os.environ.get("KILLS", "2"))
SETTINGS = [
    "model.width", "0.25", "data.height", "32", "data.width", "16", "data.workers", "0", "train.batch_size", "18",
    "train.max_epoch", "2", "test.batch_size", "16", "test.ranks", "[1, 5]", "test.eval_freq", "1",
    "data.transforms", "['random_flip', 'color_jitter']", "train.lr_scheduler", "cosine", "train.optim", "amsgrad",
    "train.save_every_min", "0.000001", "model.resume", "auto", "nas.candidates", "shared",
]  # fmt: skip
EXACT = ("model", "optimizers", "schedulers", "scaler", "task", "progress")


def words(name: str, root: Path, folder: Path) -> list[object]:
    return ["--root", root, "model.name", name, "data.save_dir", folder, *SETTINGS]


def assert_same_run(a: Path, b: Path) -> None:
    """Compares all that two runs computed."""
    for checkpoint in ("last.pt", "best.pt"):
        one, other = (load_checkpoint(folder / "checkpoints" / checkpoint) for folder in (a, b))
        for key in EXACT:
            assert_same(one[key], other[key], f"{checkpoint}/{key}")
    for file, key in (("metrics.json", "targets"), ("genotype.json", "conv2"), ("genotype.json", "found")):
        if (a / file).exists():
            one, other = (json.loads((folder / file).read_text())[key] for folder in (a, b))
            if key == "found":
                assert one.pop("costs")["image_passes"] == other.pop("costs")["image_passes"]
            assert one == other, file
    assert (a / "history.jsonl").read_bytes() == (b / "history.jsonl").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(server, market_root, tmp_path_factory):
    """Folder and seconds of the run that was never killed, by network name."""
    runs = {}
    for name in ("osnet_nas", "osnet_child"):
        folder = tmp_path_factory.mktemp(name)
        started = time.monotonic()
        assert server.run(words(name, market_root, folder / "run"), folder / "output") == 0, folder / "output"
        runs[name] = folder / "run", time.monotonic() - started
    return runs


def kill_after(seconds: float, server: ForkServer, settings: list[object], log: Path) -> bool:
    """Starts a run and kills it; returns whether it was still running."""
    pid = server.start(settings, log)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return server.wait(pid) == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("name", ["osnet_nas", "osnet_child"])
def test_killed_run_continues_to_the_same_end(server, uninterrupted, market_root, tmp_path, name, seed):
    whole, seconds = uninterrupted[name]
    settings, log = words(name, market_root, tmp_path / "run"), tmp_path / "output"
    moment = random.Random(f"{name} {seed}").uniform(0.1, 1.0) * seconds
    while not kill_after(moment, server, settings, log):  # the machine was busier when the time was taken
        shutil.rmtree(tmp_path / "run")
        moment /= 2
    assert server.run(settings, log) == 0, log.read_text()
    assert_same_run(whole, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def start_long_run(server: ForkServer, root: Path, folder: Path, *more: object) -> tuple[int, list[object]]:
    """Starts a child's run with a loading process, waits until it trains; returns its number and settings."""
    settings = [*words("osnet_child", root, folder / "run"), "data.workers", 1, "train.max_epoch", 500,
                "test.eval_freq", -1, *more]  # fmt: skip
    pid = server.start(settings, folder / "output")
    wait_for_text(folder / "output", "epoch 1/500 done")
    return pid, settings


def test_killed_loading_process_is_one_line_and_the_run_is_saved(server, market_root, tmp_path):
    pid, _ = start_long_run(server, market_root, tmp_path, "train.save_every_min", 30.0)
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert server.wait(pid) == 2
    output = (tmp_path / "output").read_text()
    assert "error: a process that loads images was killed" in output
    assert "Traceback" not in output
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["epoch"] >= 1


def test_second_run_in_the_same_folder_is_refused(server, market_root, tmp_path):
    """The first one has a loading process, which must not keep the folder when its run is killed."""
    pid, settings = start_long_run(server, market_root, tmp_path)
    assert server.run(settings, tmp_path / "second") == 2
    told = f"error: another run is still writing to {tmp_path}/run/train.log; wait for its end"
    assert (tmp_path / "second").read_text().startswith(told)
    os.kill(pid, signal.SIGKILL)
    assert server.wait(pid) == -signal.SIGKILL
    (tmp_path / "output").unlink()
    pid = server.start(settings, tmp_path / "output")
    wait_for_text(tmp_path / "output", "continuing at epoch")
    os.kill(pid, signal.SIGTERM)
    assert server.wait(pid) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 0)])
def test_signal_to_the_whole_group_stops_cleanly(server, market_root, tmp_path, number, code):
    """As a terminal's Ctrl-C and a scheduler do: the loading process gets it too and must not die of it."""
    pid, _ = start_long_run(server, market_root, tmp_path)
    os.killpg(pid, number)
    assert server.wait(pid) == code
    output = (tmp_path / "output").read_text()
    assert f"continue with: python main.py --root={market_root} " in output
    assert output.count(f"{number.name} received") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_signal_while_pytorch_is_imported(number, code):
    command = [sys.executable, str(ROOT / "main.py"), "--config-file", "quickstart.yaml", "--root", "nowhere"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    maps = Path(f"/proc/{run.pid}/maps")
    while "libtorch_cpu" not in maps.read_text():
        time.sleep(0.01)
    run.send_signal(number)
    assert run.communicate(timeout=300)[0] == "stopped, there was nothing to save\n"
    assert run.returncode == code


def test_tensorboard_shows_no_point_twice(server, market_root, tmp_path):
    """The run goes on from the end of its first epoch after it had come to its third."""
    settings = [*words("osnet_child", market_root, tmp_path / "run"), "train.max_epoch", 3]
    settings += ["train.keep_checkpoints", 20]
    assert server.run(settings, tmp_path / "output") == 0
    saved = sorted((tmp_path / "run" / "checkpoints").glob("last.*.pt"))
    first = next(p for p in saved if load_checkpoint(p)["progress"]["epoch"] == 1)
    assert server.run([*settings, "model.resume", first], tmp_path / "output") == 0, (tmp_path / "output").read_text()
    events = EventAccumulator(str(tmp_path / "run"), purge_orphaned_data=True).Reload()
    steps = [point.step for point in events.Scalars("train/loss")]
    assert len(steps) == len(set(steps)) == 3
