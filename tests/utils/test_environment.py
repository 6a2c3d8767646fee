"""Environment variables that keep a library from being imported do not keep this program from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_only_one_file_imports_matplotlib():
    folders = ("utils", "engine", "search", "tools", "datasets", "benchmarks")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    assert [p.name for p in files if "import matplotlib" in p.read_text() or "from matplotlib" in p.read_text()] == [
        "drawing.py"
    ]
