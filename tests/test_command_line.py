"""The command line: flags and settings in any order, in Torchreid's forms, and one line for what is none."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import build_next_steps, collect_overrides, parse_arguments, write_command
from config_keys import KEYS
from default_config import load_config
from utils.errors import UserError


def read(*words: str) -> dict[str, object]:
    return collect_overrides(parse_arguments(words))


def test_flags_may_follow_pairs() -> None:
    arguments = parse_arguments(["test.eval_freq", "-1", "--root", "x", "train.lr", "0.1"])
    assert arguments.root == "x"
    assert arguments.settings == ["test.eval_freq", "-1", "train.lr", "0.1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-s market1501 train.lr 0.1", {"data.sources": ["market1501"], "train.lr": "0.1"}),
        ("-s a b use_gpu False -t c", {"data.sources": ["a", "b"], "use_gpu": "False", "data.targets": ["c"]}),
        ("-s a,b -t c, d", {"data.sources": ["a", "b"], "data.targets": ["c", "d"]}),
        ("-s a -s b", {"data.sources": ["a", "b"]}),
        ("--sources=a,b c", {"data.sources": ["a", "b", "c"]}),
        ("-s folder:x train.lr=0.1 --root y", {"data.sources": ["folder:x"], "train.lr": "0.1", "data.root": "y"}),
        ("train.lr=0.1 data.save_dir=a=b", {"train.lr": "0.1", "data.save_dir": "a=b"}),
        ("model.load_weights a=b.pt", {"model.load_weights": "a=b.pt"}),
        ("train.lr 0.1 -s a train.lr 0.2 --root x train.lr 0.3", {"train.lr": "0.3"}),
        ("train.lr 0.3 -s a train.lr 0.2", {"train.lr": "0.2"}),
        ("train.weight_decay -1e-3 data.save_dir -x", {"train.weight_decay": "-1e-3", "data.save_dir": "-x"}),
        ("--root=-x --transforms random_flip", {"data.root": "-x", "data.transforms": ["random_flip"]}),
        ("--root -x -- train.lr 1", {"data.root": "-x", "train.lr": "1"}),
        ("--root x data.root y", {"data.root": "y"}),
    ],
)
def test_words_become_settings(words: str, expected: dict[str, object]) -> None:
    found = read(*words.split())
    assert {key: found[key] for key in expected} == expected


def test_an_empty_root_or_config_file_is_not_the_default() -> None:
    assert read("--root", "") == {"data.root": ""}
    assert parse_arguments(["--config-file", ""]).config_file == ""
    with pytest.raises(UserError, match="the config file's name is empty"):
        load_config([""])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--evaluate", "unknown option --evaluate; settings have no dashes: test.evaluate True"),
        ("--max-epoch 5", "unknown option --max-epoch; settings have no dashes: train.max_epoch VALUE"),
        ("--train.lr=5", "unknown option --train.lr; settings have no dashes: train.lr VALUE"),
        ("--configfile x", "unknown option --configfile; did you mean '--config-file'?"),
        ("-1", "unknown option -1"),
        ("train.lr", "the key 'train.lr' has no value; settings come as KEY VALUE pairs"),
        ("train.lr --root x", "the key 'train.lr' has no value"),
        ("-s a train.lr", "the key 'train.lr' has no value"),
        (
            "nas.yaml",
            "the key 'nas.yaml' has no value; settings come as KEY VALUE pairs; did you mean --config-file",
        ),
        ("--root", "argument --root: expected one argument; python main.py --help"),
        ("--root --sources x", "argument --root: expected one argument"),
        ("-s", "argument -s/--sources: expected at least one argument"),
    ],
)
def test_what_is_no_command_line_is_one_line(words: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        read(*words.split())
    assert told in str(caught.value)


def read_command(command: str) -> tuple[str | None, dict[str, object]]:
    program, file, *words = shlex.split(command)
    assert (program, file) == ("python", "main.py")
    arguments = parse_arguments(words)
    return arguments.config_file, collect_overrides(arguments)


def test_a_command_line_is_written_as_a_shell_takes_it() -> None:
    words = ["--config-file", "a b.yaml", "-s", "x", "y", "train.lr=0.1", "data.save_dir", "", "model.resume", "old.pt"]
    found = read_command(write_command(words, {"model.resume": "auto"}))
    expected = {"data.sources": ["x", "y"], "train.lr": "0.1", "data.save_dir": "", "model.resume": "auto"}
    assert found == ("a b.yaml", expected)


def test_next_steps_of_a_trained_child() -> None:
    words = ["--root", "my data", "-t", "a", "b", "train.lr", "0.1", "model.genotype", "osnet", "data.save_dir", "o",
             "model.name", "osnet_child"]  # fmt: skip
    steps = build_next_steps(load_config([], read(*words)), words)
    *evaluations, (_, export) = steps.items()
    kept = {"data.root": "my data", "data.targets": ["a", "b"], "data.save_dir": "o", "model.name": "osnet_child"}
    evaluated = {**kept, "test.evaluate": "True", "model.load_weights": "o/checkpoints/best.pt"}
    pictures = {"test.visrank": "True", "test.visactmap": "True"}
    for (_, command), more in zip(evaluations, ({"test.flip": "True", "test.rerank": "True"}, pictures), strict=True):
        assert read_command(command)[1] == evaluated | more
    assert export == "python -m tools.export_onnx o/checkpoints/best.pt o/child.onnx"


def test_next_steps_of_an_evaluation_are_others() -> None:
    words = ["model.name", "osnet_child", "test.evaluate", "True", "model.load_weights", "w.pt", "test.rerank", "True"]
    steps = build_next_steps(load_config([], read(*words)), words)
    assert list(steps) == ["draw ranked lists and activation maps", "export it"]
    assert read_command(next(iter(steps.values())))[1]["model.load_weights"] == "w.pt"


@pytest.mark.parametrize(("config", "trained"), [("nas.yaml", None), ("quickstart.yaml", "quickstart_short.yaml")])
def test_next_step_of_a_search_trains_what_it_found_on_the_same_images(config: str, trained: str | None) -> None:
    words = ["--config-file", config, "data.targets", "[]", "data.save_dir", "log/x y"]
    cfg = load_config([config], read(*words))
    network = load_config([trained or config], {} if trained else {"model.width": 0.25})
    (command,) = build_next_steps(cfg, words, network).values()
    file, overrides = read_command(command)
    child = load_config([file or ""], overrides)
    assert (child.model.name, child.model.width, child.model.genotype) == ("osnet_child", 0.25, "log/x y/genotype.json")
    assert child.data.save_dir == "log/x y_child"
    for key in ("root", "sources", "targets", "combineall"):
        assert child.data[key] == cfg.data[key], key
    for key in ("height", "width", "norm_mean"):
        assert child.data[key] == network.data[key], key


def test_evaluations_of_a_super_network_have_no_next_step() -> None:
    assert build_next_steps(load_config([], {"test.evaluate": True, "model.load_weights": "x"}), []) == {}


@given(words=st.lists(
    st.sampled_from(["-s", "--root", "train.lr", "train.lr=", "0.1", "--", "-", "--root=", "=", "use_gpu", "model.name",
                     "data.sources", "[", "(a", "{}", "[]", "9" * 5000, "²", "-1", "1e300", "\ud800", "a\nb", "~"])
    | st.sampled_from(sorted(KEYS)) | st.text(max_size=5),
    max_size=10,
))  # fmt: skip
def test_any_command_line_is_a_config_or_one_line(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        return
    try:
        assert load_config([], read(*words)).is_frozen()
    except UserError as error:
        assert str(error).isprintable()
