"""Processes that find each other in a store that others have used, and that end together."""

import contextlib
import threading
import time
from datetime import timedelta

import pytest
from torch import distributed

from utils import peers as module
from utils.peers import Peers, private_store


def meet(store, world_size, missing=None):
    """Lets all processes meet, as threads; returns their parts of the store."""
    found = {}

    def join(rank):
        with contextlib.suppress(distributed.DistError):
            found[rank] = private_store(store, rank, world_size)

    threads = [threading.Thread(target=join, args=(r,)) for r in range(world_size) if r != missing]
    for thread in reversed(threads):  # rank 0 comes last
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return found


def assert_alone(parts, attempt):
    assert sorted(parts) == [0, 1, 2]
    assert not any(part.check(["key"]) for part in parts.values()), attempt
    parts[2].set("key", str(attempt))
    assert {part.get("key") for part in parts.values()} == {str(attempt).encode()}


def test_processes_meet_apart_from_those_before_them():
    """The store of torchrun outlives a restart; a machine that takes the place of a lost one counts from 0 again."""
    store = distributed.HashStore()
    for attempt in range(3):
        assert_alone(meet(store, 3), attempt)


def test_offer_of_a_killed_process_is_not_followed():
    """The others find it first, and must still meet the rank 0 that comes after it."""
    store = distributed.HashStore()
    for attempt, left in enumerate(("killed before anybody came", "killed when one had come")):
        store.set("offer", left)
        if attempt:
            store.set(f"{left}/1", "")
        assert_alone(meet(store, 3), attempt)


@pytest.mark.parametrize("missing", [0, 2])
def test_process_that_never_comes_is_an_error(monkeypatch, missing):
    store = distributed.HashStore()
    assert len(meet(store, 3)) == 3
    monkeypatch.setattr(module, "default_pg_timeout", timedelta(seconds=0.5))
    assert 0 not in meet(store, 3, missing)


def test_one_process_alone_meets_nobody():
    assert not private_store(distributed.HashStore(), 0, 1).check(["key"])


@pytest.fixture
def ended(monkeypatch):
    """Records exit codes in place of ending the process; the second item is set with the first of them."""
    codes, seen = [], threading.Event()
    monkeypatch.setattr(module, "_POLL_SEC", 0.01)

    def end(code):
        codes.append(code)
        seen.set()
        raise SystemExit if threading.current_thread() is threading.main_thread() else RuntimeError

    monkeypatch.setattr(module.os, "_exit", end)
    return codes, seen


@pytest.mark.parametrize("first", [0, 1])
def test_other_process_ends_with_the_first_one(ended, first):
    codes, seen = ended
    store = distributed.HashStore()
    peers = [Peers(store, rank, 2) for rank in (0, 1)]
    peers[first].end(143)
    assert seen.wait(60)
    with pytest.raises(SystemExit):
        peers[1 - first].end(2)
    assert codes == [143, 143]


def test_process_that_ends_alone_is_left_alone(ended):
    Peers(distributed.HashStore(), 0, 1).end(143)
    assert ended[0] == []


def test_rank_0_waits_until_the_others_have_heard(monkeypatch, ended):
    """It may take the store with it, and the exit code in there."""
    monkeypatch.setattr(module, "_HEARD_SEC", 60)
    store = distributed.HashStore()
    other = Peers(store, 1, 2)
    Peers(store, 0, 2).end(0)
    assert store.check(["heard/1"])
    other.close()
    assert ended[0] == [0]


@pytest.mark.parametrize(("rank", "codes"), [(1, []), (2, [143])])
def test_where_rank_0_and_its_store_are_gone_the_next_process_speaks(ended, monkeypatch, rank, codes):
    class Gone:
        def clone(self):
            return self

        def check(self, keys):
            raise distributed.DistNetworkError

        def compare_set(self, *words):
            raise distributed.DistNetworkError

    peers = Peers(Gone(), rank, 3)
    if codes:
        with pytest.raises(SystemExit):
            peers.end(143)
    else:
        peers.end(143)
    assert ended[0] == codes


def test_another_thread_that_waits_for_the_store_is_not_in_the_way(ended):
    """As NCCL does while processes connect: its call keeps the connection until it is answered."""
    codes, seen = ended
    server = distributed.TCPStore("127.0.0.1", 0, 1, True)
    client = distributed.TCPStore("127.0.0.1", server.port, is_master=False)
    waiting = threading.Thread(target=client.get, args=("slow",), daemon=True)
    waiting.start()
    time.sleep(0.1)
    other = Peers(distributed.PrefixStore("peers", client), 1, 2)
    Peers(distributed.PrefixStore("peers", server), 0, 2).end(2)
    assert seen.wait(60)
    assert codes == [2]
    server.set("slow", "")
    waiting.join()
    other.close()
