"""Many command lines in processes of their own: at a time, failed, interrupted, on GPUs, on a cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.launcher import LocalLauncher, RayLauncher, run_command
from utils.errors import UserError


def python(code, *words):
    return [sys.executable, "-c", code, *map(str, words)]


WRITE = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ.get(sys.argv[2], 'none'))"


def test_outcomes_come_with_exit_code_and_last_line(tmp_path):
    fail = "import sys; print('starting', file=sys.stderr); print('error: no data', file=sys.stderr); sys.exit(2)"
    outcomes = {o.name: o for o in LocalLauncher(2)({"good": python("pass"), "bad": python(fail)})}
    assert (outcomes["good"].exit_code, outcomes["good"].message) == (0, "")
    assert (outcomes["bad"].exit_code, outcomes["bad"].message) == (2, "error: no data")


def test_no_more_places_are_made_than_there_are_commands():
    assert [o.exit_code for o in LocalLauncher(10**12)({"one": python("pass")})] == [0]


def test_no_more_at_a_time_than_asked_for(tmp_path):
    code = (
        "import os, pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n(folder / sys.argv[2]).touch()\n"
        "time.sleep(0.3)\n(folder / ('most' + str(len(list(folder.glob('job*')))))).touch()\n"
        "(folder / sys.argv[2]).unlink()"
    )
    commands = {f"job{i}": python(code, tmp_path, f"job{i}") for i in range(5)}
    assert {o.exit_code for o in LocalLauncher(2)(commands)} == {0}
    assert {path.name for path in tmp_path.iterdir()} <= {"most1", "most2"}


def test_gpus_are_shared_out(tmp_path):
    """Each of two commands waits until the other runs beside it."""
    code = (
        "import os, pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n"
        "(folder / sys.argv[2]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "while len(list(folder.iterdir())) < 2:\n    time.sleep(0.01)"
    )
    outcomes = LocalLauncher(2, ["3", "5"])({name: python(code, tmp_path, name) for name in ("one", "other")})
    assert [o.exit_code for o in outcomes] == [0, 0]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"3", "5"}


@pytest.mark.parametrize(("asked", "jobs", "given"), [("", 1, "6"), ("", 4, "1"), ("", 3, "2"), ("7", 3, "7")])
def test_processors_are_shared_out_unless_the_user_did(tmp_path, monkeypatch, asked, jobs, given):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    list(LocalLauncher(jobs)({"one": python(WRITE, tmp_path / "one", "OMP_NUM_THREADS")}))
    assert (tmp_path / "one").read_text() == given


def test_leaving_early_asks_what_runs_to_stop_and_waits(tmp_path):
    code = (
        "import pathlib, signal, sys, time\nfolder = pathlib.Path(sys.argv[1])\n"
        "def leave(*_):\n    (folder / 'saved').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, leave)\n(folder / 'started').touch()\ntime.sleep(600)"
    )
    late = python("import pathlib, sys; pathlib.Path(sys.argv[1], 'late').touch()", tmp_path)

    def start():
        for _ in LocalLauncher(2)({"quick": python("pass"), "slow": python(code, tmp_path), "late": late}):
            while not (tmp_path / "started").exists():
                time.sleep(0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    assert (tmp_path / "saved").exists()


def test_command_has_a_group_of_its_own():
    """A Ctrl-C at the terminal reaches it through the launcher alone; in the same session ``nice`` still counts."""
    code = "import os, sys; sys.exit(os.getpgid(0) != os.getpid() or os.getsid(0) != os.getsid(os.getppid()))"
    assert run_command("own", python(code), {}).exit_code == 0


def test_command_has_nothing_to_read():
    """Reading from the terminal would stop it, in the background, and the launcher would wait for ever."""
    assert run_command("own", python("import sys; sys.exit(sys.stdin.read() != '')"), {}).exit_code == 0


def test_missing_ray_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray, which is not installed: pip install -r requirements-cluster.txt"):
        list(RayLauncher("auto", 0)({"a": ["true"]}))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "no.such.host.invalid:6379"])
def test_unreachable_cluster_is_one_line(address):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=f"no Ray cluster at '{address}'; start one with ray start --head"):
        list(RayLauncher(address, 0)({"a": ["true"]}))


@pytest.mark.filterwarnings("ignore")
def test_two_nodes_of_which_one_is_killed(tmp_path):
    """What ran on the lost node is started again on the other, and goes on from what it had saved.

    Both wait at half of their steps until the node is lost.
    """
    pytest.importorskip("ray")
    code = (
        "import os, pathlib, sys, time\nsteps = pathlib.Path(sys.argv[1])\nlost = steps.with_name('lost')\n"
        "while (done := len(steps.read_text()) if steps.exists() else 0) < 30:\n"
        "    time.sleep(0.1)\n    if done < 15 or lost.exists():\n        steps.open('a').write('.')"
    )
    script = f"""
import sys, threading, time, pathlib
from ray.cluster_utils import Cluster
from search.launcher import RayLauncher
folder = pathlib.Path({str(tmp_path)!r})
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
other = cluster.add_node(num_cpus=1)
def lose():
    while sum(path.stat().st_size > 10 for path in folder.glob("steps*")) < 2:
        time.sleep(0.05)
    cluster.remove_node(other, allow_graceful=False)
    done = min(path.stat().st_size for path in folder.glob("steps*"))
    (folder / "lost").write_text(str(done))
threading.Thread(target=lose, daemon=True).start()
commands = {{f"job{{i}}": [sys.executable, "-c", {code!r}, str(folder / f"steps{{i}}")] for i in range(2)}}
print(sorted((o.name, o.exit_code) for o in RayLauncher(cluster.address, 0)(commands)))
cluster.shutdown()
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False,
                         timeout=600)  # fmt: skip
    assert run.stdout.splitlines()[-1:] == ["[('job0', 0), ('job1', 0)]"], run.stderr[-2000:]
    sizes = [(tmp_path / f"steps{i}").stat().st_size for i in range(2)]
    assert all(30 <= size <= 32 for size in sizes)
    assert int((tmp_path / "lost").read_text()) < 30, "both had ended before the node was lost: nothing was tested"


def test_signal_ends_the_launcher_with_its_commands(tmp_path):
    touch = f"import pathlib, time; pathlib.Path({str(tmp_path / 'on')!r}).touch(); time.sleep(600)"
    script = (
        "import sys\nfrom engine.interrupt import Interrupted, StopRequest\nfrom search.launcher import LocalLauncher\n"
        "try:\n    with StopRequest():\n"
        f"        list(LocalLauncher(1)({{'slow': [sys.executable, '-c', {touch!r}]}}))\n"
        "except Interrupted as interruption:\n    sys.exit(interruption.exit_code)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "on").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 143


def test_killed_launcher_takes_its_commands_with_it(tmp_path):
    """Else the same search, started again, would find its trainings still running, and count them as failed."""
    command = (
        "import os, pathlib, time\nfrom utils.launch import stop_with_launcher\nstop_with_launcher()\n"
        f"path = pathlib.Path({str(tmp_path / 'on')!r})\npath.with_name('new').write_text(str(os.getpid()))\n"
        "path.with_name('new').rename(path)\ntime.sleep(600)"
    )
    script = (
        "import sys\nfrom search.launcher import LocalLauncher\n"
        f"list(LocalLauncher(1)({{'slow': [sys.executable, '-c', {command!r}]}}))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "on").exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "on").read_text())
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 120
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
