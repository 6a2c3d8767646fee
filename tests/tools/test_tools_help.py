"""Every tool is started in the same way and says so in its help."""

import importlib
from pathlib import Path

import pytest

FILES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "tools").glob("*.py"))}


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
