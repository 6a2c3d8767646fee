"""Checks what the pages say against the program: commands, settings, flags, files, links, examples in Python and YAML.

Commands are parsed by the program's own parsers, and stopped before they would read anything else.
"""

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from torch.distributed.run import get_args_parser as get_torchrun_parser

from command_line import collect_overrides, parse_arguments
from config_keys import KEYS, REFUSED, TORCHREID_NAME
from datasets import find_reader
from datasets.samplers import SAMPLERS
from datasets.transforms import TRANSFORMS
from default_config import load_config, parse_pairs
from genotype import NAMED_STEM_NORMS, is_digits
from search.table import find_table
from tools.train_table import read_plan
from utils.config_file import read_config_file
from utils.config_value import coerce
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tables" / "README.md"]
MODULES = [
    f"{folder}.{path.stem}"
    for folder in ("benchmarks", "tools")
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text()
]

_PASSED = {"cd", "ray", "tensorboard"}  # programs of others, whose arguments are theirs
_GROUPS = {key.partition(".")[0] for key in (*KEYS, *REFUSED) if "." in key}
_KEY = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_OWN_ENDINGS = {".py", ".yaml", ".md", ".cff", ".toml"}
_OF_RUNS = {"config.yaml", "train.log"}  # files of runs, which look like files or settings of the project
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class PageError(Exception):
    """What is wrong with a page."""


class Block(NamedTuple):
    """A block of code; ``line`` is that of its fence, from 1."""

    language: str
    code: str
    line: int


class _Parsed(BaseException):  # passes all that handles errors
    def __init__(self, found: argparse.Namespace) -> None:
        super().__init__()
        self.found = found


def find_blocks(text: str) -> list[Block]:
    """Lists a page's blocks of code."""
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in _FENCE.finditer(text)]


def find_problems(text: str, page: Path) -> list[str]:
    """Lists all that is wrong with a page, given where it lies."""
    problems = []
    for line, check in _list_checks(text, page):
        try:
            check()
        except (PageError, UserError) as problem:
            problems.append(f"{page.name}, line {line}: {problem}")
    return problems


def _list_checks(text: str, page: Path) -> Iterator[tuple[int, Callable[[], object]]]:
    for block in find_blocks(text):
        if block.language in ("", "sh", "bash"):
            for line, command in join_lines(block):
                yield line, partial(check_command, command)
        else:
            yield block.line, partial(_LANGUAGES.get(block.language, _refuse_language), block.code)
    prose = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)
    for number, sentence in enumerate(prose.splitlines(), 1):
        for code in re.findall(r"`([^`]+)`", sentence):
            yield number, partial(check_inline, code, page)
        for link in re.findall(r"\]\(([^)\s]+)\)", sentence):
            yield number, partial(check_link, link, text, page)


def _refuse_language(code: str) -> None:
    raise PageError("a block of code in another language than sh, python, yaml and text")


def join_lines(block: Block) -> Iterator[tuple[int, str]]:
    """Yields a block's commands, each with its line; a backslash joins lines."""
    whole, first = "", block.line + 1
    for number, line in enumerate(block.code.splitlines(), block.line + 1):
        first = first if whole else number
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield first, whole
            whole = ""


def check_command(command: str) -> None:
    """Checks one command line.

    Raises:
        PageError: it cannot be understood by what it starts.
        UserError: the same, as the program says it.
    """
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if not words or words[0] in _PASSED:
        return
    if words[0] not in _PROGRAMS:
        raise PageError(f"unknown program {words[0]}")
    _PROGRAMS[words[0]](words[1:])


def _check_python(words: Sequence[str]) -> None:
    option, *rest = words
    if option == "main.py":
        check_run(rest)
    elif option == "-c":
        check_example(rest[0])
    elif option == "-m" and rest[0] == "main":
        check_run(rest[1:])
    elif option == "-m":
        check_module(rest[0], rest[1:])
    else:
        raise PageError(f"python {option}: unknown")


def check_run(words: Sequence[str]) -> None:
    """Checks a command line of main.py up to where it would read data."""
    if "--help" in words:
        return
    arguments = parse_arguments(words)
    files = [] if arguments.config_file is None else [ROOT / arguments.config_file]
    cfg = load_config(files, collect_overrides(arguments))
    for name in (*cfg.data.sources, *cfg.data.targets):
        find_reader(name)
    _check_all_in(cfg.data.transforms, TRANSFORMS)
    _check_all_in([cfg.sampler.train_sampler], SAMPLERS)
    _check_genotype(cfg.model.genotype)


def check_module(module: str, words: Sequence[str]) -> None:
    """Checks a command line of a tool or benchmark by its own parser, and the names in it."""
    if module not in MODULES:
        raise PageError(f"no module {module} to run")
    found = _run_parser(module, words)
    for name, value in vars(found).items() if found else ():
        if value and (check := _VALUES.get(name) or _VALUES.get(f"{module} {name}")):
            check(value)


def _run_parser(module: str, words: Sequence[str]) -> argparse.Namespace | None:
    """Returns what the module's parser makes of the words, None for its help; the module goes no further."""
    main = importlib.import_module(module).main
    with (
        contextlib.redirect_stderr(io.StringIO()) as told,
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(sys, "argv", [module, *words]),
        mock.patch.object(argparse.ArgumentParser, "parse_args", _stop_after(argparse.ArgumentParser.parse_args)),
        mock.patch.object(
            argparse.ArgumentParser, "parse_intermixed_args", _stop_after(argparse.ArgumentParser.parse_intermixed_args)
        ),
    ):
        try:
            main()
        except _Parsed as parsed:
            return parsed.found
        except SystemExit as end:
            if end.code:
                raise PageError(told.getvalue().strip().splitlines()[-1]) from end
    return None


def _stop_after(parse: Callable[..., argparse.Namespace]) -> Callable[..., argparse.Namespace]:
    def parse_and_stop(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
        raise _Parsed(parse(parser, words))

    return parse_and_stop


def _check_torchrun(words: Sequence[str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            found = get_torchrun_parser().parse_args(words)
        except SystemExit as end:
            raise PageError(told.getvalue().strip().splitlines()[-1]) from end
    if found.training_script != "main.py":
        raise PageError(f"torchrun starts {found.training_script}, not main.py")
    check_run(found.training_script_args)


def _check_make(words: Sequence[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    _check_all_in(words, targets)


def _check_pip(words: Sequence[str]) -> None:
    for option, value in pairwise(words):
        if option in ("-r", "--requirement", "-e") and not (ROOT / value).exists():
            raise PageError(f"pip: no file {value}")


def check_example(code: str) -> None:
    """Checks Python: it compiles, what it imports is there, and takes the arguments that it is called with."""
    try:
        tree = ast.parse(code)
        known: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    known[alias.asname or alias.name] = importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                known |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (called := _find_called(node.func, known)):
                names = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(called).bind(*node.args, **names)
    except (SyntaxError, ImportError, AttributeError, TypeError) as error:
        raise PageError(f"example: {error}") from error


def _find_called(function: ast.expr, known: dict[str, Any]) -> Any:
    """Returns what is called, if it belongs to the project; None for all that is not known."""
    if isinstance(function, ast.Attribute):
        owner = _find_called(function.value, known)
        return getattr(owner, function.attr) if owner else None
    found = known.get(function.id) if isinstance(function, ast.Name) else None
    file = getattr(sys.modules.get(getattr(found, "__module__", "")), "__file__", None)
    return found if file and Path(file).is_relative_to(ROOT) else None


def check_settings_file(code: str) -> None:
    """Checks a config file that is shown; its ``base`` is looked for beside main.py."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shown.yaml"
        path.write_text(code)
        entries = read_config_file(path)
    base = [ROOT / entries.pop("base").value] if "base" in entries else []
    load_config(base, {name: entry.value for name, entry in entries.items()})


def check_inline(code: str, page: Path) -> None:
    """Checks code in a sentence: a command, settings, a flag, or the name of a file of the project."""
    words = code.split()
    if words[0] in _OF_RUNS:
        return
    if len(words) > 1 and words[0] in (*_PROGRAMS, *_PASSED):
        if "NAME" not in code:
            check_command(code)
        return
    if _KEY.fullmatch(words[0]) and words[0].partition(".")[0] in _GROUPS and Path(words[0]).suffix not in _OWN_ENDINGS:
        _check_settings(words)
    for word in words:
        if word.startswith("--") and word not in list_flags():
            raise PageError(f"no program here takes {word}")
    name = words[0].partition("#")[0]
    is_own = len(words) == 1 and (Path(name).suffix in _OWN_ENDINGS or name.startswith("requirements"))
    is_there = any(True for folder in (ROOT, page.parent) for _ in folder.glob(name or "*"))
    if is_own and not is_there and "NAME" not in name:
        raise PageError(f"no file {name}")


def _check_settings(words: Sequence[str]) -> None:
    """Checks the names of settings and, where they are no placeholders, their values."""
    pairs = parse_pairs(words) if len(words) > 1 else {words[0]: "VALUE"}
    for name, value in pairs.items():
        if name not in KEYS and name not in REFUSED:
            raise PageError(f"no setting {name}")
        if name in REFUSED or re.fullmatch(r"[A-Z]+", value):
            continue
        try:
            problem = KEYS[name].check(coerce(value, KEYS[name].default))
        except ValueError as error:
            problem = str(error)
        if problem:
            raise PageError(f"{name} {value}: {problem}")
        if name == "model.genotype":
            _check_genotype(value)


@cache
def list_flags() -> frozenset[str]:
    """Lists the flags of all programs here, as their help shows them, and torchrun's."""
    texts = [get_torchrun_parser().format_help(), "--rdzv-endpoint"]
    for module in MODULES:
        for words in (["--help"], ["export", "--help"]) if module == "tools.convert_weights" else (["--help"],):
            texts.append(_read_help(partial(_start, module, words)))
    texts.append(_read_help(partial(parse_arguments, ["--help"])))
    return frozenset(flag for text in texts for flag in re.findall(r"--[a-z][\w-]*", text))


def _start(module: str, words: Sequence[str]) -> None:
    with mock.patch.object(sys, "argv", [module, *words]):
        importlib.import_module(module).main()


def _read_help(start: Callable[[], object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        start()
    return told.getvalue()


def check_link(link: str, text: str, page: Path) -> None:
    """Checks that a link's file and heading are there; addresses on the web are not visited."""
    if re.match(r"https?://", link):
        return
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        raise PageError(f"no file {name}")
    if anchor and anchor not in list_anchors(target.read_text() if name else text):
        raise PageError(f"{name or page.name} has no heading #{anchor}")


def list_anchors(text: str) -> set[str]:
    """Lists a page's anchors, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def _check_all_in(names: Sequence[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise PageError(f"{name} is none of {', '.join(known)}")


def _check_genotype(word: str) -> None:
    is_named = word in NAMED_STEM_NORMS or is_digits(word) or TORCHREID_NAME.fullmatch(word)
    if word and not is_named and "/" not in word and not re.fullmatch(r"random:\d+|.+\.json", word):
        raise PageError(f"{word} is no genotype")


def _check_genotypes(words: Sequence[str]) -> None:
    for word in words:
        _check_genotype(word)


def _check_config_file(path: str | Path) -> None:
    load_config([ROOT / path])


_PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "python": _check_python,
    "torchrun": _check_torchrun,
    "make": _check_make,
    "pip": _check_pip,
}
_LANGUAGES: dict[str, Callable[[str], object]] = {
    "python": check_example,
    "yaml": check_settings_file,
    "text": lambda code: None,
}
_VALUES: dict[str, Callable[[Any], object]] = {  # arguments by name, or by module and name
    "config_file": _check_config_file,
    "settings": lambda words: load_config([], parse_pairs(words)),
    "tools.check_dataset name": find_reader,
    "tools.compare_genotypes genotypes": _check_genotypes,
    "tools.complexity genotype": _check_genotype,
    "tools.judge_search table": find_table,
    "tools.train_table plan": lambda path: read_plan(ROOT / path),
}
