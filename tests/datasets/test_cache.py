"""The cache of decoded images: filled once, shared, gone with its last user, and out of reach of others."""

import fcntl
import gc
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from datasets import cache as cache_module
from datasets.base import Sample
from datasets.cache import ImageCache, open_cache
from tests.datasets.small_images import HEIGHT, NUM_IMAGES, WIDTH, assert_equal, make_loader, read_plain, write_samples
from utils.errors import UserError


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_samples(tmp_path)


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user's caches, in one that stands in for the machine's shared memory; not there yet."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(cache_module, "_SHARED_MEMORY", folder)
    yield folder / f"reid-images-{os.getuid()}"
    gc.collect()


def open_for(samples: list[Sample], kind: str, folder: Path, skip_broken: bool = False) -> ImageCache:
    opened = open_cache(kind, [s.path for s in samples], HEIGHT, WIDTH, folder, skip_broken)
    assert opened is not None
    return opened


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_nothing(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, kind: str, workers: int
) -> None:
    cache = open_for(samples, kind, tmp_path / "cache")
    expected = list(make_loader(samples).batches(1))
    shutil.rmtree(tmp_path / "images")

    assert_equal(list(make_loader(samples, workers, cache=cache).batches(1)), expected)


def test_no_cache() -> None:
    assert open_cache("none", [], HEIGHT, WIDTH, Path()) is None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_is_filled_once(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first = open_for(samples, kind, tmp_path)
    monkeypatch.setattr(cache_module, "decode_image", None)

    second = open_for(samples, kind, tmp_path)

    assert torch.equal(first[3], second[3])


def test_filling_a_cache_is_left_at_once(tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = cache_module._BLOCK
    at_most = block * (1 + len(os.sched_getaffinity(0)))  # the first block, and what each thread has begun since
    paths = [f"{index}.jpg" for index in range(3 * at_most)]
    first_block = set(paths[:block])
    decoded: list[str] = []
    left = threading.Event()

    def decode_slowly(path: str) -> torch.Tensor:
        decoded.append(path)
        if path not in first_block:
            left.wait()  # what is begun ends after all else was called off
        return torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            left.set()
            super().shutdown(wait)

    def interrupted(items: Iterable[object], total: int, label: str) -> Iterator[object]:
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "decode_image", decode_slowly)
    monkeypatch.setattr(cache_module, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(cache_module, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_cache("ram", paths, HEIGHT, WIDTH, tmp_path)
    assert len(decoded) <= at_most
    assert not list(shared_memory.glob("*.part"))


def test_a_cache_is_filled_anew_when_a_file_or_the_size_changes(samples: list[Sample], tmp_path: Path) -> None:
    open_for(samples, "disk", tmp_path)
    os.utime(samples[3].path, ns=(1, 1))
    open_for(samples, "disk", tmp_path)
    open_for(samples[1:], "disk", tmp_path)
    open_cache("disk", [s.path for s in samples], HEIGHT + 1, WIDTH, tmp_path)

    assert len(list(tmp_path.glob("*.u8"))) == 4


def test_a_cache_in_memory_goes_with_its_last_user(samples: list[Sample], shared_memory: Path) -> None:
    first, second = (open_for(samples, "ram", Path()) for _ in range(2))
    del first
    gc.collect()
    assert len(list(shared_memory.glob("*.u8"))) == 1

    del second
    gc.collect()
    assert list(shared_memory.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed_and_used_caches_are_not(
    samples: list[Sample], shared_memory: Path
) -> None:
    prefix = f"reid-images-{os.getuid()}-"
    shared_memory.mkdir(mode=0o700)
    for name in ("killed.u8", "killed.part", "killed.lock", "used.u8", "used.lock"):
        (shared_memory / (prefix + name)).touch()
    with (shared_memory / (prefix + "used.lock")).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        cache = open_for(samples, "ram", Path())
        left = {path.name for path in shared_memory.iterdir()}

    assert len(cache) == NUM_IMAGES
    assert {prefix + "used.u8", prefix + "used.lock"} < left
    assert len(left) == 4


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_that_does_not_fit_is_refused(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 0, 20_000))

    with pytest.raises(UserError, match=r"26 images need 0\.04 MB, .* has 0\.02 MB available"):
        open_for(samples, kind, tmp_path)

    assert not list(tmp_path.glob("*.u8"))


def test_a_broken_image_stops_the_filling(samples: list[Sample], tmp_path: Path) -> None:
    Path(samples[9].path).write_bytes(b"")

    with pytest.raises(UserError, match=r"09\.jpg"):
        open_for(samples, "disk", tmp_path)

    assert not [path for path in tmp_path.glob("reid-images*") if path.suffix != ".lock"]


def test_a_file_that_is_back_is_read_though_the_cache_lacks_it(samples: list[Sample], tmp_path: Path) -> None:
    content = Path(samples[9].path).read_bytes()
    expected = list(make_loader(samples).batches(0))
    Path(samples[9].path).unlink()
    cache = open_for(samples, "disk", tmp_path, skip_broken=True)
    Path(samples[9].path).write_bytes(content)

    assert_equal(list(make_loader(samples, cache=cache).batches(0)), expected)


@pytest.mark.parametrize("left", [0, 1000])
def test_a_cache_that_was_cut_off_is_filled_anew(samples: list[Sample], tmp_path: Path, left: int) -> None:
    expected = open_for(samples, "disk", tmp_path)[25].clone()
    [path] = tmp_path.glob("*.u8")
    os.truncate(path, left)

    assert torch.equal(open_for(samples, "disk", tmp_path)[25], expected)


def test_processes_that_open_a_cache_together_do_not_wait_for_each_other(
    samples: list[Sample], tmp_path: Path, shared_memory: Path
) -> None:
    """Each keeps the cache until all have it, as processes do that train together."""
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        barrier = context.Barrier(4)
        processes = [context.Process(target=open_and_meet, args=(samples, tmp_path, barrier)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4


def open_and_meet(samples: list[Sample], folder: Path, barrier: threading.Barrier) -> None:
    barrier.wait(20)
    cache = open_for(samples, "ram", folder)
    barrier.wait(20)
    assert cache.is_readable(0)


def test_the_memory_of_the_own_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "job"
    group.mkdir()
    for name, text in {"memory.max": "5000000", "memory.current": "3000000",
                       "memory.stat": "anon 1\ninactive_file 500000\n"}.items():  # fmt: skip
        (group / name).write_text(text)
    monkeypatch.setattr(
        cache_module, "_find_memory_groups", lambda: [(group, ("memory.max", "memory.current")), (tmp_path, ("a", "b"))]
    )
    assert cache_module._available_memory() == 2_500_000


def test_a_cache_remembers_broken_images(samples: list[Sample], tmp_path: Path) -> None:
    Path(samples[9].path).unlink()
    cache = open_for(samples, "disk", tmp_path, skip_broken=True)

    expected = list(make_loader(samples, on_corrupt="skip").batches(0))
    assert_equal(list(make_loader(samples, on_corrupt="skip", cache=cache).batches(0)), expected)
    with pytest.raises(UserError, match=r"09\.jpg"):
        list(make_loader(samples, cache=cache, batch_size=26).batches(0))


def test_a_folder_that_cannot_be_written_is_reported(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"data\.cache disk: cannot write to .*file"):
        open_for(samples, "disk", tmp_path / "file" / "cache")


# what others may have put in the way: nothing of theirs is read, nothing is written to it, and nothing waits


def other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is somebody else than the owner of what was made before."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


def name_cache(samples: list[Sample], ending: str) -> str:
    return f"reid-images-{os.getuid()}-{cache_module._compute_key([s.path for s in samples], HEIGHT, WIDTH)}.{ending}"


def test_the_folder_and_its_files_are_this_users_alone(samples: list[Sample], shared_memory: Path) -> None:
    umask = os.umask(0)
    try:
        cache = open_for(samples, "ram", Path())
    finally:
        os.umask(umask)
    assert len(cache) == NUM_IMAGES
    assert shared_memory.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in shared_memory.iterdir()} == {0o600}


def test_another_users_folder_is_refused(
    samples: list[Sample], shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels that somebody else has put there are not trained on."""
    cache = open_for(samples, "ram", Path())
    other_user(monkeypatch)
    with pytest.raises(UserError, match=r"^data.cache ram: .*reid-images-\d+ is another user's, .*; remove it, or use"):
        open_for(samples, "ram", Path())
    assert cache.is_readable(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("ending", ["u8", "lock"])
def test_another_users_file_is_refused(samples: list[Sample], shared_memory: Path, ending: str) -> None:
    cache = open_for(samples, "ram", Path())
    os.chown(shared_memory / name_cache(samples, ending), 12345, 12345)
    with pytest.raises(UserError, match=rf"\.{ending} is another user's; remove it"):
        open_for(samples, "ram", Path())
    assert cache.is_readable(0)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o750, 0o705])
def test_a_folder_open_to_others_is_refused(samples: list[Sample], shared_memory: Path, mode: int) -> None:
    shared_memory.mkdir()
    shared_memory.chmod(mode)
    with pytest.raises(UserError, match="is open to other users, so that what is in it is not to be trusted; remove"):
        open_for(samples, "ram", Path())
    assert not list(shared_memory.iterdir())


@pytest.mark.parametrize("target", ["folder", "file", "nowhere"])
def test_a_link_in_the_folders_place_is_not_followed(
    samples: list[Sample], shared_memory: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "file").touch()
    shared_memory.symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"data.cache ram: .*is not a folder but a link or a file; remove it"):
        open_for(samples, "ram", Path())
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("ending", ["u8", "lock", "part"])
@pytest.mark.parametrize("is_hard", [False, True])
def test_a_link_in_a_files_place_is_not_followed(
    samples: list[Sample], shared_memory: Path, tmp_path: Path, kind: str, ending: str, is_hard: bool
) -> None:
    """What it leads to stays as it is; where a new file takes its place, the link alone is removed."""
    valuable = tmp_path / "valuable"
    pixels = NUM_IMAGES * (3 * HEIGHT * WIDTH + 1)
    valuable.write_bytes(b"\1" * pixels)  # of a cache's size
    folder = shared_memory if kind == "ram" else tmp_path / "disk"
    folder.mkdir(mode=0o700)
    link = folder / name_cache(samples, ending)
    link.hardlink_to(valuable) if is_hard else link.symlink_to(valuable)

    def open_it() -> ImageCache:
        return open_for(samples, kind, tmp_path / "disk")

    if ending == "part" or (ending == "u8" and not is_hard):
        assert torch.equal(open_it()[3], read_plain(samples[3]))
    elif kind == "ram" or not is_hard:
        with pytest.raises(UserError, match=rf"\.{ending} is .*(link|second name).*; remove it"):
            open_it()
    else:  # others who may make a second name in this folder may as well write to the images themselves
        open_it()
    assert valuable.read_bytes() == b"\1" * pixels


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("ending", ["u8", "lock"])
def test_a_pipe_is_not_waited_for(
    samples: list[Sample], shared_memory: Path, tmp_path: Path, kind: str, ending: str
) -> None:
    folder = shared_memory if kind == "ram" else tmp_path / "disk"
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / name_cache(samples, ending))
    for _ in range(2):
        if ending == "u8":  # not of a cache's size: it is replaced
            open_for(samples, kind, tmp_path / "disk")
            gc.collect()
        else:
            with pytest.raises(UserError, match=r"\.lock is not a file but a .*pipe or the like; remove it"):
                open_for(samples, kind, tmp_path / "disk")


def test_a_pipe_among_the_leftovers_is_not_waited_for(samples: list[Sample], shared_memory: Path) -> None:
    shared_memory.mkdir(mode=0o700)
    os.mkfifo(shared_memory / "reid-images-1-other.lock")
    with pytest.raises(UserError, match=r"other\.lock is not a file but a .*pipe or the like; remove it"):
        open_for(samples, "ram", Path())


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_file_that_others_can_write_to_is_refused(samples: list[Sample], shared_memory: Path, mode: int) -> None:
    cache = open_for(samples, "ram", Path())
    (shared_memory / name_cache(samples, "u8")).chmod(mode)
    with pytest.raises(UserError, match=r"\.u8 is open to changes by other users; remove it"):
        open_for(samples, "ram", Path())
    assert cache.is_readable(0)


def test_no_descriptor_is_left_open(samples: list[Sample], shared_memory: Path, tmp_path: Path) -> None:
    """Neither by a cache that is gone nor by one that was refused."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for kind in ("ram", "disk"):
        open_for(samples, kind, tmp_path / "disk")
    gc.collect()
    shared_memory.chmod(0o777)
    with pytest.raises(UserError):
        open_for(samples, "ram", Path())
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
