"""Choice of device, one process alone, how batches split, and how processes end together."""

import re

import pytest
import torch
from torch import distributed, nn

from engine.interrupt import Interrupted
from utils import distributed as module
from utils import peers as peers_module
from utils.distributed import Runtime, choose_runtime
from utils.errors import UserError
from utils.peers import Peers

CPU = torch.device("cpu")
TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29400",
}  # fmt: skip


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    return pretend


@pytest.fixture
def torchrun(monkeypatch):
    """Sets torchrun's variables; the exchanges are prepared, as ``given`` says, and not made."""
    given = {}

    def launch(store=None, **changes):
        for name, value in {**TORCHRUN, **changes}.items():
            monkeypatch.setenv(name, value)
        store = store or distributed.HashStore()
        monkeypatch.setattr(module.distributed, "rendezvous", lambda url: iter([(store, 0, 1)]))
        monkeypatch.setattr(module.distributed, "init_process_group", lambda *words, **named: given.update(named))
        monkeypatch.setattr(module.distributed, "new_group", lambda **named: given.update(group=named))
        return given

    return launch


@pytest.mark.parametrize(("count", "use_gpu", "device", "replicas"), [
    (0, True, CPU, 1), (1, True, torch.device("cuda", 0), 1), (4, True, torch.device("cuda", 0), 4), (4, False, CPU, 1),
])  # fmt: skip
def test_device_without_torchrun(gpus, count, use_gpu, device, replicas):
    gpus(count)
    assert choose_runtime(use_gpu) == Runtime(device, replicas=replicas)


def test_what_torchrun_left_in_a_shell_starts_nothing(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_runtime(False) == Runtime(CPU)


def test_more_processes_than_gpus(gpus, torchrun):
    gpus(2)
    torchrun(WORLD_SIZE="3", LOCAL_WORLD_SIZE="3")
    with pytest.raises(UserError, match="3 processes on a machine with 2 visible GPUs"):
        choose_runtime(True)


def test_one_process_talks_to_itself():
    runtime, tensor, model = Runtime(CPU), torch.arange(4), nn.Linear(2, 2)
    assert runtime.is_main
    assert runtime.gather("x") == ["x"]
    assert runtime.share("x") == "x"
    assert runtime.any([True, False]) == [True, False]
    assert runtime.join(tensor) is tensor
    assert runtime.wrap(model) is model
    assert runtime.wrap_for_evaluation(model) is model
    runtime.barrier()
    runtime.check_equal(tensor, "numbers")
    with pytest.raises(ZeroDivisionError), runtime:
        raise ZeroDivisionError


def test_devices_of_a_process():
    first, second = (torch.device("cuda", i) for i in (0, 1))
    assert Runtime(first, replicas=2).devices == [first, second]
    assert Runtime(second, 1, 2).devices == [second]
    assert Runtime(CPU).devices == [CPU]


def test_shares_of_the_work():
    runtime = Runtime(CPU, 5, 8, local_rank=1, local_world_size=4)
    assert [(share.index, share.count) for share in (runtime.share_of_run, runtime.share_of_machine)] == [
        (5, 8),
        (1, 4),
    ]
    assert runtime.share_of_run.gather == runtime.share_of_machine.gather == runtime.gather


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", range(4, 40, 2))
def test_every_device_needs_two_images(batch_size, replicas, world_size):
    sizes = [len(part) for part in torch.arange(batch_size // world_size).chunk(replicas)]  # as DataParallel scatters
    runtime = Runtime(CPU, 0, world_size, replicas)
    if min(sizes) >= 2:
        runtime.check_batch_size(batch_size)
    else:
        with pytest.raises(UserError, match=rf"train.batch_size {batch_size} leaves a device with {min(sizes)}"):
            runtime.check_batch_size(batch_size)


@pytest.mark.parametrize(
    ("runtime", "device_batch", "told"),
    [
        (
            Runtime(CPU),
            5,
            "device_batch 5 does not divide a device's share of train.batch_size 48, 48 images on",
        ),
        (Runtime(CPU, 0, 2), 16, "24 images on 2 device(s); choose a divisor of that, or 0"),
        (Runtime(CPU, 1, 2, replicas=2), 8, "12 images on 4 device(s)"),
    ],
)
def test_parts_must_divide_a_devices_share(runtime, device_batch, told):
    with pytest.raises(UserError, match=re.escape(told)):
        runtime.check_device_batch(48, device_batch)
    for right in (0, 4, 6, 12):
        runtime.check_device_batch(48, right)


def test_sync_bn_without_torchruns_gpus():
    Runtime(CPU).check_sync_bn(False)
    Runtime(torch.device("cuda", 1), 1, 2).check_sync_bn(True)
    for runtime in (Runtime(CPU), Runtime(CPU, 0, 2), Runtime(torch.device("cuda", 0), replicas=2)):
        with pytest.raises(UserError, match=r"train.sync_bn"):
            runtime.check_sync_bn(True)


@pytest.fixture
def ended(monkeypatch):
    """Records exit codes in place of ending the process."""
    codes = []

    def end(code):
        codes.append(code)
        raise SystemExit

    monkeypatch.setattr(peers_module.os, "_exit", end)
    monkeypatch.setattr(peers_module, "_HEARD_SEC", 0.1)  # nobody watches in these tests
    monkeypatch.setattr(peers_module, "_POLL_SEC", 600)
    return codes


def make_two():
    store = distributed.HashStore()
    return [Runtime(CPU, rank, 2, peers=Peers(store, rank, 2)) for rank in (0, 1)]


def test_first_error_is_let_out_and_the_second_is_not(ended):
    runtimes = make_two()
    with pytest.raises(UserError, match="first"), runtimes[1]:
        raise UserError("first")
    with pytest.raises(SystemExit), runtimes[0]:
        raise UserError("second")
    assert ended == [2]


@pytest.mark.parametrize("asked", [0, 1])
def test_process_that_fails_because_another_was_asked_to_stop_ends_with_its_code(ended, asked):
    """A signal came to one process alone, in the middle of what they do together."""
    runtimes = make_two()
    with pytest.raises(Interrupted) as caught, runtimes[asked]:
        raise Interrupted("stopped", 143)
    assert caught.value.exit_code == 143
    with pytest.raises(SystemExit), runtimes[1 - asked]:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:31635")
    assert ended == [143]


def test_second_process_that_was_asked_to_stop_is_silent(ended):
    runtimes = make_two()
    with pytest.raises(Interrupted), runtimes[0]:
        raise Interrupted("stopped", 130)
    with pytest.raises(SystemExit), runtimes[1]:
        raise Interrupted("stopped", 143)
    assert ended == [130]


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(("error", "is_lost"), [
    (RuntimeError(f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:31635"), True),
    (RuntimeError(f"{GLOO}pair.cc:299] Read error [127.0.0.1]:31635: Connection reset by peer"), True),
    (RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete"), True),
    (RuntimeError("Gloo connectFullMesh failed with [pair.cc] timeout"), True),
    (distributed.DistStoreError("wait timeout after 300000ms"), True),
    (distributed.DistBackendError("NCCL error"), True),
    (distributed.DistNetworkError("Connection reset by peer"), True),
    (RuntimeError(f"[enforce fail at {GLOO[1:]}pair.cc:446] op.preamble.length <= op.nbytes. 8 vs 4"), False),
    (RuntimeError("[gloo] allreduce: dense CPU tensors only"), False),
    (ValueError(f"{GLOO}pair.cc:561] Connection closed by peer"), False),
])  # fmt: skip
def test_lost_process_is_one_line_and_a_defect_is_a_traceback(error, is_lost):
    runtime = Runtime(CPU, 0, 1, peers=Peers(distributed.HashStore(), 0, 1))
    raised, text = (UserError, "another process of this run was lost") if is_lost else (type(error), "gloo")
    with pytest.raises(raised, match=text), runtime:
        raise error


def test_difference_between_processes_is_a_defect(monkeypatch):
    monkeypatch.setattr(Runtime, "gather", lambda self, value: [value, value + 1])
    with pytest.raises(RuntimeError, match="architecture parameters differ"):
        Runtime(CPU, 0, 2).check_equal(torch.ones(2), "architecture parameters")


def test_evaluation_takes_rank_0s_statistics(monkeypatch):
    """Every process has seen its own share of the batches."""
    model, main = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    for network, shift in ((model, 5.0), (main, 1.0)):
        network(shift + torch.randn(8, 3))
    sent = iter(main.buffers())
    monkeypatch.setattr(module.distributed, "broadcast", lambda tensor, src: tensor.copy_(next(sent)))
    assert Runtime(CPU, 1, 2).wrap_for_evaluation(model) is model
    for name, buffer in main.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name)), name


def test_restart_reads_nothing_of_the_processes_before(torchrun):
    """The store of torchrun may outlive a restart, and its restart count tells nothing: a new machine's is 0."""
    store = distributed.HashStore()
    for attempt in range(2):
        given = torchrun(store, TORCHELASTIC_RESTART_COUNT="0")
        peers = choose_runtime(False).peers
        assert peers is not None
        peers.end(2)  # ends the process unless it is the first to end
        assert not given["store"].check(["used"]), attempt
        given["store"].set("used", "")


def test_exchanges_that_may_wait_long_have_their_own_group(torchrun):
    """A process that ranks or draws alone for an hour must not end the others by NCCL's or gloo's time limit."""
    given = torchrun()
    choose_runtime(False).peers.close()
    assert given["group"]["backend"] == "gloo"
    assert given["group"]["timeout"].days >= 1
    assert "timeout" not in given
    assert given["device_id"] is None


def test_nccl_is_told_its_device(gpus, torchrun, monkeypatch):
    """It then connects at once."""
    gpus(2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(module, "private_store", lambda store, rank, world_size: store)
    given = torchrun(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2")
    runtime = choose_runtime(True)
    runtime.peers.close()
    assert given["device_id"] == torch.device("cuda", 1)
    assert (runtime.local_rank, runtime.local_world_size) == (1, 2)


def test_address_that_is_taken_is_one_line(torchrun, monkeypatch):
    def fail(url):
        raise distributed.DistNetworkError("The server socket has failed to listen, address already in use\nframe #0")

    torchrun()
    monkeypatch.setattr(module.distributed, "rendezvous", fail)
    with pytest.raises(UserError, match=r"did not find each other at localhost port 29400: .* already in use$"):
        choose_runtime(False)
