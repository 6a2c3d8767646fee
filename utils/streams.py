"""The standard streams, where a process was started without one of them."""

import os
import sys
from pathlib import Path


def open_closed_streams() -> None:
    """Sends closed standard streams (``2>&-``, some cron daemons) to nowhere; the first thing that a program does.

    Otherwise the next file that is opened gets the stream's number, and what C code prints ends in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)  # the lowest free number is this stream's: those below are open by now
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
