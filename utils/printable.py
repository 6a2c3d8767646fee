"""Names of files in messages and pictures: on one line, without signs that a terminal obeys or a font lacks."""


def make_printable(text: str) -> str:
    r"""Writes what of a text cannot be shown as in Python: ``\n``, ``\x1b``, ``\udcf6`` (bytes not UTF-8)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
