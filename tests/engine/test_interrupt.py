"""Stop signals: held back, let through, the second one, forked processes."""

import os
import signal

import pytest

from engine.interrupt import EXIT_CODES, Interrupted, StopRequest


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signal_outside_of_a_step_acts_at_once(tmp_path, number):
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}
    with StopRequest(tmp_path / "last.pt"), pytest.raises(Interrupted, match="before anything was saved") as caught:
        signal.raise_signal(number)
    assert caught.value.exit_code == codes[number]


def test_held_signal_is_remembered_and_announced(tmp_path, capfd):
    (tmp_path / "last.pt").touch()
    with StopRequest(tmp_path / "last.pt") as stop:
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            assert stop.received is signal.SIGTERM
            with pytest.raises(Interrupted, match=rf"continue with: model.resume {tmp_path}/last.pt"), stop.released():
                pytest.fail("a signal from before must act here")
        assert stop.exit_code == 143
    assert "SIGTERM received" in capfd.readouterr().err


def test_released_inside_of_held(tmp_path):
    with StopRequest(None) as stop, stop.held():
        with pytest.raises(Interrupted), stop.released():
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)  # held again
        assert stop.received is signal.SIGTERM


def test_second_signal_has_no_handler_but_another_kind_has(tmp_path):
    with StopRequest(None, announce=False) as stop, stop.held():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)  # as torchrun sends after a Ctrl-C
        assert stop.received is signal.SIGTERM


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in EXIT_CODES]
    with StopRequest(None):
        assert [signal.getsignal(number) for number in EXIT_CODES] != before
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
