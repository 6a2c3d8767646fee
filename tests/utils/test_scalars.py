"""TensorBoard's event files, read back by TensorBoard."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from utils.scalars import Scalars

FULL = Path("/dev/full")


def read(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(name)]


def test_numbers_are_read_back(tmp_path):
    with Scalars(tmp_path, 1) as scalars:
        scalars.write({"train/loss": 0.5, "nas/entropy": 1.25}, 1)
        assert read(tmp_path, "train/loss") == [(1, 0.5)]  # while it runs, too
        scalars.write({"train/loss": 0.25}, 2)
    assert read(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert read(tmp_path, "nas/entropy") == [(1, 1.25)]


def test_a_run_that_continues_takes_back_what_came_after(tmp_path, monkeypatch):
    with Scalars(tmp_path, 1) as scalars:
        for step in (1, 2, 3):
            scalars.write({"a": step}, step)
    monkeypatch.setattr("utils.scalars.time.time", lambda: 4e9)  # a later file
    with Scalars(tmp_path, 2) as scalars:
        scalars.write({"a": 20}, 2)
    assert read(tmp_path, "a") == [(1, 1.0), (2, 20.0)]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_full_disk_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: open(FULL, mode, buffering))  # noqa: PTH123, SIM115
    with Scalars(tmp_path, 1) as scalars:
        scalars.write({"a": 1}, 1)
        scalars.write({"a": 2}, 2)
    assert len(caplog.records) == 1
    assert "No space left on device; the run goes on" in caplog.text


def test_folder_that_takes_no_file_is_told(tmp_path, caplog):
    with Scalars(tmp_path / "missing", 1) as scalars:
        scalars.write({"a": 1}, 1)
    assert "No such file" in caplog.text


def test_half_an_event_is_taken_back(tmp_path, caplog):
    """A disk that becomes full takes a part; what is written when there is room again must be read."""
    with Scalars(tmp_path, 1) as scalars:
        scalars.write({"a": 1}, 1)
        file = scalars._file

        class Filling:
            truncate, fileno, left = file.truncate, file.fileno, 1

            def write(self, content):
                if not self.left:
                    raise OSError(28, "No space left on device")
                self.left -= 1
                return file.write(content[:7])

        scalars._file = Filling()
        scalars.write({"a": 2}, 2)
        scalars._file = file
        scalars.write({"a": 3}, 3)
    assert read(tmp_path, "a") == [(1, 1.0), (3, 3.0)]
    assert len(caplog.records) == 1
