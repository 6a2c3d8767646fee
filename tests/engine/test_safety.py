"""Values that are not finite, gradients that reach nothing, faults of the machine."""

import pytest
import torch
from torch import nn

from engine.safety import GradientCheck, NotFiniteError, explain_faults, report_bad_step
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
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), "the memory is too small.*lower"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when ..."), "the memory is too small.*lower"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "process that loads images was killed",
        ),
        (OSError(28, "No space left on device"), "No space left on device: processes that load images need room in"),
        (FileExistsError(17, "File exists", "/x/runs"), "cannot use /x/runs: File exists"),
        (RuntimeError("can't start new thread"), "gives this run no further thread"),
    ],
)
def test_faults_of_the_machine_are_one_line(error, told):
    with pytest.raises(UserError, match=told) as caught, explain_faults(Runtime(CPU), "lower it"):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("x"), UserError("y")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)), explain_faults(Runtime(CPU), "lower it"):
        raise error


def test_parameters_without_a_gradient_are_named():
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2), "fixed": nn.Linear(2, 2)})
    net["fixed"].requires_grad_(False)
    net["used"](torch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match=r"reaches 2 parameters: unused.weight, unused.bias"):
        GradientCheck(2).look(net)


def test_parameters_that_the_step_need_not_reach_are_passed_over():
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "other_path": nn.Linear(2, 2)})
    net["used"](torch.ones(1, 2)).sum().backward()
    GradientCheck(2).look(net, lambda name: not name.startswith("other_path"))
    with pytest.raises(RuntimeError, match=r"reaches 2 parameters: other_path"):
        GradientCheck(2).look(net, lambda name: True)


def test_parts_whose_gradient_stays_zero_are_named_once(caplog):
    def two_layers():
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    net = nn.ModuleDict({name: two_layers() for name in ("used", "dead", "late")} | {"layer": nn.Linear(2, 2)})
    check = GradientCheck(2)
    for step in range(4):
        net.zero_grad()
        x = torch.ones(1, 2)
        (net["used"](x) + 0 * net["dead"](x) + step * net["late"](x) + 0 * net["layer"](x)).sum().backward()
        check.look(net)
    assert [r.getMessage() for r in caplog.records] == ["the gradient was 0 throughout the first 2 steps in dead"]


def test_full_memory_is_one_line_with_advice():
    words = r"^the memory is too small, at most [\d.]+ GiB memory so far; lower it$"
    with pytest.raises(UserError, match=words), explain_faults(Runtime(CPU), "lower it"):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_bad_step_of_another_process_is_shown(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(Runtime, "gather", lambda self, value: [value, (float("inf"), ["c.jpg"])])
    monkeypatch.setattr(Runtime, "barrier", lambda self: None)
    state = {"progress": {"epoch": 3, "batch": 4}}
    with pytest.raises(UserError, match=r"loss inf or gradient norm 2.0 is not finite in epoch 4, batch 5"):
        report_bad_step(NotFiniteError(1.5, 2.0), tmp_path, Runtime(CPU, 0, 2), ["a.jpg", "b.jpg"], state)
    saved = load_checkpoint(tmp_path / "checkpoints" / "not_finite.pt")
    assert saved["batch_files"] == ["a.jpg", "b.jpg", "c.jpg"]
