"""Memory that a process keeps for its next step."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, resource, torch
if not hasattr(ctypes.CDLL(None), "mallopt"):
    print(-1)
    raise SystemExit
from utils.allocation import keep_freed_memory
keep_freed_memory()
def touch():
    torch.ones(2**24)  # 64 MiB, more than glibc ever keeps of itself
for _ in range(20):  # pieces that alignment leaves over come to rest
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_tensors_take_pages_that_are_there_already():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    faults, num_pages = int(done.stdout), 8 * 2**26 // resource.getpagesize()
    if faults < 0:
        pytest.skip("the C library has no mallopt")
    assert faults < num_pages / 10
