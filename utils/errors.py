"""The one exception that stands for a user error."""

from utils.printable import make_printable


class UserError(Exception):
    """A path, setting, file or checkpoint that cannot work, reported in one line.

    The message says what is wrong and what to do about it. ``main`` and the tools print it on stderr and exit with
    code 2; anything else that is raised is a defect of this project and ends in a traceback. Line breaks and control
    characters, as names of files may have them, are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(make_printable(message))
