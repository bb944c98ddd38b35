"""Locks end with their holder: on its own host by the kernel, on another by a heartbeat; no clocks are compared."""

import fcntl
import os
import platform
import signal
import time

import pytest

from benchmark.core.store import lease


@pytest.fixture
def busy(tmp_path):
    """A lock that a process elsewhere holds (its flock cannot be told from that of a host that is gone)."""
    path = tmp_path / "job.lock"
    path.write_text("elsewhere 1")
    file = open(path, "a")  # noqa: SIM115 - held for the test
    fcntl.flock(file, fcntl.LOCK_EX)
    yield path
    file.close()


def test_a_silent_host_loses_its_lock(busy, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    assert lease.try_lock(busy) is None
    time.sleep(0.3)
    ours = lease.try_lock(busy)
    assert ours is not None and busy.read_text().split()[1] == str(os.getpid())
    assert lease.try_lock(busy) is None, "the new lock is held"
    lease.release(ours, busy)
    assert not busy.exists()


def test_a_beating_host_keeps_its_lock(busy, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    for beat in range(3):
        assert lease.try_lock(busy) is None
        time.sleep(0.3)
        os.utime(busy, (beat, beat))  # any change counts: its clock may be years behind ours


def test_a_host_whose_clock_is_behind_is_not_dead(busy):
    os.utime(busy, (0, 0))
    assert lease.try_lock(busy) is None and lease.try_lock(busy) is None


def test_on_the_same_host_only_the_kernel_decides(busy, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    busy.write_text(f"{lease.host()} 1")
    assert lease.try_lock(busy) is None and lease.try_lock(busy) is None


def test_a_process_of_another_container_is_asked_for_by_its_heartbeat(tmp_path):
    """It has this host's name, and its process id means nothing here."""
    path, other = tmp_path / "worker.json", f"{platform.node()}.1"
    path.touch()
    assert lease.host() != other and lease.is_fresh(path, other, 2**22 + 1)
    assert not lease.is_fresh(path, lease.host(), 2**22 + 1)
    os.utime(path, (0, 0))
    assert not lease.is_fresh(path, other, os.getpid()) and lease.is_fresh(path, lease.host(), os.getpid())


def test_a_held_lock_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "_beater", None)
    path = tmp_path / "job.lock"
    ours = lease.try_lock(path)
    os.utime(path, (0, 0))
    for _ in range(100):
        time.sleep(0.05)
        if path.stat().st_mtime > 1e9:
            break
    assert time.time() - path.stat().st_mtime < 60
    lease.release(ours, path)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_once_finishes_writing_twice_stops(kind):
    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(kind, stop)
    try:
        reached = []
        with pytest.raises(KeyboardInterrupt), lease.finish_writing():
            os.kill(os.getpid(), kind)
            reached.append("end")
        assert reached == ["end"]
        with pytest.raises(KeyboardInterrupt), lease.finish_writing():
            os.kill(os.getpid(), kind)
            os.kill(os.getpid(), kind)
            reached.append("twice")
        assert reached == ["end"] and signal.getsignal(kind) is stop
    finally:
        signal.signal(kind, before)
