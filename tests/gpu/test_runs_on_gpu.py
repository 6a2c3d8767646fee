"""Whole runs on a GPU: exact resuming, memory, NCCL, the line for too little memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import trainer as trainer_module
from engine.memory import describe_memory, measure_peak_memory
from main import main
from tests.conftest import SMALL
from tests.same import assert_same
from utils.checkpoint import load_checkpoint
from utils.distributed import Runtime

ROOT = Path(__file__).parents[2]


def run(root, folder, *words, name="osnet_child"):
    settings = ["model.name", name, "data.save_dir", str(folder), *SMALL]
    return main(["--root", str(root), "--gpu-devices", "0", *settings, *map(str, words)])


@pytest.mark.parametrize("name", ["osnet_child", "osnet_nas"])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_run_that_was_stopped_ends_as_one_that_was_not(market_root, tmp_path, monkeypatch, deterministic, name, amp):
    words = ["train.max_epoch", 4, "train.amp", amp]
    assert run(market_root, tmp_path / "whole", *words, name=name) == 0
    finish = trainer_module.Trainer._finish_epoch

    def stop_after_two(self, epoch, scores):
        finish(self, epoch, scores)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_finish_epoch", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run(market_root, tmp_path / "parts", *words, name=name)
    assert run(market_root, tmp_path / "parts", *words, "model.resume", "auto", name=name) == 0
    a, b = (load_checkpoint(tmp_path / part / "checkpoints" / "last.pt") for part in ("whole", "parts"))
    for key in ("model", "optimizers", "schedulers", "task", "progress"):
        assert_same(a[key], b[key], key)


def test_memory_is_reported(market_root, tmp_path, device):
    assert run(market_root, tmp_path / "run", "train.max_epoch", 1) == 0
    assert "GiB GPU memory" in (tmp_path / "run" / "train.log").read_text()
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    assert measure_peak_memory(Runtime(device)) >= held.numel()
    assert "of" in describe_memory(Runtime(device))


def test_too_little_memory_is_one_line(market_root, tmp_path, device, capsys):
    torch.cuda.set_per_process_memory_fraction(0.001, device)
    try:
        assert run(market_root, tmp_path / "run", "data.height", 512, "data.width", 256, "train.max_epoch", 1) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    error = capsys.readouterr().err
    assert error.startswith("error: the memory is too small")
    assert error.count("\n") == 1


def test_one_process_over_nccl(market_root, tmp_path):
    words = ["--root", str(market_root), "model.name", "osnet_child", "data.save_dir", str(tmp_path / "run"), *SMALL]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "1",
        "main.py",
        *words,
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "metrics.json").exists()
