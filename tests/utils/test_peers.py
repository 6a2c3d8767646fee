"""Processes that find each other in a store that others have used, and that end together."""

import contextlib
import signal
import threading
import time
from datetime import timedelta

import pytest
from torch import distributed

from utils import peers as module
from utils.errors import UserError
from utils.peers import Peers, keep_to_ourselves


def meet(store, world_size, missing=None):
    """Lets all processes meet, as threads; returns their parts of the store."""
    found = {}

    def join(rank):
        with contextlib.suppress(UserError):
            found[rank] = keep_to_ourselves(store, rank, world_size)

    threads = [threading.Thread(target=join, args=(r,)) for r in range(world_size) if r != missing]
    for thread in reversed(threads):  # rank 0 comes last
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return found


def test_processes_meet_apart_from_those_before_them():
    """The store of torchrun may outlive a restart; a machine that takes the place of a lost one counts from 0 again."""
    store = distributed.HashStore()
    for attempt in range(3):
        parts = meet(store, 3)
        assert sorted(parts) == [0, 1, 2]
        assert not any(part.check(["key"]) for part in parts.values()), attempt
        parts[2].set("key", str(attempt))
        assert {part.get("key") for part in parts.values()} == {str(attempt).encode()}


@pytest.mark.parametrize("missing", [0, 2])
def test_nobody_goes_on_with_the_answer_to_a_process_before(monkeypatch, missing):
    store = distributed.HashStore()
    assert len(meet(store, 3)) == 3
    monkeypatch.setattr(module, "default_pg_timeout", timedelta(seconds=0.5))
    assert 0 not in meet(store, 3, missing)


@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_never_comes_is_one_line(monkeypatch, rank):
    monkeypatch.setattr(module.time, "monotonic", iter(range(0, 9000, 1000)).__next__)
    with pytest.raises(UserError, match="the 2 processes of this run did not find each other"):
        keep_to_ourselves(distributed.HashStore(), rank, 2)


@pytest.fixture
def ended(monkeypatch):
    """Records exit codes in place of ending the process."""
    codes, seen = [], threading.Event()
    monkeypatch.setattr(module, "_POLL_SEC", 0.01)
    monkeypatch.setattr(module, "_GRACE_SEC", 0.05)

    def end(code):
        codes.append(code)
        seen.set()

    monkeypatch.setattr(module.os, "_exit", end)
    return codes, seen


def test_other_process_ends_with_the_first_one(ended):
    codes, seen = ended
    store = distributed.HashStore()
    one, other = Peers(store, 1, 2), Peers(store, 0, 2)
    assert one.announce(143) is None
    assert other.announce(2) == 143
    one.close()
    assert seen.wait(5)
    assert codes == [143]
    other.close()


def test_process_that_ends_by_itself_is_left_alone(ended):
    peers = Peers(distributed.HashStore(), 0, 1)
    assert peers.announce(143) is None
    peers.close()
    assert ended[0] == []


def test_first_process_waits_until_the_others_have_heard(monkeypatch):
    """It may take the store with it."""
    monkeypatch.setattr(module, "_POLL_SEC", 0.01)
    store = distributed.HashStore()
    one, other = Peers(store, 0, 2), Peers(store, 1, 2)
    assert one.announce(0) is None
    monkeypatch.setattr(other, "_store", None)  # gone
    assert other.announce(2) == 0
    for peers in (one, other):
        peers.close()


@pytest.mark.parametrize(("rank", "told"), [(0, None), (1, 143)])
def test_without_a_store_rank_0_alone_speaks(monkeypatch, rank, told):
    class Gone:
        def check(self, keys):
            raise distributed.DistNetworkError

        compare_set = check

        def __init__(self, *words):
            pass

    peers = Peers(Gone(), rank, 2)
    monkeypatch.setattr(peers, "_store", Gone())
    monkeypatch.setattr(Gone, "compare_set", lambda self, *words: self.check(words))
    assert peers.announce(143) == told
    peers.close()


def test_another_thread_that_waits_for_the_store_is_not_in_the_way(ended):
    """As NCCL does while processes connect: its call keeps the connection to itself until it is answered."""
    codes, seen = ended
    server = distributed.TCPStore("127.0.0.1", 0, 1, True)
    client = distributed.TCPStore("127.0.0.1", server.port, is_master=False)
    waiting = threading.Thread(target=client.get, args=("slow",), daemon=True)
    waiting.start()
    time.sleep(0.1)
    peers = Peers(distributed.PrefixStore("peers", client), 1, 2)
    first = Peers(distributed.PrefixStore("peers", server), 0, 2)
    assert first.announce(2) is None
    first.close()
    assert seen.wait(3)
    assert codes == [2]
    server.set("slow", "")
    waiting.join()
    peers.close()


@pytest.mark.parametrize(("starter", "stops"), [("TORCHELASTIC_RUN_ID", True), ("A_SHELL", False)])
def test_process_stops_when_torchrun_is_gone(monkeypatch, starter, stops):
    """Its workers would train on as orphans; once is enough, a second SIGTERM would end them unsaved."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv(starter, "1")
    monkeypatch.setattr(module, "_POLL_SEC", 0.01)
    received = []
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        peers = Peers(distributed.HashStore(), 1, 2)
        time.sleep(0.1)
        assert received == []
        monkeypatch.setattr(module.os, "getppid", lambda: 1)
        time.sleep(0.2)
        assert received == [signal.SIGTERM] * stops
        peers.close()
    finally:
        signal.signal(signal.SIGTERM, earlier)
