"""The one exception that stands for a user error."""


class UserError(Exception):
    """A path, setting, file or checkpoint that cannot work, reported in one line.

    The message says what is wrong and what to do about it. ``main`` and the tools print it on stderr and exit with
    code 2; anything else that is raised is a defect of this project and ends in a traceback.
    """

    def __str__(self) -> str:
        """The message in one line: line breaks and control characters, as file names may hold, are escaped."""
        text = super().__str__()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
