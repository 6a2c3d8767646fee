"""Stop signals: held back, let through, the second one, before anything began, forked processes."""

import logging
import os
import signal
import subprocess
import sys

import pytest

from engine.interrupt import EXIT_CODES, Interrupted, StopRequest, leaving_at_once
from tests.fork_server import ROOT


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signal_outside_of_a_step_acts_at_once(tmp_path, number):
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 0}
    with StopRequest(tmp_path / "last.pt"), pytest.raises(Interrupted, match="before anything was saved") as caught:
        signal.raise_signal(number)
    assert str(caught.value).startswith(f"stopped by {number.name} ")
    assert caught.value.exit_code == codes[number]


def test_held_signal_is_remembered_and_announced(tmp_path, capfd):
    (tmp_path / "last.pt").touch()
    with StopRequest(tmp_path / "last.pt") as stop:
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            assert stop.received is signal.SIGTERM
            stop.resume = "python main.py model.resume auto"
            with pytest.raises(Interrupted, match=rf"continue with: {stop.resume}$"), stop.released():
                pytest.fail("a signal from before must act here")
        assert stop.exit_code == 143
    assert "SIGTERM received" in capfd.readouterr().err


def test_released_inside_of_held():
    with StopRequest() as stop, stop.held():
        with stop.released():
            pass
        signal.raise_signal(signal.SIGTERM)  # held again
        assert stop.received is signal.SIGTERM
    with StopRequest() as stop, stop.held(), pytest.raises(Interrupted), stop.released():
        signal.raise_signal(signal.SIGUSR1)


def test_only_the_first_signal_ends_the_run(capfd):
    """As torchrun does, SIGTERM comes to a process that is about to end."""
    with StopRequest() as stop, stop.held(quietly=True):
        with pytest.raises(Interrupted) as caught, stop.released():
            signal.raise_signal(signal.SIGINT)
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
        assert (caught.value.exit_code, stop.exit_code) == (130, 130)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with StopRequest() as stop, stop.held(quietly=True):
        signal.raise_signal(signal.SIGTERM)
        assert stop.received is signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_handlers_of_errors_do_not_swallow_it():
    """Python's logging, for one, goes on after any exception."""

    class Interrupting(logging.StreamHandler):
        def format(self, record):
            signal.raise_signal(signal.SIGTERM)
            return ""

    with StopRequest(), pytest.raises(Interrupted):
        Interrupting().emit(logging.makeLogRecord({}))


def test_announcement_survives_the_end_of_the_terminal(monkeypatch):
    def write(descriptor, text):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", write)
    with StopRequest() as stop, stop.held():
        signal.raise_signal(signal.SIGHUP)
        assert stop.received is signal.SIGHUP


def test_nohup_keeps_its_meaning():
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leaving_at_once(), StopRequest():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, earlier)


@pytest.mark.parametrize(("number", "rank", "lines"), [
    *[(number, "0", 1) for number in EXIT_CODES], (signal.SIGTERM, "1", 0),
])  # fmt: skip
def test_leaving_at_once_is_one_line_and_the_code(capfd, monkeypatch, number, rank, lines):
    monkeypatch.setenv("RANK", rank)
    pid = os.fork()
    if pid == 0:
        try:
            with leaving_at_once():
                signal.raise_signal(number)
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_CODES[number]
    assert capfd.readouterr().err == "stopped, there was nothing to save\n" * lines


def test_main_listens_before_the_imports_that_take_time():
    code = "import sys, engine.interrupt; sys.exit('torch' in sys.modules or 'yacs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_second_signal_has_no_handler_but_another_kind_has(tmp_path):
    with StopRequest(None, announce=False) as stop, stop.held():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)  # as torchrun sends after a Ctrl-C
        assert stop.received is signal.SIGTERM


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in EXIT_CODES]
    for listening in (StopRequest(), leaving_at_once()):
        with listening:
            assert all(signal.getsignal(n) != b for n, b in zip(EXIT_CODES, before, strict=True))
    assert [signal.getsignal(number) for number in EXIT_CODES] == before


def test_forked_process_is_deaf():
    with StopRequest(None):
        pid = os.fork()
        if pid == 0:
            try:
                for number in EXIT_CODES:
                    signal.raise_signal(number)
            finally:
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
