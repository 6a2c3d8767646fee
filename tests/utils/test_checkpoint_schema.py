"""A checkpoint to continue from: what a sound one passes, and each fault that is one line."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RAdam, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

from utils.checkpoint import find_last, load_checkpoint, save_checkpoint, save_last
from utils.checkpoint_schema import PARTS, check_fits_run, check_training_checkpoint, load_training_checkpoint
from utils.errors import UserError
from utils.seed import capture_random_states

NUM_BATCHES = 7
OPTIMIZERS = {
    "adam": lambda parameters: Adam(parameters, lr=0.01),
    "amsgrad": lambda parameters: Adam(parameters, lr=0.01, amsgrad=True),
    "sgd": lambda parameters: SGD(parameters, lr=0.01, momentum=0.9),
    "plain sgd": lambda parameters: SGD(parameters, lr=0.01),
    "rmsprop": lambda parameters: RMSprop(parameters, lr=0.01, momentum=0.9),
    "radam": lambda parameters: RAdam(parameters, lr=0.01),
}
SCHEDULERS = {
    "single_step": lambda optimizer: StepLR(optimizer, 1),
    "multi_step": lambda optimizer: MultiStepLR(optimizer, [1, 2]),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 3),
}


class Run:
    """A tiny training, one step per epoch, and its checkpoint in the middle of its second epoch."""

    def __init__(self, optimizer="adam", scheduler="single_step", scaler=False):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            OrderedDict(body=nn.Linear(4, 3), norm=nn.BatchNorm1d(3), classifier=nn.Linear(3, 2))
        )
        self.optimizers = {"weights": OPTIMIZERS[optimizer](self.model.parameters())}
        self.schedulers = {"weights": SCHEDULERS[scheduler](self.optimizers["weights"])}
        self.scaler = torch.amp.GradScaler("cpu", enabled=scaler)
        self.step()
        self.schedulers["weights"].step()
        self.step()

    def step(self):
        self.optimizers["weights"].zero_grad()
        self.model(torch.randn(5, 4)).square().sum().backward()
        self.optimizers["weights"].step()

    def state(self, **progress):
        """Returns the checkpoint's content."""
        counts = {
            "epoch": 1,
            "batch": 3,
            "loss_sum": 2.5,
            "num_correct": 9,
            "num_seen": 15,
            "num_steps": 3,
            "best": 0.4,
        }
        return copy.deepcopy(
            {
                "kind": "search",
                "identity": {"name": "osnet_child", "width": 0.25, "genotype": ["OSBlock"] * 6},
                "config": {"train.lr": 0.01, "train.max_epoch": 9, "data.sources": ["a"], "train.amp": "off"},
                "images": "0123456789ab",
                "progress": {**counts, "loss_sum": 2.5, "best": 0.4, **progress},
                "model": self.model.state_dict(),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
                "scaler": self.scaler.state_dict(),
                "task": {"generator": torch.Generator().get_state()},
                "random": capture_random_states(),
            }
        )

    def check(self, document, num_batches=NUM_BATCHES, all_learnt=False):
        """Checks form and fit."""
        check_training_checkpoint(document, "last.pt")
        check_fits_run(
            document,
            "last.pt",
            kind="search",
            modules={"model": self.model},
            optimizers=self.optimizers,
            task={"generator": torch.Generator().get_state()},
            num_batches=num_batches,
            all_learnt=all_learnt,
        )


def assert_refused(run, document, word, **more):
    with pytest.raises(UserError) as caught:
        run.check(document, **more)
    message = str(caught.value)
    assert message.startswith("last.pt")
    assert word in message
    assert "\n" not in message


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_sound_checkpoint_passes_also_from_the_disk(tmp_path, optimizer, scheduler):
    run = Run(optimizer, scheduler, scaler=True)
    save_checkpoint(tmp_path / "last.pt", run.state())
    document = load_training_checkpoint(tmp_path / "last.pt")
    run.check(document, all_learnt=True)
    for name, current in run.optimizers.items():
        current.load_state_dict(document["optimizers"][name])


def test_places_in_a_run():
    run = Run()
    none = {"loss_sum": 0.0, "num_correct": 0, "num_seen": 0, "num_steps": 0}
    run.check(run.state(batch=0, **none))  # between two epochs
    run.check(run.state(batch=NUM_BATCHES))
    run.check(run.state(epoch=0, batch=NUM_BATCHES))  # the schedule has stepped, the epoch does not count yet
    run.check(run.state(epoch=0, batch=3), num_batches=None)  # of other images
    assert_refused(run, run.state(epoch=0, batch=3), "schedulers.weights.last_epoch is 1")
    assert_refused(run, run.state(epoch=0, batch=0, **none), "schedulers.weights.last_epoch is 1")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("epoch", -1, "progress.epoch is -1"),
        ("epoch", 1.0, "progress.epoch is 1.0"),
        ("epoch", True, "progress.epoch is True"),
        ("epoch", 5, "last_epoch is 1, expected is 5"),
        ("epoch", 10, "at most train.max_epoch, 9"),
        ("batch", 10**6, f"progress.batch is {10**6}, expected is at most {NUM_BATCHES}"),
        ("batch", "3", "progress.batch is '3'"),
        ("batch", 0, "progress.num_seen is 15"),
        ("loss_sum", math.nan, "progress.loss_sum is nan"),
        ("loss_sum", None, "progress.loss_sum is None"),
        ("num_correct", 16, "progress.num_correct is 16"),
        ("num_steps", 0, "progress.num_steps is 0"),
        ("best", "0.4", "progress.best is '0.4'"),
        ("best", math.inf, "progress.best is inf"),
        ("best", 40.0, "progress.best is 40.0"),
    ],
)
def test_damaged_progress(key, value, word):
    run = Run()
    assert_refused(run, run.state(**{key: value}), word)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("value", [None, ["a", "list"], 3, "gone"])
def test_each_part_must_be_there_and_of_its_type(name, value):
    run = Run()
    document = run.state()
    document[name] = value
    if value == "gone":
        del document[name]
    assert_refused(run, document, f"{name} is ")


def change(document, path, value):
    """Sets what is at a path of keys, or removes it where the value is ``...``."""
    *outer, last = path
    for key in outer:
        document = document[key]
    if value is ...:
        del document[last]
    else:
        document[last] = value


OPTIMIZER, SCHEDULER, RANDOM = ("optimizers", "weights"), ("schedulers", "weights"), ("random",)


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("config", "train.lr"), torch.zeros(1), "config is not plain"),
        (("config", 3), "three", "config is not plain"),
        (("config", "train.amp"), "fp16", "scaler is []"),
        (("identity", "genotype"), {1: 2}, "identity is not plain"),
        (("progress", "epoch"), ..., "progress is ['batch', 'best'"),
        (("progress", "more"), 1, "progress is ['batch', 'best', 'epoch', 'loss_sum', 'more'"),
        (("model", "body.bias"), ..., "1 missing: body.bias"),
        (("model", "body.bias"), None, "body.bias' is a NoneType"),
        (("model", "classifier.bias"), ..., "1 missing: classifier.bias"),
        (("model", "classifier.weight"), torch.zeros(4, 3), "classifier.weight (4×3 in the weights, 2×3"),
        (("model", "more"), torch.zeros(1), "1 not of this network: more"),
        (("model", "norm.running_var"), -torch.ones(3), "a variance below 0, in norm.running_var"),
        (("optimizers",), {}, "optimizers is empty"),
        (OPTIMIZER, ..., "optimizers is empty"),
        (("optimizers", "alphas"), {"state": {}, "param_groups": []}, "optimizers.alphas"),
        (OPTIMIZER, [], "expected is an optimiser's state"),
        ((*OPTIMIZER, "state"), {}, "optimizers.weights.state is empty"),
        ((*OPTIMIZER, "state"), [], "expected is an optimiser's state"),
        ((*OPTIMIZER, "state", 99), {}, "optimizers.weights.state is 7 parameters, expected is 6"),
        ((*OPTIMIZER, "state", 5), ..., "optimizers.weights.state is 5 parameters, expected is 6"),
        ((*OPTIMIZER, "state", 2, "exp_avg"), ..., "optimizers.weights.state.2 is"),
        ((*OPTIMIZER, "state", 2, "exp_avg"), torch.zeros(4), "optimizers.weights.state.2.exp_avg is (4,)"),
        ((*OPTIMIZER, "state", 2, "exp_avg"), torch.full((3,), math.nan), "optimizers.weights.state.2.exp_avg"),
        ((*OPTIMIZER, "state", 2, "exp_avg_sq"), -torch.ones(3), "optimizers.weights.state.2.exp_avg_sq"),
        ((*OPTIMIZER, "state", 2, "exp_avg"), torch.ones(3, dtype=torch.int64), "optimizers.weights.state.2.exp_avg"),
        ((*OPTIMIZER, "state", 2, "step"), torch.tensor(-1.0), "optimizers.weights.state.2.step"),
        ((*OPTIMIZER, "state", 2, "step"), "one", "optimizers.weights.state.2.step is 'one'"),
        ((*OPTIMIZER, "param_groups", 0, "params"), [0, 1, 2, 3, 4], "optimizers.weights.state is 6 parameters"),
        ((*OPTIMIZER, "param_groups", 0, "params"), [0, 0, 1, 2, 3, 4, 5], "expected is an optimiser's state"),
        ((*OPTIMIZER, "param_groups", 0, "params"), [0, 1, 2, 3, 4, 5, 6], "groups of [6] parameters"),
        ((*OPTIMIZER, "param_groups", 0, "lr"), -1.0, "expected is an optimiser's state"),
        ((*OPTIMIZER, "param_groups", 0, "lr"), 0.5, "schedulers.weights._last_lr is [0.001], expected is [0.5]"),
        (
            (*OPTIMIZER, "param_groups", 0, "betas"),
            (0.5, 0.5),
            "optimizers.weights.betas is (0.5, 0.5), expected is (0.9, 0.999)",
        ),
        ((*OPTIMIZER, "param_groups", 0, "amsgrad"), True, "optimizers.weights.amsgrad is True"),
        (("schedulers",), {}, "schedulers is []"),
        ((*SCHEDULER, "last_epoch"), 4, "schedulers.weights.last_epoch is 4, expected is 1"),
        ((*SCHEDULER, "last_epoch"), ..., "schedulers.weights.last_epoch is None"),
        ((*SCHEDULER, "_last_lr"), [0.5], "schedulers.weights._last_lr"),
        (SCHEDULER, None, "schedulers.weights.last_epoch is None"),
        (("scaler", "scale"), 2.0, "scaler is ['scale']"),
        (("task", "generator"), torch.zeros(10, dtype=torch.uint8), "task.generator is a tensor of (10,)"),
        (("kind",), "child", "kind is 'child', expected is 'search'"),
        (("seconds",), "long", "seconds is 'long', expected is a number from 0"),
        (("seconds",), math.nan, "seconds is nan"),
        (("seconds",), -1.0, "seconds is -1.0"),
        (("seconds",), 1e300, "seconds is 1e+300"),
        ((*SCHEDULER, "_step_count"), "x", "schedulers.weights._step_count is 'x'"),
        (("task", "generator"), ..., "task is [], expected is ['generator']"),
        (("task", "more"), 1, "task is ['generator', 'more']"),
        (("task", "generator"), None, "task.generator is None"),
        ((*RANDOM, "torch"), torch.zeros(5056), "random.torch"),
        ((*RANDOM, "torch"), ..., "random.torch is None"),
        ((*RANDOM, "python"), (3, [1, 2], None), "random.python"),
        ((*RANDOM, "python"), (3, [0] * 624 + [625], None), "random.python"),
        ((*RANDOM, "python"), (3, [-1] * 624 + [5], None), "random.python"),
        ((*RANDOM, "python"), (3, [1.5] * 625, None), "random.python"),
        ((*RANDOM, "numpy"), ("MT19937", torch.zeros(624, dtype=torch.int64), 10**6, 0, 0.0), "random.numpy"),
        ((*RANDOM, "numpy"), ("MT19937", torch.zeros(623, dtype=torch.int64), 0, 0, 0.0), "random.numpy"),
        ((*RANDOM, "numpy"), ("MT19937", torch.full((624,), -1), 0, 0, 0.0), "random.numpy"),
        ((*RANDOM, "numpy"), ("PCG64", torch.zeros(624, dtype=torch.int64), 0, 0, 0.0), "random.numpy"),
        ((*RANDOM, "numpy"), [], "random.numpy"),
        ((*RANDOM, "cuda"), [torch.zeros(3, dtype=torch.uint8)], "random.cuda"),
        ((*RANDOM, "cuda"), None, "random.cuda is None"),
    ],
)
def test_each_fault_is_one_line(path, value, word):
    run = Run()
    document = run.state()
    change(document, path, value)
    assert_refused(run, document, word, all_learnt=True)


def test_a_config_inside_itself_comes_to_an_end():
    run = Run()
    document = run.state()
    document["config"]["data.sources"] = document["config"]
    assert_refused(run, document, "config is not plain")


def test_parameters_that_had_no_step_yet():
    """Frozen layers, and candidates of a super-network that were not drawn."""
    run = Run()
    document = run.state()
    del document["optimizers"]["weights"]["state"][5]
    run.check(document)


@pytest.mark.parametrize("key", ["fused", "foreach"])
def test_how_an_optimiser_steps_may_change(key):
    """A checkpoint from before a faster step was chosen goes on."""
    run = Run()
    document = run.state()
    document["optimizers"]["weights"]["param_groups"][0][key] = True
    run.check(document)


def test_an_average_of_the_weights_is_checked_too():
    run = Run()
    average = torch.optim.swa_utils.AveragedModel(run.model)
    document = {**run.state(), "average": average.state_dict()}
    fits = {"kind": "search", "optimizers": run.optimizers, "task": document["task"], "num_batches": None}
    check_fits_run(document, "last.pt", modules={"model": run.model, "average": average}, **fits)
    del document["average"]["module.body.bias"]
    with pytest.raises(UserError, match=r"last\.pt: average: .*1 missing: module\.body\.bias"):
        check_fits_run(document, "last.pt", modules={"model": run.model, "average": average}, **fits)


def test_weights_alone_are_called_that(tmp_path):
    save_checkpoint(tmp_path / "child.pt", {"model": {}})
    with pytest.raises(UserError, match=r"child.pt holds a network's weights alone; start from them with model.load_w"):
        load_training_checkpoint(tmp_path / "child.pt")


def test_damaged_last_falls_back_to_the_one_before(tmp_path, caplog):
    run = Run()
    save_last(tmp_path, run.state(), keep=3)
    save_last(tmp_path, run.state(loss_sum=math.nan), keep=3)
    path, document = find_last(tmp_path, load_training_checkpoint)
    assert path == tmp_path / "last.1.pt"
    assert document["progress"]["loss_sum"] == 2.5
    assert "progress.loss_sum is nan" in caplog.text


def test_version_1_is_upgraded(tmp_path):
    """It had one optimiser and one schedule."""
    run = Run()
    state = run.state()
    optimizer, scheduler = state.pop("optimizers")["weights"], state.pop("schedulers")["weights"]
    save_checkpoint(tmp_path / "last.pt", {**state, "optimizer": optimizer, "scheduler": scheduler, "version": 1})
    document = load_training_checkpoint(tmp_path / "last.pt")
    run.check(document)
    assert document["version"] == load_checkpoint(tmp_path / "last.pt")["version"] == 2
    assert "optimizer" not in document
    assert "scheduler" not in document
