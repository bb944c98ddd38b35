"""The stage store: keys, atomic artifacts, chunks, verification, disk faults."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import time

import pytest

from benchmark.core.cost import Meter
from benchmark.core.errors import DDBenchError, JobError
from benchmark.core.store import Stage, Store, canonical_json, lease


def stage(**changes):
    values = {"name": "t.stage", "version": 1, "params": {"a": 1}, "inputs": {"x": "k"}, "seed": 0}
    return Stage(**{**values, **changes})


def test_key_depends_on_every_field_and_on_nothing_else():
    variants = [
        stage(),
        stage(name="t.other"),
        stage(version=2),
        stage(params={"a": 2}),
        stage(inputs={"x": "l"}),
        stage(seed=1),
        stage(precision={"dtype": "bfloat16"}),
        stage(chunk=8),
    ]
    assert len({s.key for s in variants}) == len(variants)
    assert stage(params={"a": 1, "b": 2}).key == stage(params={"b": 2, "a": 1}).key


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError):
        canonical_json({"x": float("nan")})


def test_build_makes_once_and_opens_verified(store):
    calls = []

    def make(folder):
        calls.append(1)
        (folder / "deep").mkdir()
        (folder / "deep" / "x.txt").write_text("payload")

    first = store.build(stage(), make)
    assert (first / "deep" / "x.txt").read_text() == "payload"
    assert store.build(stage(), make) == first and len(calls) == 1
    assert json.loads((first / "artifact.json").read_text())["stage"]["params"] == {"a": 1}


def test_a_failed_make_leaves_nothing(store):
    def make(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        store.build(stage(), make)
    assert not store.has(stage()) and not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize(
    ("of", "silent", "swept"),
    [
        (lease.host(), 0, True),  # by a process that this one would see
        (platform.node() + ".1", 3600, False),  # another container that has this host's name
        (platform.node() + ".1", 90_000, True),
        (platform.node(), 3600, False),  # an older version, which named no namespace
        (platform.node(), 90_000, True),
    ],
)
def test_what_killed_processes_left_is_swept(store, of, silent, swept):
    left = store.root / "tmp" / f"{of}-{2**22 + 1}-abcdef12"  # no process has this id
    left.mkdir(parents=True)
    os.utime(left, (time.time() - silent,) * 2)
    store.build(stage(), lambda folder: None)
    assert left.exists() != swept and len(list(left.parent.iterdir())) == (not swept)


def test_a_folder_in_the_making_is_kept_fresh(store):
    beaten = []
    store.build(stage(), lambda folder: beaten.extend(path for path in lease._beaten.values() if path == folder))
    assert len(beaten) == 1 and beaten[0] not in lease._beaten.values()


@pytest.mark.parametrize("damage", ["flip", "delete", "manifest"])
def test_damage_is_noticed_and_the_artifact_made_again(store, damage, capsys):
    path = store.build(stage(), lambda f: (f / "x.bin").write_bytes(b"0123456789"))
    if damage == "flip":
        (path / "x.bin").write_bytes(b"0123456788")
    elif damage == "delete":
        (path / "x.bin").unlink()
    else:
        (path / "artifact.json").write_text("{")
    again = Store(store.root)  # another process: this one has verified already
    assert again.open(stage()) is None
    assert "made again" in capsys.readouterr().err
    again.build(stage(), lambda f: (f / "x.bin").write_bytes(b"0123456789"))
    assert again.open(stage()) is not None


def test_a_manifest_that_was_cut_is_not_counted_as_there(store):
    path = store.build(stage(), lambda f: (f / "x.bin").write_bytes(b"0123456789"))
    whole = (path / "artifact.json").read_bytes()
    assert store.has(stage())
    for length in range(len(whole)):
        (path / "artifact.json").write_bytes(whole[:length])
        assert not store.has(stage()), length
    (path / "artifact.json").unlink()
    assert not store.has(stage())


def test_chunks_resume_and_damaged_chunk_is_made_again(store):
    made = []

    def make(index, file):
        made.append(index)
        file.write_bytes(bytes([index]) * 10)

    store.chunks(stage(), 3, make, which=[1], suffix=".bin")
    assert store.missing_chunks(stage(), 3) == [0, 2]
    files = store.chunks(stage(), 3, make, suffix=".bin")
    assert made == [1, 0, 2] and [f.read_bytes()[0] for f in files] == [0, 1, 2]
    files[2].write_bytes(b"damaged")
    store.chunks(stage(), 3, make, suffix=".bin")
    assert made == [1, 0, 2, 2]


def _slow_build(root, barrier):
    barrier.wait()

    def make(folder):
        time.sleep(0.3)
        (folder / "pid").write_text(str(os.getpid()))
        with open(root / "count", "a") as file:
            file.write("x")

    Store(root).build(stage(), make)


def test_two_processes_do_the_work_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_slow_build, args=(tmp_path, barrier)) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert all(w.exitcode == 0 for w in workers) and (tmp_path / "count").read_text() == "x"


def _hold(root, ready):
    with Store(root).lock("n"):
        ready.set()
        time.sleep(60)


def test_a_killed_holder_frees_its_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    ready.wait()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    began = time.monotonic()
    with Store(tmp_path).lock("n"):
        assert time.monotonic() - began < 5


def test_a_store_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DDBenchError, match="DDBENCH_CACHE") as caught:
        Store(tmp_path / "file" / "store").build(stage(), lambda f: None)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_clear_error_and_work_resumes(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("this sandbox cannot mount")
    try:
        store = Store(disk / "store")
        (disk / "ballast").write_bytes(b"x" * 1_500_000)
        with pytest.raises(JobError, match="no space left"):
            store.build(stage(), lambda f: (f / "big").write_bytes(b"y" * 1_000_000))
        assert not store.has(stage()) and not list((store.root / "tmp").iterdir())
        (disk / "ballast").unlink()
        assert (store.build(stage(), lambda f: (f / "big").write_bytes(b"y" * 1_000_000)) / "big").stat().st_size == 1e6
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _open(root, queue):
    try:
        queue.put(Store(root).open(stage()) is None)
    except Exception as error:  # noqa: BLE001 - shown by the test
        queue.put(repr(error))


def test_several_processes_meet_one_damaged_artifact(store):
    path = store.build(stage(), lambda f: (f / "x.bin").write_bytes(bytes(1 << 22)))
    (path / "x.bin").write_bytes(bytes((1 << 22) - 1) + b"1")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_open, args=(store.root, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [True] * 4
    assert len(list(path.parent.glob("*.damaged-*"))) == 1 and not path.exists()


def test_an_artifacts_seconds_are_its_own(store, monkeypatch):
    """Chunks count whoever made them; other artifacts that are made on the way do not."""
    now = [0.0]
    monkeypatch.setattr("benchmark.core.cost.time.perf_counter", lambda: now[0])

    def takes(seconds):
        now[0] += seconds

    def chunk(index, file):
        takes(1.0)
        file.write_bytes(b"x")

    def make(folder):
        takes(10.0)
        store.chunks(stage(), 3, chunk)
        store.build(stage(name="t.inner"), lambda inner: takes(500.0))

    store.chunks(stage(), 3, chunk, which=[0])  # by a process that was killed then, say
    with Meter() as meter:
        takes(0.25)
        store.build(stage(), make)
    assert meter.seconds == 0.25
    assert store.info(stage())["seconds"] == 13 and store.info(stage(name="t.inner"))["seconds"] == 500


def test_measuring_a_cpu_job_leaves_the_gpu_alone(monkeypatch):
    """A context, which every worker would hold, takes half a GB of it."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: 1 / 0)
    with Meter() as meter:
        pass
    assert meter.peak > 0
