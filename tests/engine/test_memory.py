"""What a run needed, and what is advised where the memory was too small."""

import pytest
import torch

from engine.memory import advise_batch_size, describe_memory, is_full_memory, measure_peak_memory
from utils.distributed import Runtime

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 12 GiB")


@pytest.fixture
def gpus(monkeypatch):
    """Simulates GPUs of 12 GiB, by their peaks in GiB."""

    def simulate(*peaks):
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: int(peaks[device.index] * GIB))
        properties = type("Properties", (), {"total_memory": 12 * GIB})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    return simulate


def test_peak_is_that_of_the_fullest_gpu(gpus):
    gpus(4, 9.5)
    assert describe_memory(Runtime(GPU)) == "4.0 of 12.0 GiB GPU memory"
    assert describe_memory(Runtime(GPU, replicas=2)) == "9.5 of 12.0 GiB GPU memory"
    assert measure_peak_memory(Runtime(GPU, replicas=2)) == 9.5 * GIB


def test_peak_is_that_of_the_fullest_process(gpus, monkeypatch):
    gpus(4, 9.5)
    monkeypatch.setattr(Runtime, "gather", lambda self, value: [value, 11 * GIB, 3 * GIB])
    assert measure_peak_memory(Runtime(GPU, 0, 3)) == 11 * GIB


def test_memory_of_the_machine():
    assert 0.1 < float(describe_memory(Runtime(CPU)).split()[0]) < 100
    assert 0.1 * GIB < measure_peak_memory(Runtime(CPU)) < 100 * GIB


def test_full_memory_is_told_from_other_errors():
    assert is_full_memory(FULL)
    assert is_full_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_full_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("runtime", "advice"),
    [
        (Runtime(CPU), "a step had 63 images per device; lower train.batch_size, now 63"),
        (Runtime(GPU, replicas=2), "a step had 32 images per device; lower train.batch_size, now 63"),
        (Runtime(GPU, 1, 3), "a step had 63 images per device; lower train.batch_size, now 189"),
    ],
)
def test_advice_names_what_a_step_had(runtime, advice):
    assert advise_batch_size(runtime, 63, "bf16") == advice
    assert advise_batch_size(runtime, 63, "off") == f"{advice}, or set train.amp bf16"
