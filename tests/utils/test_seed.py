"""Random states: captured, restored, and held by a checkpoint."""

import random

import numpy as np
import torch

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.seed import capture_random_states, restore_random_states, seed_everything


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(3).tolist()


def test_states_survive_a_checkpoint(tmp_path):
    seed_everything(5)
    random.gauss(0, 1)  # leaves a second value behind, which is part of the state, as does NumPy's
    np.random.randn()
    save_checkpoint(tmp_path / "c.pt", {"random": capture_random_states()})
    expected = [draw() for _ in range(3)]
    seed_everything(6)
    restore_random_states(load_checkpoint(tmp_path / "c.pt")["random"])
    assert [draw() for _ in range(3)] == expected


def test_seed_sets_all_of_them():
    seed_everything(7)
    first = draw()
    second = draw()
    seed_everything(7)
    assert draw() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
    seed_everything(2**40)  # beyond NumPy's range
