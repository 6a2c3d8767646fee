"""The parts of matplotlib that are used; it is imported from here alone, also where MPLBACKEND names what is not there.

Figures are only saved, so no backend is ever chosen.
"""

import contextlib
import os

_backend = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402 - one that is none would stop the import

if _backend is not None:
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
        os.environ["MPLBACKEND"] = _backend
from matplotlib import colormaps, rc_context  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

__all__ = ["Axes", "Figure", "MaxNLocator", "Rectangle", "colormaps", "matplotlib", "rc_context"]
