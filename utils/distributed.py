"""Device and parallelism, chosen once: CPU, one GPU, DataParallel over several, or torchrun's processes."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from utils.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """Where a process computes and with whom.

    Attributes:
        device: Where this process keeps the model.
        rank: This process among all, from 0; rank 0 writes.
        world_size: Processes in all; 1 without torchrun.
        replicas: GPUs that this process spreads a batch over (DataParallel); 1 on a CPU and under torchrun.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    replicas: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module, sync_bn: bool = False) -> nn.Module:
        """Moves ``model`` to the device and wraps it for the parallelism at hand; ``model`` itself stays usable."""
        model.to(self.device)
        if self.world_size > 1:
            if sync_bn and self.device.type == "cuda":
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            ids = [self.device.index] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(model, device_ids=ids)
        return nn.DataParallel(model) if self.replicas > 1 else model

    def wrap_for_evaluation(self, model: nn.Module) -> nn.Module:
        """Moves ``model`` to the device and spreads it over this process's GPUs."""
        model.to(self.device)
        return nn.DataParallel(model) if self.replicas > 1 else model

    def gather(self, value: Any) -> list[Any]:
        """Returns every process's value, in order of rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.world_size > 1:
            distributed.barrier()

    def check_equal(self, tensor: Tensor, what: str) -> None:
        """Verifies that all processes hold the same values.

        Raises:
            RuntimeError: they differ, which is a defect.
        """
        if not all(torch.equal(tensor.cpu(), other) for other in self.gather(tensor.detach().cpu())):
            raise RuntimeError(f"{what} differ between the processes")


def choose_runtime(use_gpu: bool) -> Runtime:
    """Chooses device and parallelism from what is visible and from torchrun's environment.

    Raises:
        UserError: more torchrun processes on this machine than GPUs.
    """
    on_gpu = use_gpu and torch.cuda.is_available()
    if "LOCAL_RANK" not in os.environ:
        if on_gpu:
            return Runtime(torch.device("cuda", 0), replicas=torch.cuda.device_count())
        return Runtime(torch.device("cpu"))
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu and local_rank >= torch.cuda.device_count():
        raise UserError(
            f"torchrun started process {local_rank} on a machine with {torch.cuda.device_count()} visible GPUs; "
            "lower --nproc-per-node"
        )
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    return Runtime(device, distributed.get_rank(), distributed.get_world_size())


def select_gpus(devices: str) -> None:
    """Makes only the listed GPUs visible ("0,1"); must come before CUDA is first used.

    Raises:
        UserError: not numbers separated by commas.
    """
    if not all(part.strip().isdigit() for part in devices.split(",")):
        raise UserError(f"--gpu-devices {devices}: expected numbers separated by commas, such as 0,1")
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
