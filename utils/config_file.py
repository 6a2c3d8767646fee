"""Config files: YAML whose values stay the text that was written, each with its line.

YAML's own readings would change settings that are text: 2024_05 is a number to it, 12:30 is 750, 007 is 7.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from utils.errors import UserError
from utils.read_file import read_bytes

MAX_BYTES = 100_000
_MAX_DEPTH = 10
_NULL = ("", "~", "null", "Null", "NULL")

# What PyYAML lets through beside its own errors: escapes and version numbers out of range.
_PARSING = (yaml.YAMLError, ValueError, OverflowError, IndexError)


class Entry(NamedTuple):
    """What a file says of a setting.

    Attributes:
        value: Text, None for nothing (``~``, ``null`` or an empty value), or a list of these.
        line: From 1.
    """

    value: Any
    line: int


def read_config_file(path: Path, what: str = "config file") -> dict[str, Entry]:
    """Reads a config file's settings by full key, such as ``train.lr``; groups may be nested or dotted.

    Args:
        path: The file.
        what: What it should be, for messages.

    Raises:
        UserError: the file cannot be read or is no YAML, has a setting or group twice, or holds no groups of settings.
    """
    content = read_bytes(path, what, MAX_BYTES)
    try:
        events = yaml.parse(content, Loader=yaml.SafeLoader)
        return _flatten(_read_document(events))
    except UserError as error:
        raise UserError(f"{what} {path}{error}") from error
    except _PARSING as error:
        raise UserError(f"{what} {path} is not valid YAML: {_describe(error)[:300]}") from error


def parse_list(text: str) -> list[Any]:
    """Reads a list from the command line: ``[a, b]``, ``['a', 'b']``, ``(1, 2)`` or ``a,b``; entries stay text.

    Raises:
        ValueError: brackets or quotes that do not close.
    """
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = f"[{text[1:-1]}]"
    if not text.startswith("["):
        return split_names(text)
    try:
        document = _read_document(yaml.parse(text, Loader=yaml.SafeLoader), yaml.SequenceStartEvent)
    except (UserError, *_PARSING) as error:
        raise ValueError(f"{text} is no list") from error
    return document


def _describe(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())


def split_names(text: str) -> list[str]:
    """Splits ``a,b`` at its commas."""
    return [part for part in map(str.strip, text.split(",")) if part]


def _read_document(events: Iterator[yaml.Event], kind: type[yaml.Event] = yaml.MappingStartEvent) -> Any:
    """Reads the only document, a mapping or what else ``kind`` begins; an empty one is an empty mapping."""
    next(events)
    start = next(events)
    if isinstance(start, yaml.StreamEndEvent):
        return {}
    first = next(events)
    is_empty = isinstance(first, yaml.ScalarEvent) and first.implicit[0] and not first.value
    if not is_empty and not isinstance(first, kind):
        found = "a list" if isinstance(first, yaml.SequenceStartEvent) else "one value"
        raise UserError(f" must hold groups of settings, not {found}")
    document = {} if is_empty else _read_node(events, first, 0)
    next(events)
    end = next(events)
    if not isinstance(end, yaml.StreamEndEvent):
        raise UserError(f" holds a second document from line {_find_line(end)} on; it must be one")
    return document


def _read_node(events: Iterator[yaml.Event], event: yaml.Event, depth: int) -> Any:
    """Reads what begins with ``event``: None, text, a list, or a group (by name, each an ``Entry``)."""
    line = _find_line(event)
    if isinstance(event, yaml.ScalarEvent):
        return None if event.implicit[0] and event.value in _NULL else event.value
    if isinstance(event, yaml.AliasEvent):
        raise UserError(
            f", line {line}: *{str(event.anchor)[:40]} stands for another part of the file; write that part out"
        )
    if depth == _MAX_DEPTH:
        raise UserError(f", line {line}: more than {_MAX_DEPTH} groups or lists inside of each other")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_read_node(events, item, depth + 1))
        return items
    group: dict[str, Entry] = {}
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        line = _find_line(key)
        if not isinstance(key, yaml.ScalarEvent):
            raise UserError(f", line {line}: the name of a setting is expected, not a list or group")
        _refuse_second(group, key.value, line)
        group[key.value] = Entry(_read_node(events, next(events), depth + 1), line)
    return group


def _find_line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


def _flatten(group: dict[str, Entry], prefix: str = "") -> dict[str, Entry]:
    flat: dict[str, Entry] = {}
    for name, entry in group.items():
        full = f"{prefix}{name}"
        inner = _flatten(entry.value, f"{full}.") if isinstance(entry.value, dict) else {full: entry}
        for key, own in inner.items():
            _refuse_second(flat, key, own.line)
        flat |= inner
    return flat


def _refuse_second(group: dict[str, Entry], name: str, line: int) -> None:
    if name in group:
        raise UserError(f": {name[:80]} is given twice, in lines {group[name].line} and {line}; keep one")
