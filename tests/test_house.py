"""The rules of the house: who imports whom, where the config is read, how long a file may be, what is documented."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"datasets", "engine", "search", "utils", "tools", "benchmarks", "tests"}
TOP = {p.stem for p in ROOT.glob("*.py")}
SOURCES = sorted([*ROOT.glob("*.py"), *(f for d in FOLDERS for f in (ROOT / d).rglob("*.py"))])
PROGRAM = [p for p in SOURCES if p.relative_to(ROOT).parts[0] != "tests"]

ALLOWED = {  # folder or top-level module → what of the project it may import
    "utils": {"utils"},
    "datasets": {"utils", "datasets"},
    "engine": {"utils", "engine"},
    "search": {"utils", "engine", "search", "genotype"},
    "genotype": {"utils"},
    "osnet_blocks": {"genotype", "utils"},
    "osnet_nas": {"osnet_blocks", "genotype", "utils"},
    "osnet_child": {"osnet_blocks", "genotype", "utils"},
    "config_keys": {"utils"},
    "command_line": {"config_keys", "default_config", "utils"},
    "default_config": {"config_keys", "genotype", "utils"},
    "experiment": {"config_keys"},
}
EXTRA = {
    "utils/torchreid_names.py": {"genotype"},
    "osnet_nas.py": {"search"},  # sample_path_weights, of search/paths.py, which imports nothing of the project
}
MAX_LINES = 400
MAX_TEST_LINES = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> set[str]:
    """Returns the first parts of the project's own modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found & (FOLDERS | TOP)


@pytest.mark.parametrize("path", PROGRAM, ids=name_of)
def test_imports_follow_the_rules(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part in ALLOWED:
        allowed = ALLOWED[part] | EXTRA.get(name_of(path), set())
        assert imports_of(path) <= allowed
    assert "tests" not in imports_of(path)


@pytest.mark.parametrize("path", PROGRAM, ids=name_of)
def test_config_is_read_in_builders_alone(path):
    if path.name in ("main.py", "build.py", "default_config.py") and path.parent == ROOT:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                assert not (isinstance(inner, ast.Name) and inner.id == "cfg"), f"class {node.name} reads cfg"
        if isinstance(node, ast.FunctionDef) and any(a.arg == "cfg" for a in node.args.args):
            assert re.match(r"_?(build|read)_", node.name), f"{node.name} takes cfg"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_short(path):
    lines = path.read_text().count("\n")
    assert lines <= (MAX_LINES if path in PROGRAM else MAX_TEST_LINES), f"{lines} lines"


@pytest.mark.parametrize("path", PROGRAM, ids=name_of)
def test_functions_stay_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", PROGRAM, ids=name_of)
def test_modules_and_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def test_all_that_other_programs_may_import_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(settings["py-modules"]) == TOP
    folders = {str(f.parent.relative_to(ROOT)).replace("/", ".") for f in PROGRAM if f.parent != ROOT}
    assert set(settings["packages"]) == folders - {"benchmarks"}
