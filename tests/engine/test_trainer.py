"""The loop on a network of two layers: saving, leaving, faults, precision, scores."""

import errno
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine import trainer as module
from engine.history import read_history
from engine.interrupt import Interrupted, StopRequest
from engine.scores import Scores
from engine.step import TrainStep
from engine.task import Stopwatch, Task, TrainSettings
from engine.trainer import Trainer
from tests.toy_batches import Batches
from utils import files
from utils.checkpoint import load_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.body(x).relu())


@pytest.fixture
def make(tmp_path):
    """Makes trainers of one folder."""
    (tmp_path / "checkpoints").mkdir()

    def make(
        batches=None,
        loss=F.cross_entropy,
        evaluate=None,
        stop=None,
        ema_decay=0.0,
        amp="off",
        clip_grad_norm=0.0,
        **settings,
    ):
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        step = TrainStep(
            model=net, wrap=lambda: net, task=Task(), loss=loss, optimizers={"weights": optimizer},
            prepare=lambda batch: batch.images, runtime=Runtime(CPU), amp=amp, clip_grad_norm=clip_grad_norm,
            ema_decay=ema_decay,
        )  # fmt: skip
        return Trainer(
            step=step, schedulers={"weights": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)},
            batches=batches or Batches(), runtime=Runtime(CPU),
            settings=TrainSettings(**{"max_epoch": 3, "batch_size": 4, **settings}),
            folder=tmp_path, identity={"name": "net"},
            config={"a": 1}, images="hash", evaluate=evaluate,
            stop=stop or StopRequest(tmp_path / "checkpoints" / "last.pt"),
        )  # fmt: skip

    return make


def scores(*values):
    """Evaluations that give these mAPs one after the other."""
    left = list(values)
    return lambda: {"target": Scores({1: 0.5}, left.pop(0), 0.1, 4)}


def load(tmp_path, name="last.pt"):
    return load_checkpoint(tmp_path / "checkpoints" / name)


def assert_equal_weights(a, b):
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_scores_and_best_weights(make, tmp_path):
    trainer = make(evaluate=scores(0.3, 0.8, 0.5), eval_freq=1)
    assert trainer.fit()["target"].mAP == 0.5
    best, last = load(tmp_path, "best.pt"), load(tmp_path)
    assert (best["progress"]["epoch"], best["progress"]["best"]) == (2, 0.8)
    assert (last["progress"]["epoch"], last["progress"]["best"]) == (3, 0.8)
    assert last["schedulers"]["weights"]["last_epoch"] == 3


@pytest.mark.parametrize(
    ("freq", "start", "expected"), [(-1, 0, [4]), (1, 0, [1, 2, 3, 4]), (2, 0, [2, 4]), (1, 3, [3, 4]), (3, 0, [3, 4])]
)
def test_when_it_evaluates(make, freq, start, expected):
    seen = []

    def evaluate():
        seen.append(trainer.progress.epoch + 1)
        return scores(0.1)()

    trainer = make(evaluate=evaluate, eval_freq=freq, start_eval=start, max_epoch=4)
    trainer.fit()
    assert seen == expected


def test_kill_between_best_and_last_loses_nothing(make, tmp_path, monkeypatch):
    make(evaluate=scores(0.2, 0.9, 0.5), eval_freq=1).fit()
    whole = load(tmp_path, "best.pt"), load(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()

    def dying(save):
        def save_then_die(path, content, *rest):
            save(path, content, *rest)
            if content["progress"]["epoch"] == 2:
                raise KeyboardInterrupt

        return save_then_die

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("save_checkpoint", "save_last"):  # whichever of the two comes first
            patch.setattr(module, name, dying(getattr(module, name)))
        make(evaluate=scores(0.2, 0.9), eval_freq=1).fit()
    trainer = make(evaluate=scores(0.9, 0.5), eval_freq=1)
    trainer.load_state(load(tmp_path))
    trainer.fit()
    for before, after in zip(whole, (load(tmp_path, "best.pt"), load(tmp_path)), strict=True):
        assert_equal_weights(before["model"], after["model"])
        assert before["progress"] == after["progress"]


@pytest.mark.parametrize("where", [(0, 0), (0, 3), (1, 4), (2, 2)])
def test_broken_image_in_mid_epoch_saves_and_the_run_continues_exactly(make, tmp_path, where):
    whole = make()
    whole.fit()

    def fail(epoch, number):
        if (epoch, number) == where:
            raise UserError("broken image 7.jpg")

    with pytest.raises(UserError, match="broken image 7"):
        make(Batches(fail)).fit()
    assert (load(tmp_path)["progress"]["epoch"], load(tmp_path)["progress"]["batch"]) == where
    continued = make()
    continued.load_state(load(tmp_path))
    continued.fit()
    assert_equal_weights(continued.step.model.state_dict(), whole.step.model.state_dict())
    assert continued.schedulers["weights"].state_dict() == whole.schedulers["weights"].state_dict()


def test_lost_worker_saves_and_is_one_line(make, tmp_path):
    def fail(epoch, number):
        if number == 2:
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

    with pytest.raises(UserError, match="process that loads images was killed"):
        make(Batches(fail)).fit()
    assert load(tmp_path)["progress"]["batch"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_signal_during_loading_saves_before_the_step(make, tmp_path, number, code):
    def hook(epoch, batch):
        if (epoch, batch) == (1, 3):
            signal.raise_signal(number)

    with StopRequest(tmp_path / "checkpoints" / "last.pt") as stop:
        trainer = make(Batches(hook), stop=stop)
        with pytest.raises(Interrupted, match=r"continue with: the same command and model.resume auto") as caught:
            trainer.fit()
    assert caught.value.exit_code == code
    assert (load(tmp_path)["progress"]["epoch"], load(tmp_path)["progress"]["batch"]) == (1, 3)


def test_signal_during_evaluation_acts_at_once_and_loses_nothing(make, tmp_path):
    whole = make(evaluate=scores(0.5))
    whole.fit()

    def evaluate():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("evaluation went on")

    with StopRequest(tmp_path / "checkpoints" / "last.pt") as stop, pytest.raises(Interrupted) as caught:
        make(evaluate=evaluate, stop=stop).fit()
    assert caught.value.exit_code == 143
    assert (load(tmp_path)["progress"]["epoch"], load(tmp_path)["progress"]["batch"]) == (2, 5)
    steps = []
    continued = make(Batches(lambda *where: steps.append(where)), evaluate=scores(0.5))
    continued.load_state(load(tmp_path))
    continued.fit()
    assert steps == []
    assert_equal_weights(continued.step.model.state_dict(), whole.step.model.state_dict())
    assert continued.schedulers["weights"].state_dict() == whole.schedulers["weights"].state_dict()


def test_saves_by_time(make, tmp_path):
    seen = []

    def hook(epoch, number):
        last = tmp_path / "checkpoints" / "last.pt"
        seen.append(load(tmp_path)["progress"]["batch"] if last.exists() else None)

    make(Batches(hook), max_epoch=1, save_every_min=1e-9).fit()
    assert seen == [None, 0, 1, 2, 3]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_not_finite_stops_with_state_and_files(make, tmp_path, what):
    calls = []

    def loss(logits, labels):
        calls.append(1)
        value = F.cross_entropy(logits, labels)
        if len(calls) < 8:
            return value
        return value * float("nan") if what == "loss" else value + 0 * (logits - logits.detach()).abs().sqrt().sum()

    trainer = make(loss=loss)
    with pytest.raises(UserError, match="is not finite in epoch 2, batch 3"):
        trainer.fit()
    saved = load(tmp_path, "not_finite.pt")
    assert saved["batch_files"] == ["8.jpg", "9.jpg", "10.jpg", "11.jpg"]
    assert_equal_weights(saved["model"], trainer.step.model.state_dict())
    assert all(torch.isfinite(t).all() for t in saved["model"].values())
    assert load(tmp_path)["progress"]["epoch"] == 1


def test_fp16_leaves_out_a_step_that_overflows_and_says_so(make, caplog):
    trainer = make(amp="fp16", max_epoch=1, loss=lambda logits, labels: F.cross_entropy(logits.float(), labels))
    scale = trainer.step.scaler.get_scale()
    hook = trainer.step.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: t.clone() for name, t in trainer.step.model.state_dict().items()}
    trainer._learn(next(Batches().batches(0)))
    assert_equal_weights(trainer.step.model.state_dict(), before)
    assert trainer.step.scaler.get_scale() == scale / 2
    told = f"gradients overflowed in fp16: this step is left out, the loss now scaled by {scale / 2:g}, not {scale:g}"
    assert [r.getMessage() for r in caplog.records] == [told]
    hook.remove()
    trainer._learn(next(Batches().batches(0)))
    assert len(caplog.records) == 1
    assert not torch.equal(trainer.step.model.body.weight, before["body.weight"])


def test_fp16_that_always_overflows_stops(make):
    trainer = make(amp="fp16", loss=lambda logits, labels: F.cross_entropy(logits.float(), labels))
    trainer.step.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    batch = next(Batches().batches(0))
    for _ in range(26):  # from a scale of 2^16 to 2^-10
        trainer._learn(batch)
    with pytest.raises(UserError, match="is not finite"):
        trainer._learn(batch)


def test_gradients_are_clipped_to_the_norm(make):
    norms = []
    trainer = make(clip_grad_norm=0.01, max_epoch=1)
    trainer.task.after_step = lambda: norms.append(
        float(torch.cat([p.grad.flatten() for p in trainer.step.model.parameters()]).norm())
    )
    trainer.fit()
    assert norms == pytest.approx([0.01] * 5, rel=1e-3)


def test_full_memory_is_one_line(make):
    def loss(logits, labels):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(UserError, match=r"the memory is too small.*train.batch_size"):
        make(loss=loss).fit()

    def loss_of_later(logits, labels):
        steps.append(1)
        return loss(logits, labels) if len(steps) == 3 else F.cross_entropy(logits, labels)

    steps = []
    with pytest.raises(UserError, match=r"a step had 4 images on a device at a time; set train.device_batch to fewer"):
        make(loss=loss_of_later).fit()

    def evaluate():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(UserError, match=r"the memory is too small.*test.batch_size"):
        make(evaluate=evaluate).fit()


def test_full_disk_is_one_line_and_keeps_what_was_saved(make, tmp_path, monkeypatch):
    def fill(epoch, number):
        if epoch == 1:
            monkeypatch.setattr(files.os, "fsync", full)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*last.pt: No space left"):
        make(Batches(fill)).fit()
    assert load(tmp_path)["progress"]["epoch"] == 1
    monkeypatch.undo()
    continued, whole = make(), make()
    continued.load_state(load(tmp_path))
    continued.fit()
    whole.fit()
    assert_equal_weights(continued.step.model.state_dict(), whole.step.model.state_dict())


def test_epochs_are_written_to_the_history(make, tmp_path):
    right, accuracies = [], []

    def loss(logits, labels):
        right.append(float((logits.argmax(dim=1) == labels).float().mean()))
        if len(right) == 5:
            accuracies.append(sum(right) / 5)
            right.clear()
        return F.cross_entropy(logits, labels)

    make(loss=loss, evaluate=scores(0.25)).fit()
    lines = read_history(tmp_path / "history.jsonl")
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 5), (2, 10), (3, 15)]
    assert [line["train/accuracy"] for line in lines] == pytest.approx(accuracies)
    assert [line["train/lr"] for line in lines] == [0.05, 0.025, 0.0125]
    assert [line.get("target/mAP") for line in lines] == [None, None, 0.25]


def test_history_of_a_run_that_was_stopped_is_that_of_one_that_was_not(make, tmp_path):
    make(evaluate=scores(0.1, 0.2, 0.3), eval_freq=1).fit()
    whole = (tmp_path / "history.jsonl").read_bytes()
    for path in [*(tmp_path / "checkpoints").iterdir(), tmp_path / "history.jsonl"]:
        path.unlink()

    def fail(epoch, number):
        if (epoch, number) == (1, 2):
            raise UserError("broken image")

    with pytest.raises(UserError):
        make(Batches(fail), evaluate=scores(0.1), eval_freq=1).fit()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "step": 10}\n{"epo')  # killed between the line and the checkpoint, then in the line
    continued = make(evaluate=scores(0.2, 0.3), eval_freq=1)
    continued.load_state(load(tmp_path))
    continued.fit()
    assert (tmp_path / "history.jsonl").read_bytes() == whole


@pytest.mark.parametrize("method", ["write_epoch", "write_step"])
def test_full_disk_under_the_history_costs_nothing_else(make, tmp_path, monkeypatch, caplog, method):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if method == "write_epoch":
        monkeypatch.setattr("engine.history._format_line", full)
    else:
        monkeypatch.setattr("engine.history.SummaryWriter.add_scalar", full)
    make(print_freq=1).fit()
    assert len([r for r in caplog.records if "No space left on device; the run goes on" in r.getMessage()]) == 1
    assert load(tmp_path)["progress"]["epoch"] == 3


def test_layers_that_learn_change_with_the_epoch_and_the_network_is_wrapped_anew(make):
    """DistributedDataParallel counts on it."""
    learning, bodies = [], []
    trainer = make(fixbase_epoch=2, max_epoch=4)

    def wrap():
        learning.append(sorted(name for name, p in trainer.step.model.named_parameters() if p.requires_grad))
        return trainer.step.model

    trainer.step.wrap = wrap
    trainer.batches = Batches(lambda epoch, number: bodies.append(trainer.step.model.body.weight.detach().clone()))
    trainer.fit()
    everything = ["body.bias", "body.weight", "classifier.bias", "classifier.weight"]
    assert learning == [everything[2:], everything]
    assert all(torch.equal(bodies[0], b) for b in bodies[:11])
    assert not torch.equal(bodies[0], bodies[11])


def test_parameter_out_of_reach_is_a_defect(make):
    trainer = make()
    trainer.step.model.extra = nn.Parameter(torch.ones(1))
    with pytest.raises(RuntimeError, match="no gradient reaches 1 parameters: extra"):
        trainer.fit()


def test_log_tells_speed_and_memory(make, caplog):
    caplog.set_level("INFO")
    make(max_epoch=1, print_freq=2).fit()
    lines = [r.getMessage() for r in caplog.records if "images/s" in r.getMessage()]
    assert [line.split("batch ")[1].split()[0] for line in lines] == ["2/5", "4/5", "5/5"]
    assert all("GiB memory" in line and "forward, backward" in line for line in lines)


def test_an_image_counts_once_in_the_speed_however_many_steps_it_takes_part_in(make, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(Stopwatch, "total", lambda watch: 2.0)
    trainer = make(max_epoch=1, print_freq=5)
    trainer.task.repeats = 3
    trainer.fit()
    assert "  10 images/s" in caplog.text  # 20 in two seconds


def test_gradients_that_stay_zero_are_warned_of(make, caplog):
    trainer = make(loss=lambda logits, labels: F.cross_entropy(logits.detach() + 0 * logits + 0 * logits.sum(), labels))
    trainer.fit()
    assert "the gradient was 0 throughout the first 2 steps in the whole network" in caplog.text


def test_moving_average_of_the_weights(make, tmp_path):
    """It is what its recursion gives, also over a stop, and what is scored is what best.pt keeps."""
    seen = []

    def make_averaged(**more):
        trainer = make(ema_decay=0.8, evaluate=scores(0.5, 0.4), eval_epochs=(1,), max_epoch=2, **more)
        trainer.scored_state = trainer.step.average.module.state_dict
        after = trainer.task.after_step

        def note():
            after()
            seen.append(trainer.step.model.body.weight.detach().clone())

        trainer.task.after_step = note
        return trainer

    whole = make_averaged()
    whole.fit()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.8 * expected + 0.2 * weight
    averaged = whole.step.average.module.body.weight
    assert torch.allclose(averaged, expected, atol=1e-6)
    best = load(tmp_path, "best.pt")
    assert "progress" not in best
    assert not torch.equal(best["model"]["body.weight"], averaged)  # that of the first epoch was better

    def fail(epoch, number):
        if (epoch, number) == (1, 3):
            raise UserError("broken image")

    with pytest.raises(UserError):
        make_averaged(batches=Batches(fail)).fit()
    continued = make_averaged()
    continued.load_state(load(tmp_path))
    continued.fit()
    assert torch.equal(continued.step.average.module.body.weight, averaged)
