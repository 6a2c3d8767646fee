"""A setting's value in the type of its default, whether it comes as text or as a Python value."""

import math
import os
import re
import unicodedata
from typing import Any

from utils.config_file import parse_list

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", list: "a list"}
_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?\.?(inf|nan|infinity)", re.IGNORECASE)
_MAX_NAME, _MAX_PATH = 255, 4095  # bytes, on Linux


def coerce(value: Any, default: Any) -> Any:
    """Returns ``value`` in the type of ``default``.

    Text is read as that type: true, yes and on are True, ``a,b`` and ``[a, b]`` are lists, 007 is 7 where a number is
    due and stays as it is where text is. A list with an empty default is one of whole numbers.

    Raises:
        ValueError: says what is allowed.
    """
    if not isinstance(default, list):
        return _coerce_one(value, type(default))
    if isinstance(value, str):
        try:
            value = parse_list(value)
        except ValueError as error:
            raise ValueError("must be a list, such as [a, b] or a,b") from error
    items = value if isinstance(value, list | tuple) else [value]
    kind = type(default[0]) if default else int
    return [_coerce_one(item, kind) for item in items]


def _coerce_one(value: Any, kind: type) -> Any:
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a folder called 1
    if kind is float and type(value) is int:
        value = str(value) if abs(value) < 10**300 else "inf"
    if isinstance(value, str) and kind is not str:
        value = _read_text(value.strip(), kind)
    if type(value) is not kind:
        found = "" if value is None or isinstance(value, str) else f", not {type(value).__name__}"
        raise ValueError(f"must be {_KINDS[kind]}{found}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _read_text(text: str, kind: type) -> Any:
    """Reads a number or truth value; what is none stays text."""
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    if kind is int and _WHOLE.fullmatch(text):
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        return float(text)
    return math.nan if kind is float and _NOT_FINITE.fullmatch(text) else text


def check_text(text: str) -> None:
    """Checks that a text is one line of whole characters; a path's bytes in another encoding than UTF-8 count as such.

    Raises:
        ValueError: line breaks, other control characters, or halves of surrogate pairs.
    """
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in text):
        raise ValueError("must not hold line breaks or other control characters")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError("must not hold halves of characters (lone surrogates)") from error


def expand_path(text: str) -> str:
    """Replaces a ``~`` or ``~name`` at the beginning by that home folder.

    Raises:
        ValueError: there is no such home, or the path is too long.
    """
    path = os.path.expanduser(text)  # noqa: PTH111 - keeps a text that is no path as it is
    if path.startswith("~"):
        raise ValueError("no home folder is known for it; write ./ in front for a file of that name")
    encoded = os.fsencode(path)
    longest = max(map(len, encoded.split(b"/")))
    if longest > _MAX_NAME or len(encoded) > _MAX_PATH:
        what = f"a name of {longest:,}" if longest > _MAX_NAME else f"{len(encoded):,}"
        raise ValueError(f"has {what} bytes; at most {_MAX_NAME} in a name and {_MAX_PATH:,} in all can be a path")
    return path
