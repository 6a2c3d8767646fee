"""What is read from the environment: torchrun's variables and the GPUs of a scheduler."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import launch as module
from utils.errors import UserError
from utils.launch import Launch, is_first_on_machine, read_launch, select_gpus

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29400",
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Sets what torchrun sets, but for what is given; None takes a variable away."""

    def set_all(**changes):
        for name, value in {**TORCHRUN, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return set_all


def test_launch_by_torchrun(environment):
    environment()
    assert read_launch() == Launch(3, 4, 1, 2, "localhost", 29400)
    assert not is_first_on_machine()
    environment(LOCAL_RANK="0", RANK="2")
    assert is_first_on_machine()


@pytest.mark.parametrize("kept", [[], ["LOCAL_RANK"], ["MASTER_ADDR", "WORLD_SIZE"], ["LOCAL_RANK", "MASTER_PORT"]])
def test_what_is_left_in_a_shell_starts_one_process(environment, kept):
    """It must not swallow the error line either."""
    environment(**{name: None for name in TORCHRUN if name not in kept})
    assert read_launch() is None
    assert is_first_on_machine()


@pytest.mark.parametrize(("changes", "words"), [
    ({"WORLD_SIZE": None}, "RANK is set, as torchrun does, but not WORLD_SIZE; start with torchrun, or unset RANK"),
    ({"LOCAL_RANK": None, "MASTER_ADDR": ""}, "but not LOCAL_RANK, MASTER_ADDR;"),
    ({"RANK": "one"}, "RANK is 'one' in the environment, a whole number is expected"),
    ({"RANK": "²"}, "RANK is '²'"),
    ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
    ({"RANK": "4"}, "the environment contradicts itself .RANK 4, WORLD_SIZE 4,"),
    ({"LOCAL_RANK": "2"}, "LOCAL_RANK 2, LOCAL_WORLD_SIZE 2,"),
    ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE 5"),
    ({"RANK": "0"}, "RANK 0, WORLD_SIZE 4, LOCAL_RANK 1"),
    ({"MASTER_PORT": "65536"}, "MASTER_PORT 65536"),
    ({"MASTER_ADDR": "a" * 70 + ".b"}, "no such machine is known"),
])  # fmt: skip
def test_variables_that_do_not_go_together_are_one_line(environment, changes, words):
    environment(**changes)
    with pytest.raises(UserError, match=words) as caught:
        read_launch()
    assert "\n" not in str(caught.value)
    assert is_first_on_machine()  # who else would say so


def test_unknown_machine_is_one_line(environment, monkeypatch):
    def fail(*words):
        raise socket.gaierror(-2, "Name or service not known")

    environment()
    monkeypatch.setattr(module.socket, "getaddrinfo", fail)
    with pytest.raises(UserError, match="MASTER_ADDR is 'localhost' in the environment, no such machine is known"):
        read_launch()


@pytest.mark.parametrize(("given", "asked", "chosen"), [
    (None, "0", "0"),
    (None, "3, 1", "3,1"),
    (None, "GPU-8932f937", "GPU-8932f937"),
    ("2,3", "0", "2"),
    ("2,3", "1,0", "3,2"),
    ("7", "00", "7"),
    ("GPU-8932f937-d72c,GPU-11111111-0000", "1", "GPU-11111111-0000"),
    ("GPU-8932f937-d72c,GPU-11111111-0000", "GPU-89", "GPU-8932f937-d72c"),
    ("MIG-a,MIG-b", "1", "MIG-b"),
    ("MIG-a, MIG-b", "MIG-b,0", "MIG-b,MIG-a"),
])  # fmt: skip
def test_gpus_are_chosen_among_those_that_a_scheduler_has_given(monkeypatch, given, asked, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    select_gpus(asked)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


@pytest.mark.parametrize(("given", "asked", "words"), [
    ("2,3", "2", "--gpu-devices 2: 2 is not in CUDA_VISIBLE_DEVICES=2,3; the numbers 0 to 1 count in it"),
    ("2,3", "0,5", "5 is not in CUDA_VISIBLE_DEVICES=2,3"),
    ("2,3", "1" * 5000, "expected numbers"),
    ("", "0", "0 is not in CUDA_VISIBLE_DEVICES=; there is no GPU for this run"),
    ("GPU-1,GPU-12", "GPU-1", "GPU-1 is not in"),
    ("2,3", "GPU-1", "GPU-1 is not in"),
    ("2,3", "0,0", "names a GPU twice"),
    ("2,3", "0,00", "names a GPU twice"),
    (None, "0,a", "expected numbers separated by commas"),
    (None, "²", "expected numbers"),
    (None, "-1", "expected numbers"),
    (None, "0,", "expected numbers"),
])  # fmt: skip
def test_gpus_that_are_not_there_are_one_line(monkeypatch, given, asked, words):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(UserError, match=words) as caught:
        select_gpus(asked)
    assert "\n" not in str(caught.value)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == given


SCRIPT = """
import os, signal, sys, time
import utils.launch
signal.signal(signal.SIGTERM, lambda number, frame: (os.write(1, b"SIGTERM"), os._exit(0)))
utils.launch.stop_with_launcher()
os.write(1, b"ready")
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("starter", "stops"), [("TORCHELASTIC_RUN_ID", True), ("OSNET_NAS_LAUNCHER", True), ("A_SHELL", False)]
)
def test_process_stops_when_its_launcher_is_gone(starter, stops):
    """It would train on as an orphan."""
    read, write = os.pipe()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TORCHELASTIC_RUN_ID", "OSNET_NAS_LAUNCHER")
    }
    root = Path(module.__file__).parents[1]
    launcher = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", launcher, SCRIPT], stdout=write, cwd=root,
        env={**environment, starter: "1", "PYTHONPATH": str(root)},
    )  # fmt: skip
    os.close(write)
    assert os.read(read, 5) == b"ready"
    child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
    parent.kill()
    parent.wait()
    if not stops:
        time.sleep(0.5)
        os.kill(child, signal.SIGKILL)
    assert os.read(read, 7) == (b"SIGTERM" if stops else b"")
    os.close(read)


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    module.wait_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
