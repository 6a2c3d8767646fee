"""How main.py starts: at once, and with one line also where the process was started with less than usual."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL
from utils.errors import UserError
from utils.launch import is_first_on_machine

ROOT = Path(__file__).parents[1]
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def start(command: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell command in which ``$@`` are ``words``, from the project's folder."""
    shell = ["bash", "-c", command, "bash", *map(str, words)]
    environment = {k: v for k, v in os.environ.items() if k not in TORCHRUN}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **variables}
    return subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("word", ["--help", "train.lrr=1"])
def test_help_and_mistypes_do_not_wait_for_pytorch(word: str) -> None:
    code = f"""
import sys
from main import main
try:
    main([{word!r}])
except SystemExit:
    pass
sys.exit(sum(name in sys.modules for name in ("torch", "torchvision", "numpy", "PIL", "matplotlib")))
"""
    result = start('"$PYTHON" -c "$1"', code)
    assert result.returncode == 0, result.stderr
    assert ("usage:" in result.stdout) == (word == "--help")


def test_a_training_loads_nothing_that_only_a_search_or_pictures_need() -> None:
    code = (
        "import run, sys; sys.exit(sum(name in sys.modules for name in ('statsmodels', 'scipy.stats', 'matplotlib')))"
    )
    assert start('"$PYTHON" -c "$1"', code).returncode == 0


def test_tools_that_need_no_pytorch_do_not_load_it() -> None:
    code = "import tools.judge_search, tools.check_dataset, tools.make_synthetic, sys; sys.exit('torch' in sys.modules)"
    assert start('"$PYTHON" -c "$1"', code).returncode == 0


def test_a_closed_stderr_costs_no_result(market_root: Path, tmp_path: Path) -> None:
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SMALL]
    result = start('"$PYTHON" main.py "$@" <&- 2>&-', *words, "train.max_epoch", 1)
    assert result.returncode == 0, result.stdout
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]


def test_closed_streams_are_no_traceback() -> None:
    words = ["train.lrr", 1]
    assert start('"$PYTHON" main.py "$@" <&- >&- 2>&-', *words).returncode == 2
    result = start('"$PYTHON" main.py "$@" >&-', *words)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", [20, 24])  # too few for the first worker, and for the second
def test_too_few_open_files_are_one_line(market_root: Path, tmp_path: Path, limit: int) -> None:
    code = f"""
import resource, sys
import run  # and with it all that is imported from many files
from main import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
sys.exit(main(sys.argv[1:]))
"""
    words = ["--root", market_root, "data.save_dir", tmp_path / "run", "model.name", "osnet_child", *SMALL]
    result = start('"$PYTHON" -c "$@"', code, *words, "data.workers", 2)
    assert result.returncode == 2
    assert "raise the limits (ulimit -n), or set data.workers 0" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_streams_that_were_closed_are_not_taken_by_files() -> None:
    code = """
import os, sys, tempfile
from utils.streams import open_closed_streams
open_closed_streams()
with tempfile.TemporaryFile() as file:
    assert file.fileno() > 2
print("lost", file=sys.stderr)
os.write(2, b"lost")
sys.exit(os.system("echo lost >&2"))
"""
    assert start('"$PYTHON" -c "$1" <&- >&- 2>&-', code).returncode == 0


def test_a_variable_left_in_a_shell_does_not_swallow_the_line() -> None:
    result = start('"$PYTHON" main.py train.lrr 1', LOCAL_RANK="1")
    assert result.returncode == 2
    assert result.stderr == "error: config: unknown key 'train.lrr'; did you mean 'train.lr'?\n"


@pytest.mark.parametrize(
    ("numbers", "is_first"),
    [
        ((None, None, None, None), True), ((None, None, "1", None), True), (("1", "2", "1", "2"), False),
        (("0", "2", "0", "2"), True), (("2", "4", "0", "2"), True), (("3", "4", "1", "2"), False),
        (("5", "2", "1", "2"), True), (("x", "2", "1", "2"), True), (("1", "2", "1", "²"), True),
        (("1", "2", "1", None), True), (("1", "2", "1", "9" * 5000), True),
    ],
)  # fmt: skip
def test_one_process_of_a_machine_speaks(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[str | None, ...], is_first: bool
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    for name, number in zip(TORCHRUN, numbers, strict=True):
        monkeypatch.delenv(name, raising=False)
        if number is not None:
            monkeypatch.setenv(name, number)
    assert is_first_on_machine() is is_first


def test_messages_are_one_line() -> None:
    told = str(UserError("no file a\nb\x1b[2J\0 \ud800 \u2028 ü 人"))
    assert told == r"no file a\nb\x1b[2J\x00 \ud800 \u2028 ü 人"
