"""Values that are not finite, gradients that reach nothing, faults of the machine."""

import pytest
import torch
from torch import nn

from engine.safety import check_gradients_reach, describe_memory, explain_faults, stop_at_bad_step
from utils.checkpoint import load_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the memory is too small.*lower it"),
        (MemoryError(), "the memory is too small.*lower it"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "the memory is too small.*lower"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "process that loads images was killed",
        ),
    ],
)
def test_faults_of_the_machine_are_one_line(error, told):
    with pytest.raises(UserError, match=told) as caught, explain_faults(CPU, "lower it"):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("x"), UserError("y")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)), explain_faults(CPU, "lower it"):
        raise error


def test_memory_of_a_gpu_and_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": 2**31}))
    assert describe_memory(torch.device("cuda", 0)) == "1.5 of 2.0 GiB GPU memory"
    assert 0.1 < float(describe_memory(CPU).split()[0]) < 100


def test_parameters_without_a_gradient_are_named():
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2), "fixed": nn.Linear(2, 2)})
    net["fixed"].requires_grad_(False)
    net["used"](torch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match=r"reaches 2 parameters: unused.weight, unused.bias"):
        check_gradients_reach(net)


def test_bad_step_of_another_process_is_shown(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(Runtime, "gather", lambda self, value: [value, (float("inf"), ["c.jpg"])])
    monkeypatch.setattr(Runtime, "barrier", lambda self: None)
    state = {"progress": {"epoch": 3, "batch": 4}}
    with pytest.raises(UserError, match=r"loss inf or gradient norm 2.0 is not finite in epoch 4, batch 5"):
        stop_at_bad_step(tmp_path, Runtime(CPU, 0, 2), 1.5, 2.0, ["a.jpg", "b.jpg"], state)
    saved = load_checkpoint(tmp_path / "checkpoints" / "not_finite.pt")
    assert saved["batch_files"] == ["a.jpg", "b.jpg", "c.jpg"]
