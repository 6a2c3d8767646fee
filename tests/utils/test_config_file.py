"""Reading config files: text as written, nothing dropped in silence, and one line whatever the file holds."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from default_config import load_config
from utils.config_file import MAX_BYTES, parse_list, read_config_file
from utils.errors import UserError

ROOT = Path(__file__).parents[2]


def read(path: Path, content: str | bytes) -> dict[str, tuple[object, int]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return {name: tuple(entry) for name, entry in read_config_file(path).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.yaml"


def test_values_are_the_text_that_was_written(path: Path) -> None:
    content = """\
# a comment
a:
  b: 2024_05
  c: [12:30, '007', "x\\ty", 1e-3, yes]
  d.e: |
    two
    lines
f: ''
g:
h: ~
i: 'null'
j: []
"""
    assert read(path, content) == {
        "a.b": ("2024_05", 3), "a.c": (["12:30", "007", "x\ty", "1e-3", "yes"], 4), "a.d.e": ("two\nlines\n", 5),
        "f": ("", 8), "g": (None, 9), "h": (None, 10), "i": ("null", 11), "j": ([], 12),
    }  # fmt: skip


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "{}", "\ufeff"])
def test_a_file_without_settings_is_none(path: Path, content: str) -> None:
    assert read(path, content) == {}


def test_a_file_may_be_in_utf_16(path: Path) -> None:
    assert read(path, "a: ü\n".encode("utf-16")) == {"a": ("ü", 1)}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("train:\n  lr: 7\ndata: {}\ntrain:\n  print_freq: 5\n", ": train is given twice, in lines 1 and 4; keep one"),
        ("train:\n  lr: 7\n\n  lr: 8\n", ": lr is given twice, in lines 2 and 4; keep one"),
        ("train.lr: 7\ntrain:\n  lr: 8\n", ": train.lr is given twice, in lines 1 and 3; keep one"),
        ("loss:\n  softmax: {a: 1}\n  softmax.a: 2\n", ": loss.softmax.a is given twice, in lines 2 and 3; keep one"),
        ("{a: 1, a: 2}", ": a is given twice, in lines 1 and 1; keep one"),
        ("a: &x 1\nb: *x\n", ", line 2: *x stands for another part of the file; write that part out"),
        ("a: &x [*x]\n", ", line 1: *x stands for another part of the file; write that part out"),
        ("a: {<<: *x}\n", ", line 1: *x stands for another part of the file; write that part out"),
        ("- a\n", " must hold groups of settings, not a list"),
        ("one word", " must hold groups of settings, not one value"),
        ("~", " must hold groups of settings, not one value"),
        ("a: 1\n---\nb: 2\n", " holds a second document from line 2 on; it must be one"),
        ("? [a, b]\n: c\n", ", line 1: the name of a setting is expected, not a list or group"),
        ("a: " + "[" * 500, ", line 1: more than 10 groups or lists inside of each other"),
        ("a: b: c\n", " is not valid YAML: mapping values are not allowed here, in line 1"),
        ("a: [1\n", " is not valid YAML: expected ',' or ']', but got '<stream end>', in line 2"),
        ("a: \0\n", " is not valid YAML: unacceptable character #x0000"),
        ("a: \ud800\n", " is not valid YAML: "),
        (b"a: \xff\n", " is not valid YAML: "),
        ('a: "\\UFFFFFFFF"\n', " is not valid YAML: "),
        ("%YAML " + "9" * 5000 + ".1\n--- {}\n", " is not valid YAML: "),
    ],
)
def test_what_cannot_be_read_is_one_line(path: Path, content: str | bytes, told: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path, content)
    assert str(caught.value).startswith(f"config file {path}{told}")
    assert len(str(caught.value)) < len(str(path)) + 400


def test_aliases_that_would_grow_without_end_are_refused_before_they_do(path: Path) -> None:
    levels = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(UserError, match=r"line 2: \*a stands for"):
        read(path, f"a: &a 1\n{levels}")


def test_what_is_no_file_of_settings_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is no regular file"):
        read_config_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is no regular file"):
        read_config_file(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot read config file .*: No such file or directory"):
        read_config_file(path)
    with pytest.raises(UserError, match=r"cannot read config file .*: File name too long"):
        read_config_file(tmp_path / ("a" * 300))
    with pytest.raises(UserError, match=r"cannot read config file .*: embedded null byte"):
        read_config_file(tmp_path / "a\0b")
    with pytest.raises(UserError, match="it has more than 100,000 bytes"):
        read(path, b"#" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a", ["a"]), ("a,b", ["a", "b"]), (" a, b,", ["a", "b"]), ("", []), ("[]", []), ("()", []), ("(1,)", ["1"]),
        ("(1, 2)", ["1", "2"]), ("['a', 'b c']", ["a", "b c"]), ("[folder:x, 1.5]", ["folder:x", "1.5"]),
        ('["it\'s"]', ["it's"]),
    ],
)  # fmt: skip
def test_lists_of_the_command_line(text: str, items: list[str]) -> None:
    assert parse_list(text) == items


@pytest.mark.parametrize("text", ["[a", "['a]", "[a]]", "[a] b", "[*a]", "[" * 50])
def test_a_list_that_does_not_close_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no list"):
        parse_list(text)


PARTS = st.sampled_from(
    ["train:", "lr: ", "data:", "sources: ", "base: ", "\n  ", "\n", "- ", "? ", "[", "]", "{", "}", "&a ", "*a",
     "<<: ", "!!int ", "!!binary ", "!<x> ", "|\n", "> ", "%YAML 1.1\n", "%TAG ! x:\n", "---\n", "...\n", "0x_", ".inf",
     "2024-13-45", "null", '"\\UFFFFFFFF"', '"', "'", ": ", "#", ",", "9" * 5000, "\t", "\r\n", "\0", "\ud800", "~/x"]
)  # fmt: skip


@given(content=st.lists(PARTS | st.text(max_size=4), max_size=20).map("".join) | st.binary(max_size=100))
def test_any_file_is_a_config_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        assert load_config([path]).is_frozen()
    except UserError as error:
        assert str(error).isprintable()


@given(cut=st.integers(0, 600), length=st.integers(0, 30), insert=PARTS | st.text(max_size=4))
def test_any_change_of_a_recipe_is_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, length: int, insert: str
) -> None:
    recipe = (ROOT / "child.yaml").read_text()
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_bytes(f"{recipe[:cut]}{insert}{recipe[cut + length :]}".encode("utf-8", "surrogatepass"))
    try:
        assert load_config([path]).is_frozen()
    except UserError as error:
        assert str(error).isprintable()
