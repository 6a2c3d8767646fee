"""How a tool ends: one line and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.errors import UserError
from utils.tool import tool

ROOT = Path(__file__).parents[2]


def make(error):
    @tool("a_tool")
    def main(arguments=None):
        """Says what it does."""
        if error is None:
            return len(arguments)
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("no file x"), 2, "a_tool: no file x\n"),
        (KeyboardInterrupt(), 130, "a_tool: stopped\n"),
        (PermissionError(13, "Permission denied", "/x\ny"), 2, "a_tool: cannot use /x\\ny: Permission denied\n"),
        (RuntimeError("can't start new thread"), 2, "a_tool: the system gives no further thread; raise its limits "
         "(ulimit -u, ulimit -v)\n"),
        (MemoryError(), 2, "a_tool: the memory is too small; ask for smaller images or fewer at a time\n"),
        (torch.OutOfMemoryError("CUDA\n"), 2, "a_tool: the memory is too small; ask for smaller images or fewer at a "
         "time\n"),
    ],
)  # fmt: skip
def test_what_stops_it_is_one_line(error, code, told, capsys):
    assert make(error)([]) == code
    assert capsys.readouterr().err == told


def test_it_is_still_the_tool():
    main = make(None)
    assert (main.__doc__, main([1, 2])) == ("Says what it does.", 2)
    for defect in (ZeroDivisionError(), RuntimeError("shapes")):
        with pytest.raises(type(defect)):
            make(defect)([])


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("PYTHONIOENCODING=ascii {tool} --layout viper", 0, "ROOT/"),
        ("{tool} --layout folder | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", (0, 141), ""),
        ("{tool} nowhere --root x 2>&-", 2, ""),
        ("{tool} nowhere --root x >&- 2>&-", 2, ""),
        ("{tool} --layout folder >/dev/full", 2, "check_dataset: cannot use the output: No space left on device"),
    ],
)
def test_streams_of_all_kinds(command, code, told):
    command = command.format(tool=f"{sys.executable} -m tools.check_dataset")
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, text=True,
                            capture_output=True, check=False, timeout=600)  # fmt: skip
    assert result.returncode in (code if isinstance(code, tuple) else (code,)), result.stderr
    assert told in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
