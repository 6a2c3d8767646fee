"""A run's numbers over time, read back; TensorBoard's by TensorBoard."""

import io
import os
import threading

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from engine.history import History, read_history


def read_events(folder, name):
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(name)]


def test_numbers_are_read_back(tmp_path):
    with History(tmp_path, 0, 0) as history:
        history.write_step({"train/loss": 0.75}, 5)
        assert read_events(tmp_path, "train/loss") == [(5, 0.75)]  # while it runs, too
        history.write_step({"train/loss": 0.5}, 10)
        history.write_epoch({"train/loss": 0.5, "nas/entropy": 1.25}, 1, 10)
    assert read_events(tmp_path, "train/loss") == [(5, 0.75), (10, 0.5)]
    assert read_events(tmp_path, "nas/entropy") == [(10, 1.25)]
    assert read_history(tmp_path / "history.jsonl") == [
        {"epoch": 1, "step": 10, "train/loss": 0.5, "nas/entropy": 1.25}
    ]


def test_a_run_that_continues_takes_back_what_came_after(tmp_path, monkeypatch):
    with History(tmp_path, 0, 0) as history:
        for epoch in (1, 2, 3):
            history.write_epoch({"a": epoch}, epoch, 10 * epoch)
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time.time", lambda: 4e9)  # a later file
    with History(tmp_path, 1, 14) as history:
        history.write_epoch({"a": 20}, 2, 20)
    assert read_events(tmp_path, "a") == [(10, 1.0), (20, 20.0)]
    assert [(line["epoch"], line["a"]) for line in read_history(tmp_path / "history.jsonl")] == [(1, 1), (2, 20)]


def test_half_a_line_costs_itself_alone(tmp_path):
    with History(tmp_path, 0, 0) as history:
        history.write_epoch({"a": 1}, 1, 10)
    path = tmp_path / "history.jsonl"
    path.write_text(path.read_text() + '{"epoch": 2, "step": 20, "a"')  # as a disk that fills up leaves it
    with path.open("a") as file:
        file.write(
            '\n{"epoch": 3, "step": 30, "a": 3}\n7\n{"epoch": "4"}\n{"epoch": 5, "a": null}\n' + "[" * 100_000 + "\n"
        )
    assert [line["epoch"] for line in read_history(path)] == [1, 3]
    with History(tmp_path, 3, 30) as history:
        history.write_epoch({"a": 4}, 4, 40)
    assert [line["epoch"] for line in read_history(path)] == [1, 3, 4]


def test_a_line_after_a_failed_one_stands_alone(tmp_path, monkeypatch):
    with History(tmp_path, 0, 0) as history:
        history.write_epoch({"a": 1}, 1, 10)
        with monkeypatch.context() as patch:
            patch.setattr(history, "_path", type(tmp_path)("/dev/full"))
            history.write_epoch({"a": 2}, 2, 20)
        with (tmp_path / "history.jsonl").open("a") as file:
            file.write('{"epoch": 2')  # what a full disk may have taken of it
        history.write_epoch({"a": 3}, 3, 30)
    assert [line["epoch"] for line in read_history(tmp_path / "history.jsonl")] == [1, 3]


def test_a_folder_whose_name_is_not_utf8_costs_tensorboard_alone(tmp_path, monkeypatch):
    said = []  # not through pytest's log, which xdist cannot send on with such a name in it
    monkeypatch.setattr("engine.history.logger.warning", lambda text, *values: said.append(text % values))
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    with History(folder, 0, 0) as history:
        history.write_epoch({"a": 1}, 1, 10)
    assert read_history(folder / "history.jsonl") == [{"epoch": 1, "step": 10, "a": 1}]
    (line,) = said
    assert line.startswith("cannot write TensorBoard's events in ")


def test_no_history_is_empty(tmp_path):
    assert read_history(tmp_path / "history.jsonl") == []
    os.mkfifo(tmp_path / "history.jsonl")
    assert read_history(tmp_path / "history.jsonl") == []


def test_full_disk_under_tensorboard_is_reported_once_and_in_one_line(tmp_path, monkeypatch, caplog, capfd):
    opened = io.open

    def open_full(path, mode="r", *rest, **more):
        return opened("/dev/full" if "tfevents" in str(path) else path, mode, *rest, **more)

    monkeypatch.setattr(io, "open", open_full)
    with History(tmp_path, 0, 0) as history:
        for step in range(1, 4):
            history.write_epoch({"a": step}, step, step)
    assert [r.getMessage() for r in caplog.records] == [
        f"cannot write TensorBoard's events in {tmp_path}: No space left on device; the run goes on"
    ]
    assert capfd.readouterr().err == ""
    assert len(read_history(tmp_path / "history.jsonl")) == 3


def test_errors_of_other_threads_are_still_shown(tmp_path, capfd):
    with History(tmp_path, 0, 0):
        threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("seen"), None, None)))
    assert "ValueError: seen" in capfd.readouterr().err
