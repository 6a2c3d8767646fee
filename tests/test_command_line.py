"""The command line: flags and settings in any order, in Torchreid's forms, and one line for what is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import collect_overrides, parse_arguments
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


@settings(deadline=None)
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
