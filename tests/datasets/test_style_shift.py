"""Style-shifted copies: the same for a camera everywhere, different between cameras, monotone, in the loader."""

import numpy as np
import torch
from PIL import Image

from datasets.base import Sample
from datasets.loaders import EvalLoader
from datasets.style_shift import StyleShift, draw_tables


def test_tables_are_those_of_the_first_trainings():
    """Rows of tables/ were scored with them."""
    assert draw_tables(0).shape == (3, 256)
    assert draw_tables(0).dtype == torch.uint8
    assert draw_tables(0)[:, 128].tolist() == [120, 172, 165]
    assert draw_tables(3)[:, 40].tolist() == [95, 70, 82]
    assert all((channel.int().diff() >= 0).all() for camid in range(8) for channel in draw_tables(camid))


def test_cameras_and_seeds_differ():
    tables = [draw_tables(camid, seed) for camid in range(4) for seed in (7, 8)]
    assert len({bytes(t.numpy()) for t in tables}) == 8


def test_batches_are_looked_up_by_camera():
    images = torch.randint(0, 256, (3, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shifted = StyleShift()(images, torch.tensor([2, 0, 2]))
    for i, camid in enumerate((2, 0, 2)):
        for channel in range(3):
            expected = draw_tables(camid)[channel].numpy()[images[i, channel].numpy()]
            np.testing.assert_array_equal(shifted[i, channel].numpy(), expected)


def test_loader_shifts_what_it_gives_and_nothing_else(tmp_path):
    samples = []
    for camid in range(2):
        path = tmp_path / f"{camid}.png"
        Image.fromarray(np.full((32, 16, 3), 90, np.uint8)).save(path)
        samples.append(Sample(str(path), 7, camid))
    plain, shifted = (
        next(iter(EvalLoader(samples, batch_size=2, height=32, width=16, shift=shift)))
        for shift in (None, StyleShift())
    )
    assert torch.equal(plain.pids, shifted.pids)
    assert (plain.images == 90).all()
    for camid in range(2):
        assert [int(c[0, 0]) for c in shifted.images[camid]] == [int(t[90]) for t in draw_tables(camid)]
