"""The nearest valid name for a mistyped one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the valid name that begins with ``name`` or is most like it, else ""."""
    names = list(valid)
    longer = [other for other in names if name and other.startswith(name)]
    close = longer[:1] or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
