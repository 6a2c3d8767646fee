"""How every command-line tool begins and ends: streams that take any text, and one line for whatever stops it."""

import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from utils.errors import UserError
from utils.faults import is_full_memory, is_out_of_threads
from utils.printable import make_printable
from utils.streams import open_closed_streams


class Main(Protocol):
    """A tool: takes the command line, by default this process's, and returns the exit code."""

    __name__: str

    def __call__(self, arguments: Sequence[str] | None = None, /) -> int:
        """Runs it."""


def tool(name: str) -> Callable[[Main], Main]:
    """Makes a tool's ``main`` one that ends in a line on stderr and an exit code, whatever the user did.

    Codes are 2 after a user error or where the memory is too small, 130 after Ctrl-C, 141 where nobody reads the output
    any more (``| head``). A defect of the tool is still a traceback.

    Args:
        name: Of the tool, at the line's beginning.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(arguments: Sequence[str] | None = None, /) -> int:
            open_closed_streams()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # of an ASCII terminal; names need not be UTF-8
            return _run(name, main, arguments)

        return run

    return decorate


def _run(name: str, main: Main, arguments: Sequence[str] | None) -> int:
    try:
        code = main(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        _say(f"{name}: {error}")
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        if error.filename is None:
            _drop_output()
        _say(make_printable(f"{name}: cannot use {error.filename or 'the output'}: {error.strerror or error}"))
    except KeyboardInterrupt:
        _say(f"{name}: stopped")
        return 130
    except (MemoryError, RuntimeError) as error:
        if is_full_memory(error):
            _say(f"{name}: the memory is too small; ask for smaller images or fewer at a time")
        elif is_out_of_threads(error):
            _say(f"{name}: the system gives no further thread; raise its limits (ulimit -u, ulimit -v)")
        else:
            raise
    return 2


def _drop_output() -> None:
    """Lets what is still buffered go nowhere, where Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
