"""What a run needed, and what is advised where the memory was too small."""

import pytest
import torch

from engine import memory as module
from engine.memory import (
    advise_batch_size,
    check_inference,
    describe_memory,
    measure_free_memory,
    measure_peak_memory,
)
from utils.distributed import Runtime
from utils.errors import UserError

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


@pytest.mark.parametrize(
    ("runtime", "device_batch", "advice"),
    [
        (Runtime(CPU), 0, "a step had 63 images on a device at a time; set train.device_batch to fewer, or lower "
                          "train.batch_size, now 63"),
        (Runtime(GPU, replicas=2), 0, "a step had 32 images on a device at a time; set train.device_batch to fewer, or "
                                      "lower train.batch_size, now 63"),
        (Runtime(GPU, 1, 3), 9, "a step had 9 images on a device at a time; set train.device_batch to fewer, or lower "
                                "train.batch_size, now 189"),
    ],
)  # fmt: skip
def test_advice_names_what_a_step_had(runtime, device_batch, advice):
    assert advise_batch_size(runtime, 63, "bf16", device_batch) == advice
    assert advise_batch_size(runtime, 63, "off", device_batch) == f"{advice}, or train.amp bf16"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Simulates what the kernel says: GiB available, and a control group's limit, use and cache."""

    def simulate(available, limit=None, used=0, cached=0):
        proc, groups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (groups / "job").mkdir(parents=True)
        (proc / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available * 2**20} kB\nHugePages_Free: 0\n")
        (proc / "self" / "cgroup").write_text("0::/job\n")
        if limit is not None:
            (groups / "job" / "memory.max").write_text(f"{limit if limit == 'max' else limit * GIB}\n")
            (groups / "job" / "memory.current").write_text(f"{used * GIB}\n")
            (groups / "job" / "memory.stat").write_text(f"anon 5\ninactive_file {cached * GIB}\n")
        monkeypatch.setattr(module, "PROC", proc)
        monkeypatch.setattr(module, "CGROUPS", groups)

    return simulate


@pytest.mark.parametrize(
    ("said", "free"),
    [((12,), 12), ((12, "max"), 12), ((12, 8, 3, 1), 6), ((4, 8, 3, 1), 4), ((12, 8, 9, 0), 0)],
)
def test_free_memory_is_what_machine_and_control_group_leave(machine, said, free):
    machine(*said)
    assert measure_free_memory(Runtime(CPU)) == free * GIB
    assert measure_free_memory(Runtime(CPU, 1, 6, local_world_size=2)) == free * GIB // 2


def test_free_memory_is_not_known_everywhere(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PROC", tmp_path / "nowhere")
    assert measure_free_memory(Runtime(CPU)) is None


def test_free_memory_of_the_fullest_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((5 - device.index) * GIB, 12 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * GIB)
    assert measure_free_memory(Runtime(GPU)) == 7 * GIB
    assert measure_free_memory(Runtime(GPU, replicas=2)) == 6 * GIB


def test_images_that_do_not_fit_are_told_before_they_are_made(monkeypatch):
    needed = 4 * 10 * 64 * 32 * (3 + 2 * 16)
    monkeypatch.setattr(module, "measure_free_memory", lambda runtime: needed)
    check_inference(Runtime(CPU), 10, 64, 32, 1.0)
    with pytest.raises(UserError, match="the memory is too small for 11 image"):
        check_inference(Runtime(CPU), 11, 64, 32, 1.0)
    monkeypatch.setattr(module, "measure_free_memory", lambda runtime: None)
    check_inference(Runtime(CPU), 11, 64, 32, 1.0)
