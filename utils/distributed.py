"""Device and parallelism, chosen once: CPU, one GPU, DataParallel over several, or torchrun's processes."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn

from utils.errors import UserError
from utils.peers import Peers, keep_to_ourselves

_HEAD_START_SEC = 0.2  # of rank 0 before the others, where all were asked to stop: its log also goes to a file
_LOST = ("closed by peer", "reset by peer", "broken pipe", "socket closed", "timed out waiting", "read timeout",
         "pair closure", "connectfullmesh failed")  # gloo's words for it  # fmt: skip


@runtime_checkable
class Stop(Protocol):
    """An exception that is no error but a wish to end, such as ``engine.interrupt.Interrupted``."""

    exit_code: int
    is_told: bool


@dataclass(frozen=True)
class Runtime:
    """Where a process computes and with whom; enter it around all that the processes do together.

    Attributes:
        device: Where this process keeps the model.
        rank: This process among all, from 0; rank 0 writes.
        world_size: Processes in all; 1 without torchrun.
        replicas: GPUs that this process spreads a batch over (DataParallel); 1 on a CPU and under torchrun.
        peers: The other processes, None without torchrun.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    replicas: int = 1
    peers: Peers | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves together with the others, or tells them that this process ends with an error.

        Only the first process that ends lets its error out, so that one line is printed; all end with its exit code.

        Raises:
            UserError: another process was lost, and what was raised comes from that.
        """
        if self.peers is None:
            return
        if error is None:
            self.barrier()
            self.peers.close()
            distributed.destroy_process_group()
            return
        was_asked, lost = isinstance(error, Stop), _tells_of_lost_peer(error)
        if was_asked and not self.is_main:
            time.sleep(_HEAD_START_SEC)
        code = error.exit_code if isinstance(error, Stop) else 2 if lost or isinstance(error, UserError) else 1
        told = self.peers.announce(code)
        if told is not None and not was_asked:
            os._exit(told)
        self.peers.close()
        if isinstance(error, Stop) and told is not None:
            error.exit_code, error.is_told = told, True
        if lost:
            raise UserError("another process of this run was lost; continue with model.resume auto") from error

    def wrap(self, model: nn.Module, sync_bn: bool = False, reaches_all: bool = True) -> nn.Module:
        """Moves ``model`` to the device and wraps it for the parallelism at hand; ``model`` itself stays usable.

        DistributedDataParallel takes note of which parameters learn: wrap anew whenever that changes.

        Args:
            model: The bare model.
            sync_bn: Batch norms share their statistics over the processes.
            reaches_all: Whether each step gives every learning parameter a gradient.
        """
        model.to(self.device)
        if self.world_size == 1:
            return nn.DataParallel(model) if self.replicas > 1 else model
        if sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=not reaches_all)

    def wrap_for_evaluation(self, model: nn.Module) -> nn.Module:
        """Moves ``model`` to the device and spreads it over this process's GPUs.

        Every process takes rank 0's running statistics: in training each has seen its own part of the batches.
        """
        model.to(self.device)
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
        return nn.DataParallel(model) if self.replicas > 1 else model

    def check_sync_bn(self, sync_bn: bool) -> None:
        """Checks that batch norms can share their statistics where they are to.

        Raises:
            UserError: they cannot here.
        """
        if sync_bn and (self.device.type != "cuda" or self.replicas > 1):
            raise UserError("train.sync_bn True needs GPUs under torchrun, one for each process; set it to False")

    def check_batch_size(self, batch_size: int) -> None:
        """Checks that every device gets at least two images, which batch norms need.

        Raises:
            UserError: ``batch_size``, over all devices, is too small or splits badly.
        """
        share = batch_size // self.world_size
        largest = -(-share // self.replicas)
        smallest = share % largest or largest  # as DataParallel splits
        if smallest < 2:
            raise UserError(
                f"train.batch_size {batch_size} leaves a device with {smallest} image(s), batch norms need 2; choose a "
                f"multiple of {2 * self.world_size * self.replicas}"
            )

    def check_device_batch(self, batch_size: int, device_batch: int) -> None:
        """Checks that every device's share of a batch divides into parts of ``device_batch`` images.

        Raises:
            UserError: it does not.
        """
        num_devices = self.world_size * self.replicas
        if device_batch > 0 and batch_size % (num_devices * device_batch):
            raise UserError(
                f"train.device_batch {device_batch} does not divide a device's share of train.batch_size {batch_size}, "
                f"{batch_size / num_devices:g} images on {num_devices} device(s); choose a divisor of that, or 0"
            )

    def gather(self, value: Any) -> list[Any]:
        """Returns every process's value, in order of rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def join(self, tensor: Tensor) -> Tensor:
        """Concatenates every process's images (N, C, H, W), all of one shape, by rank: (world_size · N, C, H, W)."""
        if self.world_size == 1:
            return tensor
        parts = [torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device) for _ in range(self.world_size)]
        distributed.all_gather(parts, tensor.contiguous())
        is_channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        return torch.cat(parts).contiguous(memory_format=layout)

    def share(self, value: Any) -> Any:
        """Returns rank 0's value in every process."""
        if self.world_size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Whether each flag is set in any process; all processes must ask for the same flags."""
        if self.world_size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.float32, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [flag > 0 for flag in found.tolist()]

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


def choose_runtime(use_gpu: bool, num_wanted: int = 0) -> Runtime:
    """Chooses device and parallelism from what is visible and from torchrun's environment.

    Args:
        use_gpu: Use the visible GPUs.
        num_wanted: How many of them the caller named; 0 for any number.

    Raises:
        UserError: fewer GPUs than were named, or more torchrun processes on this machine than GPUs.
    """
    on_gpu = use_gpu and torch.cuda.is_available()
    if use_gpu and torch.cuda.device_count() < num_wanted:
        raise UserError(f"--gpu-devices names {num_wanted} GPUs, {torch.cuda.device_count()} of them can be used here")
    if "LOCAL_RANK" not in os.environ:
        if on_gpu:
            return Runtime(torch.device("cuda", 0), replicas=torch.cuda.device_count())
        return Runtime(torch.device("cpu"))
    local_rank, num_here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpu and num_here > torch.cuda.device_count():
        raise UserError(
            f"torchrun started {num_here} processes on a machine with {torch.cuda.device_count()} visible GPUs; lower "
            "--nproc-per-node"
        )
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    with ThreadPoolExecutor(1) as pool:  # waiting in this thread itself would keep signals off
        store, rank, world_size = pool.submit(next, distributed.rendezvous("env://")).result()
    store = keep_to_ourselves(store, rank, world_size)
    exchange = distributed.PrefixStore("exchange", store)
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=exchange,
        rank=rank,
        world_size=world_size,
        device_id=device if on_gpu else None,
    )
    return Runtime(device, rank, world_size, peers=Peers(distributed.PrefixStore("peers", store), rank, world_size))


def speaks_for_this_machine() -> bool:
    """Whether this process reports what every process here finds: it is the only one, or torchrun's first."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def select_gpus(devices: str) -> None:
    """Makes only the listed GPUs visible ("0,1"); must come before CUDA is first used.

    Raises:
        UserError: not numbers separated by commas.
    """
    if not all(part.strip().isdigit() for part in devices.split(",")):
        raise UserError(f"--gpu-devices {devices}: expected numbers separated by commas, such as 0,1")
    os.environ["CUDA_VISIBLE_DEVICES"] = devices


def _tells_of_lost_peer(error: BaseException) -> bool:
    """Whether an exchange failed because another process is gone."""
    if isinstance(error, distributed.DistBackendError | distributed.DistNetworkError):
        return True
    text = str(error).lower()
    return type(error) is RuntimeError and "gloo" in text and any(words in text for words in _LOST)
