"""Steps in parts: one device gives what several give under DataParallel, shown by a plain loop over the replicas."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from engine.losses import compute_triplet_loss
from engine.mixed_precision import AMP_DTYPES, MixedPrecision
from engine.step import TrainStep
from engine.task import Stopwatch, Task
from osnet_nas import build_supernet
from search.gumbel import GumbelSearch
from search.paths import GumbelSoftmax
from search.uniform import UniformSearch
from tests.same import assert_same
from utils.batch_norm import hold_statistics
from utils.distributed import Runtime

CPU = torch.device("cpu")
NUM_REPLICAS, PER_REPLICA = 8, 3
BATCH = NUM_REPLICAS * PER_REPLICA
LR = 0.01  # small enough for rounding not to grow over the toy's steps


class Toy(nn.Module):
    """Two mixed blocks of two candidates, batch norms, features and logits."""

    def __init__(self, learns_alphas=True):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)) for _ in range(2)
        )
        self.classifier = nn.Linear(4, 5)
        if learns_alphas:
            self.alphas = nn.Parameter(torch.ones(2, 2))

    def forward(self, images, paths=None):
        x = self.norm(self.stem(images)).relu()
        paths = x.new_full((2, 2), 0.5) if paths is None else paths.reshape(2, -1)
        for block, choice in zip(self.blocks, paths, strict=True):
            if choice.is_floating_point():
                x = x + sum(w * candidate(x) for w, candidate in zip(choice, block, strict=True))
            else:
                x = x + block[int(choice)](x)
        features = x.mean(dim=(2, 3))
        return self.classifier(features), features

    def uses(self, parameter, path):
        group = parameter.split(".")
        return group[0] != "blocks" or path[int(group[1])] == int(group[2])


def cross_entropy(output, labels):
    logits = output[0] if isinstance(output, tuple) else output
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


def triplet(output, labels):
    return cross_entropy(output, labels) + compute_triplet_loss(output[1].double(), labels)


def make_task(model, method, scope, runtime):
    if method == "child":
        return Task()
    if method == "uniform":
        return UniformSearch(model, num_blocks=2, num_candidates=2, repeats=1, seed=3, runtime=runtime,
                             sample_scope=scope)  # fmt: skip
    names = [str(i) for i in range(6)]
    return GumbelSearch(model, relaxation=GumbelSoftmax(), temperature=lambda epoch: 5.0, repeats=1, seed=3,
                        runtime=runtime, sample_scope=scope, block_names=names, candidate_names=names)  # fmt: skip


def build_model(kind, method="gumbel"):
    torch.manual_seed(0)
    model = build_supernet(5, 0.25) if kind == "supernet" else Toy(method == "gumbel")
    return model.train()


def make_step(model, task, runtime, loss=cross_entropy, amp="off", wrap=None, **more):
    def wrap_alone():
        return MixedPrecision(model, AMP_DTYPES[amp]) if amp != "off" else model

    step = TrainStep(
        model=model, wrap=wrap or wrap_alone, task=task, loss=loss,
        optimizers={"weights": torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)},
        prepare=lambda batch: batch.images, runtime=runtime, amp=amp, compares_images=loss is triplet, **more,
    )  # fmt: skip
    step.open_layers(None)
    return step


def draw_batch(number, dtype, size=(32, 16)):
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(BATCH, 3, *size, generator=generator, dtype=torch.float64).to(dtype)
    return SimpleNamespace(images=images, pids=torch.randint(5, (BATCH,), generator=generator))


def run_replicas(model, task, loss, batch, amp, scaler):
    """What DataParallel does: a copy for each replica, of which only the first keeps its running statistics."""
    network = MixedPrecision(model, AMP_DTYPES[amp]) if amp != "off" else model
    rows, outputs = task.draw(), []
    for replica, images in enumerate(batch.images.chunk(NUM_REPLICAS)):
        own = {} if replica == 0 else {name: buffer.clone() for name, buffer in network.named_buffers()}
        more = () if rows is None else (rows[replica],)
        outputs.append(functional_call(network, own, (images, *more)))
    whole = tuple(map(torch.cat, zip(*outputs, strict=True))) if isinstance(outputs[0], tuple) else torch.cat(outputs)
    value = loss(whole, batch.pids)
    model.zero_grad()
    scaler.scale(value).backward()
    logits = whole[0] if isinstance(whole, tuple) else whole
    return value.item(), int((logits.argmax(dim=1) == batch.pids).sum())


CASES = {
    # a drawn network grows rounding 50-fold a step: each step starts where the replicas stand
    "paper": {"kind": "supernet", "scope": "global", "num_steps": 2},
    "global": {"scope": "global", "num_steps": 20},
    "a sample each": {"scope": "replica", "num_steps": 20},
    "uniform": {"method": "uniform", "scope": "replica", "num_steps": 20},
    "child": {"method": "child", "num_steps": 20},
    "triplet": {"scope": "replica", "loss": triplet, "num_steps": 20},
    "clipping": {"scope": "replica", "clip_grad_norm": 0.3, "num_steps": 20},
    "bf16": {"scope": "replica", "amp": "bf16"},
    "fp16": {"scope": "replica", "amp": "fp16", "clip_grad_norm": 0.3},
    "fp16 triplet": {"scope": "replica", "amp": "fp16", "loss": triplet},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_parts_are_as_good_as_replicas(case):
    """Losses, correct images, gradients, weights and buffers of every step, to the rounding of a sum over the parts."""
    options = {"kind": "toy", "method": "gumbel", "scope": "global", "num_steps": 5, "loss": cross_entropy, **case}
    kind, method, scope, num_steps, loss = (options.pop(k) for k in ("kind", "method", "scope", "num_steps", "loss"))
    amp, clip = options.get("amp", "off"), options.get("clip_grad_norm", 0.0)
    dtype, tolerance = (torch.float64, 1e-9) if amp == "off" else (torch.float32, 1e-4)
    model, other = build_model(kind, method).to(dtype), build_model(kind, method).to(dtype)
    step = make_step(model, make_task(model, method, scope, Runtime(CPU)), Runtime(CPU), loss,
                     device_batch=PER_REPLICA, **options)  # fmt: skip
    task = make_task(other, method, scope, Runtime(CPU, replicas=NUM_REPLICAS))
    optimizer = torch.optim.SGD(other.parameters(), lr=LR, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16")
    for number in range(num_steps):
        batch = draw_batch(number, dtype)
        result = step.run(batch, Stopwatch())
        value, num_correct = run_replicas(other, task, loss, batch, amp, scaler)
        scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(other.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        task.after_step()
        assert result.loss == pytest.approx(value, rel=tolerance)
        assert (result.num_correct, result.num_images) == (num_correct, BATCH)
        for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if b.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        for a, b in zip(model.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        if kind == "supernet":
            model.load_state_dict(other.state_dict())
            step.optimizers["weights"].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert int(next(b for n, b in model.named_buffers() if n.endswith("num_batches_tracked"))) == num_steps


def test_steps_continue_exactly_from_a_saved_state():
    """Each part's sample is drawn from the generator that is saved, whatever the number of parts."""

    def make():
        model = build_model("toy")
        task = make_task(model, "gumbel", "replica", Runtime(CPU))
        return make_step(model, task, Runtime(CPU), device_batch=PER_REPLICA)

    whole, first, second = make(), make(), make()
    for step, numbers in ((whole, (0, 1, 2, 3)), (first, (0, 1))):
        for number in numbers:
            step.run(draw_batch(number, torch.float32), Stopwatch())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for number in (2, 3):
        second.run(draw_batch(number, torch.float32), Stopwatch())
    assert_same(whole.state_dict(), second.state_dict())


@pytest.mark.parametrize("loss", [cross_entropy, triplet])
def test_one_part_is_bit_for_bit_a_step_without_parts(loss):
    """The step written out, as it was before there were parts."""
    model, other = build_model("toy"), build_model("toy")
    step = make_step(model, make_task(model, "gumbel", "global", Runtime(CPU)), Runtime(CPU), loss, device_batch=BATCH)
    task = make_task(other, "gumbel", "global", Runtime(CPU))
    optimizer = torch.optim.SGD(other.parameters(), lr=LR, momentum=0.9)
    for number in range(3):
        batch = draw_batch(number, torch.float32)
        result = step.run(batch, Stopwatch())
        value = loss(other(batch.images, task.draw()), batch.pids)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        task.after_step()
        assert result.loss == value.item()
        assert_same(dict(model.state_dict()), dict(other.state_dict()))


def test_held_statistics_count_again_afterwards():
    norm, images = nn.BatchNorm2d(3), torch.randn(4, 3, 2, 2)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(ValueError, match="stop"), hold_statistics(nn.Sequential(norm)):
        assert torch.equal(norm(images), nn.BatchNorm2d(3)(images))
        assert_same(dict(norm.state_dict()), dict(before))
        raise ValueError("stop")
    norm(images)
    assert norm.num_batches_tracked == 1
