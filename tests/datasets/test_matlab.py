"""MATLAB files: variables, or an error, also where SciPy's reader crashes."""

import os
import random
import signal

import numpy as np
import pytest
from scipy.io import savemat

from datasets import matlab
from datasets.matlab import load_matlab


@pytest.fixture
def file(tmp_path):
    cells = np.empty((1, 10), object)
    for i in range(10):
        cells[0, i] = np.arange(i + 1, i + 126).reshape(-1, 1)
    savemat(tmp_path / "x.mat", {"cells": cells, "more": [1]})
    return tmp_path / "x.mat"


def test_wanted_variables_are_read(file):
    found = load_matlab(file, ["cells", "none"])
    assert found["cells"].shape == (1, 10)
    assert not {"more", "none"} & found.keys()


def test_a_crash_of_the_reader_is_an_error(file, monkeypatch):
    monkeypatch.setattr(matlab, "loadmat", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ValueError, match="reader crashes"):
        load_matlab(file, ["cells"])


def test_any_damage_is_an_error_or_values(file):
    content, rng = file.read_bytes(), random.Random(7)
    for _ in range(15):
        changed = bytearray(content)
        for _ in range(4):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        file.write_bytes(changed[: rng.choice((len(content), rng.randrange(len(content))))])
        try:
            load_matlab(file, ["cells"])
        except ValueError as error:
            assert str(error)
