"""Every tool is started in the same way and says so in its help."""

import importlib
from pathlib import Path

import pytest

from utils.tool import tool

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "tools").glob("*.py"))}
PROGRAMS = [f"tools.{name}" for name in FILES] + [
    f"benchmarks.{path.stem}"
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text()
]


def test_there_are_tools():
    assert {"check_dataset", "complexity", "convert_weights", "export_onnx", "extract_features"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_help_says_how_to_start_it(name, monkeypatch, capsys):
    assert 'if __name__ == "__main__":' in FILES[name].read_text()  # a file of another kind belongs into utils
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"tools.{name}").main()
    assert stop.value.code == 0
    assert f"python -m tools.{name}" in capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_ends_in_a_line_and_an_exit_code(program):
    main = importlib.import_module(program).main
    assert main.__wrapped__.__code__.co_filename != main.__code__.co_filename == tool("x")(main).__code__.co_filename
