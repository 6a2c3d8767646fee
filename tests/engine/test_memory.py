"""What a run needed, and what is advised where the memory was too small."""

import re

import pytest
import torch

from engine.memory import advise_batch_size, describe_memory, is_full_memory
from utils.distributed import Runtime

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 12 GiB")


@pytest.fixture
def gpus(monkeypatch):
    """Simulates two GPUs of 12 GiB, by (kept between steps, peak) in GiB; 1 GiB of each belongs to others."""

    def simulate(*memory):
        cuda = torch.cuda
        monkeypatch.setattr(cuda, "memory_allocated", lambda device: int(memory[device.index][0] * GIB))
        monkeypatch.setattr(cuda, "memory_reserved", lambda device: 8 * GIB)
        monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: int(memory[device.index][1] * GIB))
        monkeypatch.setattr(cuda, "mem_get_info", lambda device: (3 * GIB, 12 * GIB))
        monkeypatch.setattr(cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": 12 * GIB}))

    return simulate


def test_peak_is_that_of_the_fullest_gpu(gpus):
    gpus((1, 4), (1, 9.5))
    assert describe_memory(Runtime(GPU)) == "4.0 of 12.0 GiB GPU memory"
    assert describe_memory(Runtime(GPU, replicas=2)) == "9.5 of 12.0 GiB GPU memory"


def test_memory_of_the_machine():
    assert 0.1 < float(describe_memory(Runtime(CPU)).split()[0]) < 100


def test_full_memory_is_told_from_other_errors():
    assert is_full_memory(FULL)
    assert is_full_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_full_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("runtime", "memory", "ran_before", "told"),
    [
        # 10 of the 8 + 9 − 1 GiB that 64 images would have taken are there: 64 · 10 / 16
        (Runtime(GPU), [(1, 8)], True, "a step had 64 images per device; lower train.batch_size from 64 to 40, or set"),
        (Runtime(GPU, replicas=2), [(1, 3), (1, 8)], True, "had 32 images per device; .* from 64 to 40"),
        (Runtime(GPU, replicas=2), [(1, 3), (1, 7.8)], True, "from 64 to 40"),  # 40.5 is no multiple of two
        (Runtime(GPU, 1, 3), [(1, 8)], True, "had 64 images per device; .* from 192 to 120"),
        (Runtime(GPU), [(1, 9.5)], False, "from 64 to 32"),  # it had come no further than this
        (Runtime(GPU), [(1, 1.5)], True, "from 64 to 63"),  # the memory is in pieces
        (Runtime(GPU), [(10.9, 10.95)], True, "lower data.height and data.width or model.width, or set train.amp bf16"),
        (Runtime(CPU), [], True, "had 64 images per device; lower train.batch_size, now 64, or set train.amp bf16"),
    ],
)
def test_largest_batch_that_should_fit(gpus, runtime, memory, ran_before, told):
    gpus(*memory)
    advice = advise_batch_size(runtime, 64, "off", ran_before, FULL)
    assert re.search(told, advice), advice


def test_mixed_precision_is_advised_once(gpus):
    gpus((1, 8))
    assert "amp" not in advise_batch_size(Runtime(GPU), 64, "bf16", True, FULL)
