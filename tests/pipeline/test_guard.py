"""What a plug-in may not do to its process: each is a `JobError` that says so, and nothing stays broken."""

import os
import sys
import threading

import numpy as np
import pytest
from easy import easy_dataset

from benchmark.core.errors import JobError
from benchmark.pipeline import guard
from benchmark.pipeline.guard import guarded


def leave_a_thread():
    threading.Thread(target=threading.Event().wait, args=(5,), name="stray").start()


def redirect():
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


class Everything(BaseException):
    pass


def raise_everything():
    raise Everything


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: sys.exit(0), "sys.exit(0)"),
        (lambda: sys.exit("bye"), "sys.exit('bye')"),
        (raise_everything, "Everything"),
        (lambda: os.close(1), "output"),
        (lambda: sys.stdout.close(), "output"),
        (lambda: sys.stderr.close(), "output"),
        (lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2), "output"),
        (leave_a_thread, "stray"),
    ],
)
def test_what_a_plugin_does_to_the_process_fails_its_job(act, words, monkeypatch, tmp_path):
    monkeypatch.setattr(guard, "THREAD_SECONDS", 0.1)
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(JobError) as error, guarded("the method evil"):
            act()
        assert words in str(error.value) and "the method evil" in str(error.value)
        print("still here")
        print("here too", file=sys.stderr)
        os.fstat(1), os.fstat(2)
        sys.stdout.flush()


def test_ordinary_code_passes(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    with guarded("good"):
        pool.submit(print, "x").result()
        threading.Thread(target=print, args=("short",)).start()
    with pytest.raises(ValueError, match="own"), guarded("good"):
        raise ValueError("own")
    with guarded("good"):
        redirect()
    assert sys.stdout is not None and sys.stdout.name != os.devnull


def test_labels_and_pixels_are_read_only_and_a_changed_dataset_is_noticed():
    data = easy_dataset()
    for array in (data.train.labels, data.test.labels, data.train.array):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    with pytest.raises(JobError, match="the labels"), guarded("the method evil", data):
        data.train.labels = np.zeros_like(data.train.labels)


def test_the_next_job_gets_the_data_as_it_was():
    from benchmark.data import load_dataset

    changed = load_dataset("digits")
    changed.train.labels = np.zeros_like(changed.train.labels)
    fresh = load_dataset("digits")
    assert fresh is not changed and len(set(fresh.train.labels)) == 10
