"""The log, tables and durations."""

import io
import logging
import os
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
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


def test_a_pipe_in_the_files_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(UserError, match="there is a pipe of that name"):
        start_log(tmp_path / "train.log")


def test_file_of_another_process_is_refused(tmp_path):
    start_log(tmp_path / "train.log")
    if not (pid := os.fork()):
        try:
            start_log(tmp_path / "train.log")
        except UserError as error:
            os._exit(17 if "another run is still writing" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
    start_log(tmp_path / "train.log")  # the one that has it may go on


def test_names_that_are_not_utf8_are_told(tmp_path):
    """In a process of its own: what pytest captures of such names, its workers cannot send."""
    if not (pid := os.fork()):
        sys.stdout = io.TextIOWrapper((tmp_path / "stdout").open("wb"), encoding="utf-8")
        start_log(tmp_path / "train.log")
        logging.getLogger("a").info("%s", os.fsdecode(b"t\xeate.jpg"))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for name in ("stdout", "train.log"):
        assert "t\\udceate.jpg" in (tmp_path / name).read_text()


def test_full_disk_is_told_once(capsys):
    start_log(Path("/dev/full"))
    for _ in range(3):
        logging.getLogger("a").info("hello")
    output = capsys.readouterr()
    assert output.out == "hello\n" * 3
    assert output.err == "cannot write /dev/full: No space left on device; the run goes on\n"


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


@pytest.fixture
def clock(monkeypatch):
    """Lets a test set the seconds that have passed."""
    now = [0.0]
    monkeypatch.setattr("utils.log.time.monotonic", lambda: now[0])
    return now


def test_line_in_the_log_every_half_a_minute(clock, caplog):
    """With the time that is left at the pace so far."""
    caplog.set_level(logging.INFO)
    for _ in progress(range(10), 10, "features"):
        clock[0] += 20
    assert [record.getMessage() for record in caplog.records] == [
        "features: 2 of 10 (20%) done, 0:02:40 left",
        "features: 4 of 10 (40%) done, 0:02:00 left",
        "features: 6 of 10 (60%) done, 0:01:20 left",
        "features: 8 of 10 (80%) done, 0:00:40 left",
    ]


def test_number_of_items_may_be_unknown(clock, caplog):
    caplog.set_level(logging.INFO)
    for _ in progress(range(3), None, "files"):
        clock[0] += 40
    assert [record.getMessage() for record in caplog.records] == ["files: 1 done", "files: 2 done"]


@pytest.mark.parametrize(("level", "in_log", "pace"), [("WARNING", True, 40), ("INFO", False, 40), ("INFO", True, 2)])
def test_no_line_for_what_is_quick_or_silenced_or_has_its_own(clock, caplog, level, in_log, pace):
    caplog.set_level(level)
    for _ in progress(range(10), 10, "features", in_log=in_log):
        clock[0] += pace
    assert not caplog.records
