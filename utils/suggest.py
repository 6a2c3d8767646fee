"""The nearest valid name for a mistyped one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the valid name most like ``name``, "" where none is alike."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
