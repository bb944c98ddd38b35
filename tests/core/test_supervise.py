"""A process that is ended from inside is an error; signals reach it, and it ends with the one that waits."""

import signal
import subprocess
import sys
import time

import pytest

HEAD = "import ctypes, os, sys, time; from benchmark.core import supervise; supervise.fork('a plug-in (evil)')\n"


def python(code, arguments=(), **options):
    command = [sys.executable, "-c", HEAD + code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    "code, status, words",
    [
        ("def hook(): os._exit(0)\nhook()", 1, "os._exit(0) in hook"),
        ("def hook(): ctypes.string_at(0)\nhook()", 1, "SIGSEGV"),
        ("ctypes.CDLL(None).exit(0)", 1, "ended from inside, with exit code 0"),
        ("supervise.finished(); sys.exit(3)", 3, ""),
        ("supervise.finished(); os._exit(0)", 0, ""),
        ("os.kill(os.getpid(), 9)", -9, ""),
        ("if not os.fork(): os._exit(0)\nos.wait(); supervise.finished()", 0, ""),
    ],
)
def test_an_end_that_nobody_asked_for_is_an_error(code, status, words):
    process = python(code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and words in err and "Traceback" not in err, (process.returncode, err)
    if status == 1:
        assert "a plug-in (evil)" in err
    else:
        assert not err


ASKS = """
for whom, end in (("method one", lambda: os._exit(0)), ("method two", lambda: ctypes.string_at(0))):
    if not supervise.blamed(whom):
        with supervise.asking(whom):
            end()
with supervise.asking("method three"):
    pass
print(supervise.blamed("method one"), supervise.blamed("method two"), supervise.blamed("method three"), sep="|")
if len(sys.argv) > 1:
    with supervise.asking("method one"):
        os._exit(0)  # blamed before, and runs all the same: no third beginning
supervise.finished()
"""


def test_the_command_begins_again_without_what_ended_it():
    out, err = python(ASKS).communicate(timeout=60)
    one, two, three = out.strip().split("|")
    assert one.startswith("os._exit(0) in <lambda>") and "SIGSEGV" in two and not three, err
    assert err.count("warning: the method") == 2
    process = python(ASKS, arguments=("again",))
    assert "error: the command was ended from inside" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


WAITS = """
import signal
def end(number, frame):
    print("told", signal.Signals(number).name, flush=True)
    supervise.finished()
    os._exit(7)
signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGINT, end)
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(kind):
    process = python(WAITS)
    process.stdout.readline()
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7 and out == f"told {kind.name}\n", err


def test_killing_the_one_that_waits_ends_both():
    process = python(WAITS)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} goes on: {state}")
