"""The log, tables and durations."""

import logging

import pytest

from utils.log import format_duration, format_table, progress, start_log


def test_lines_go_to_terminal_and_file_once(tmp_path, capsys):
    start_log(None)
    start_log(tmp_path / "train.log")
    logging.getLogger("a").info("hello %d", 3)
    assert capsys.readouterr().out == "hello 3\n"
    [line] = (tmp_path / "train.log").read_text().splitlines()
    assert line.endswith("INFO hello 3")


def test_file_is_continued(tmp_path):
    for text in ("first", "second"):
        start_log(tmp_path / "train.log")
        logging.getLogger("a").info(text)
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "second"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (-3, "0:00:00"), (360000, "100:00:00")]
)
def test_duration(seconds, text):
    assert format_duration(seconds) == text


def test_table_is_aligned():
    text = format_table(["name", "value"], [["a", 1], ["longer", 22]])
    assert text.splitlines() == ["name    value", "------  -----", "a           1", "longer     22"]


def test_no_bar_without_a_terminal(capsys):
    assert list(progress([1, 2], 2, "label")) == [1, 2]
    assert capsys.readouterr().err == ""
