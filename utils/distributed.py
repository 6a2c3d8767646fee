"""Device and parallelism, chosen once: CPU, one GPU, DataParallel over several, or torchrun's processes."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, distributed, nn

from utils.allocation import keep_freed_memory
from utils.errors import UserError
from utils.launch import Launch, read_launch
from utils.peers import Peers, private_store
from utils.work_share import WorkShare

_HEAD_START_SEC = 0.2  # of rank 0 before the others, where all were asked to stop: its log also goes to a file
_PATIENCE = timedelta(days=7)  # with a process that does alone what takes long; that it is gone is noticed at once


@dataclass(frozen=True)
class Runtime:
    """Where a process computes and with whom; enter it around all that the processes do together.

    Attributes:
        device: Where this process keeps the model.
        rank: This process among all, from 0; rank 0 writes.
        world_size: Processes in all; 1 without torchrun.
        replicas: GPUs that this process spreads a batch over (DataParallel); 1 on a CPU and under torchrun.
        local_rank: This process among those of its machine, from 0.
        local_world_size: Processes on this machine.
        peers: The other processes, None without torchrun.
        group: For exchanges that are not part of a training step and may wait long; None without torchrun.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    replicas: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    peers: Peers | None = field(default=None, compare=False, repr=False)
    group: Any = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def devices(self) -> list[torch.device]:
        """What this process computes on; DataParallel takes the first GPUs."""
        if self.replicas == 1:
            return [self.device]
        return [torch.device(self.device.type, index) for index in range(self.replicas)]

    @property
    def share_of_run(self) -> WorkShare:
        """This process's share of what all processes do together."""
        return WorkShare(self.rank, self.world_size, self.gather)

    @property
    def share_of_machine(self) -> WorkShare:
        """Its share of what the processes of each machine do together, such as to look at that machine's files."""
        return WorkShare(self.local_rank, self.local_world_size, self.gather)

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves together with the others, or ends them with the error that this process ends with.

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
        asked_code, lost = getattr(error, "exit_code", None), _comes_of_lost_process(error)
        if asked_code is not None and not self.is_main:
            time.sleep(_HEAD_START_SEC)
        self.peers.end(asked_code if asked_code is not None else 2 if lost or isinstance(error, UserError) else 1)
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

    def share_statistics(self, model: nn.Module) -> None:
        """Moves ``model`` to the device and gives every process rank 0's running statistics.

        In training each has seen its own part of the batches.
        """
        model.to(self.device)
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def wrap_for_evaluation(self, model: nn.Module) -> nn.Module:
        """Moves ``model`` to the device, with rank 0's running statistics, and spreads it over this process's GPUs."""
        self.share_statistics(model)
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
        """Returns every process's value, in order of rank, in every process; waits as long as it takes."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def join(self, tensor: Tensor) -> Tensor:
        """Concatenates the rows of every process's tensor, all of one shape, by rank: (world_size · N, …).

        Where the same loss over all rows is then computed in every process, its gradients are those of one process
        that has all rows: see ``_Join``.
        """
        if self.world_size == 1:
            return tensor
        is_channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        return _Join.apply(tensor, self.rank, self.world_size).contiguous(memory_format=layout)

    def share(self, value: Any) -> Any:
        """Returns rank 0's value in every process; waits as long as it takes."""
        if self.world_size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Whether each flag is set in any process; all processes must ask for the same flags."""
        if self.world_size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.float32, device=self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [flag > 0 for flag in found.tolist()]

    def barrier(self) -> None:
        """Waits until every process is here, as long as it takes."""
        if self.world_size > 1:
            distributed.barrier(group=self.group)

    def check_equal(self, tensor: Tensor, what: str) -> None:
        """Verifies that all processes hold the same values.

        Raises:
            RuntimeError: they differ, which is a defect.
        """
        if not all(torch.equal(tensor.cpu(), other) for other in self.gather(tensor.detach().cpu())):
            raise RuntimeError(f"{what} differ between the processes")


class _Join(torch.autograd.Function):
    """Concatenates every process's rows; a gradient flows to the process's own rows, ``world_size`` times as large.

    With a loss over all rows in every process, the gradient for one process's rows is whole already, and nobody else
    adds to it. DistributedDataParallel then takes the mean over the processes of what are parts of a sum, so each part
    has to be larger by their number.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, world_size: int) -> Tensor:
        """Returns (world_size · N, …), contiguous."""
        ctx.rank, ctx.world_size = rank, world_size
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size)]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Returns the gradient for the process's own rows."""
        return gradients[0].chunk(ctx.world_size)[ctx.rank] * ctx.world_size, None, None


def choose_runtime(use_gpu: bool, num_wanted: int = 0) -> Runtime:
    """Chooses device and parallelism from what is visible and from torchrun's environment.

    Args:
        use_gpu: Use the visible GPUs.
        num_wanted: How many of them the caller named; 0 for any number.

    Raises:
        UserError: fewer GPUs than were named, more torchrun processes on this machine than GPUs, an environment that
            ``utils.launch.read_launch`` refuses, or processes that do not find each other.
    """
    on_gpu = use_gpu and torch.cuda.is_available()
    if use_gpu and torch.cuda.device_count() < num_wanted:
        raise UserError(f"--gpu-devices names {num_wanted} GPUs, {torch.cuda.device_count()} of them can be used here")
    launch = read_launch()
    if launch is None:
        if on_gpu:
            return Runtime(torch.device("cuda", 0), replicas=torch.cuda.device_count())
        keep_freed_memory()
        return Runtime(torch.device("cpu"))
    if on_gpu and launch.local_world_size > torch.cuda.device_count():
        raise UserError(
            f"torchrun started {launch.local_world_size} processes on a machine with {torch.cuda.device_count()} "
            "visible GPUs; lower --nproc-per-node"
        )
    device = torch.device("cuda", launch.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    try:
        return _join_processes(launch, device)
    except RuntimeError as error:
        if not _comes_of_lost_process(error):
            raise
        raise UserError(
            f"the {launch.world_size} processes of this run did not find each other at {launch.address} port "
            f"{launch.port}: {str(error).partition(chr(10))[0]}"
        ) from error


def _join_processes(launch: Launch, device: torch.device) -> Runtime:
    """Meets the other processes and prepares the exchanges with them.

    Raises:
        RuntimeError: of PyTorch's kinds, where that fails.
    """

    def meet() -> distributed.Store:
        return private_store(next(distributed.rendezvous("env://"))[0], launch.rank, launch.world_size)

    with ThreadPoolExecutor(1) as pool:  # waiting in this thread itself would keep signals off
        store = pool.submit(meet).result()
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed.PrefixStore("exchange", store),
        rank=launch.rank,
        world_size=launch.world_size,
        device_id=device if device.type == "cuda" else None,  # connects now, not in the first step
    )
    return Runtime(
        device,
        launch.rank,
        launch.world_size,
        local_rank=launch.local_rank,
        local_world_size=launch.local_world_size,
        peers=Peers(distributed.PrefixStore("peers", store), launch.rank, launch.world_size),
        group=distributed.new_group(backend="gloo", timeout=_PATIENCE),
    )


def _comes_of_lost_process(error: BaseException) -> bool:
    """Whether an exchange failed because another process is gone."""
    if isinstance(error, distributed.DistError):
        return True
    text = str(error)
    # gloo's own checks ("enforce fail") find calls that do not fit together, which is a defect
    is_of_gloo = type(error) is RuntimeError and ("gloo/transport/" in text or "connectFullMesh" in text)
    return is_of_gloo and "enforce fail" not in text
