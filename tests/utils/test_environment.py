"""Environment variables that keep a library from being imported do not keep this program from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.environment import drop_variables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "value", "module"),
    [("MPLBACKEND", "nonsense", "utils.plots"), ("TQDM_MININTERVAL", "soon", "utils.log")],
)
def test_nonsense_does_not_stop_the_import(name, value, module):
    code = f"import os, {module}; print(os.environ.get({name!r}))"
    for given, kept in ((value, "None"), ("agg" if name == "MPLBACKEND" else "0.2",) * 2):
        environment = {**os.environ, name: given}
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout.strip()) == (0, kept), result.stderr


def test_only_variables_of_the_prefix_go(monkeypatch):
    for name in ("ABC_ONE", "ABC_TWO", "XABC_ONE"):
        monkeypatch.setenv(name, "1")
    drop_variables("ABC_")
    assert not {"ABC_ONE", "ABC_TWO"} & os.environ.keys()
    assert os.environ["XABC_ONE"] == "1"


def test_only_one_file_imports_matplotlib():
    files = [p for folder in ("utils", "engine", "search", "tools", "datasets") for p in (ROOT / folder).rglob("*.py")]
    assert [p.name for p in files if "import matplotlib" in p.read_text() or "from matplotlib" in p.read_text()] == [
        "drawing.py"
    ]
