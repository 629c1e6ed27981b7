"""Sweeps that are killed, run out of disk, meet other folders or lose a process: the same bits in the end, and nothing overwritten."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.processes import Processes
from kpu_jax.explore.store import Store
from kpu_jax.explore.watched import AGAIN, ProcessLostError, lost_processes, watch

SCRIPT = Path(__file__).with_name("swept.py")
LIMIT = 600  # seconds, for one process on a busy machine


def start(store, result, *more, largest_file=None, powerless=False, **environment):
    limit = largest_file
    bound = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if powerless and os.getuid() == 0 else []
    return subprocess.Popen(
        [*bound, sys.executable, str(SCRIPT), str(store), str(result), *map(str, more)],
        env={**os.environ, "PYTHONPATH": str(Path(kpu.__file__).parents[1]), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def run(*arguments, **environment):
    process = start(*arguments, **environment)
    out, _ = process.communicate(timeout=LIMIT)
    return process.returncode, out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    file = tmp_path_factory.mktemp("undisturbed") / "result.npz"
    code, out = run("", file)
    assert code == 0, out
    return np.load(file)


def assert_same(file, want):
    got = np.load(file)
    assert sorted(got.files) == sorted(want.files)
    for name in want.files:
        assert got[name].dtype == want[name].dtype and got[name].tobytes() == want[name].tobytes(), name


def parts_in(store, pattern="*"):
    return len(list(store.glob(pattern))) if store.exists() else 0


def kill_when(process, ready, delay=0.0):
    """Kill a process that lives, once `ready()`."""
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, "it ended before it could be killed: " + process.communicate()[0]
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_and_continued_with_another_clock(tmp_path, undisturbed):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    kill_when(start(store, result, PAUSE="0.1"), (store / "screen-000003").exists)
    kept = {path.name: path.read_bytes() for path in store.glob("screen-*")}
    for path in store.iterdir():
        os.utime(path, (4e9, 4e9))  # from the future
    (store / "screen-000001").unlink()
    code, out = run(store, result, CLOCK_SKEW="-1e8")
    assert code == 0, out
    assert_same(result, undisturbed)
    assert all((store / name).read_bytes() == data for name, data in kept.items())


@pytest.mark.long
def test_killed_twenty_times(tmp_path, undisturbed):
    store, result, rng = tmp_path / "store", tmp_path / "result.npz", random.Random(0)
    for kill in range(20):
        process, known = start(store, result, PAUSE="0.1"), parts_in(store)
        if kill == 19:  # while the first chips are timed exactly
            kill_when(process, lambda: parts_in(store, "screen-*") == 96, 1.0)
        elif kill % 5 == 4:  # at any moment from the start on
            kill_when(process, lambda: True, rng.uniform(0, 5))
        else:
            more = rng.randint(1, 3)
            kill_when(process, lambda known=known, more=more: parts_in(store) >= known + more, rng.uniform(0, 0.1))
    code, out = run(store, result)
    assert code == 0, out
    assert_same(result, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 4])
def test_other_devices_after_a_full_disk(tmp_path, undisturbed, devices):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    code, out = run(store, result, largest_file=1500)
    assert code != 0 and "cannot be written: File too large" in out and not result.exists()
    code, out = run(store, result, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    assert code == 0, out
    assert_same(result, undisturbed)


@pytest.mark.long
@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="permissions do not bind the superuser")
def test_a_folder_that_becomes_read_only(tmp_path, undisturbed):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    kill_when(start(store, result, PAUSE="0.1"), (store / "screen-000005").exists)
    kept = {path.name: path.read_bytes() for path in store.iterdir()}
    store.chmod(0o555)
    code, out = run(store, result, powerless=True)
    assert code == AGAIN and "cannot be written: Permission denied. What was stored is kept" in out
    assert {path.name: path.read_bytes() for path in store.iterdir()} == kept
    store.chmod(0o755)
    code, out = run(store, result, powerless=True)
    assert code == 0, out
    assert_same(result, undisturbed)


def free_address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def together(store, result, count, **environment):
    address = free_address()
    processes = [start(store, result, address, count, i, **environment) for i in range(count)]
    return [(p.communicate(timeout=2 * LIMIT)[0], p.returncode) for p in processes]


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes(tmp_path, undisturbed, count):
    result = tmp_path / "result.npz"
    for out, code in together(tmp_path / "store", result, count):
        assert code == 0, out
    assert_same(result, undisturbed)


LATE = """
import sys, time
from kpu_jax.explore.processes import Processes, join
join(sys.argv[1], 2, int(sys.argv[2]))
time.sleep(45 * int(sys.argv[2]))
print(len(Processes().gather({})))
"""


@pytest.mark.long
def test_a_process_that_takes_longer_is_waited_for():
    """Also before anything was exchanged: JAX gives up on the first exchange after half a minute."""
    address = free_address()
    command = [sys.executable, "-c", LATE, address]
    processes = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)]
    assert [p.communicate(timeout=LIMIT)[0].split()[-1:] for p in processes] == [["2"], ["2"]]


@pytest.mark.long
@pytest.mark.parametrize(("count", "dies"), [(2, 1), (2, 0), (4, 2)])
def test_a_process_that_dies_is_named_by_the_others_and_the_sweep_goes_on(tmp_path, undisturbed, count, dies):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    outcomes = together(store, result, count, DIE_AT=f"3:{dies}", PAUSE="0.2")
    for number, (out, code) in enumerate(outcomes):
        assert code == (9 if number == dies else AGAIN), out
        if number != dies:
            said = f"error: process {dies} was lost: .* Every finished part is kept in {store}: start all processes again"
            assert re.fullmatch(said + ".*\n", out), out
    assert not result.exists() and parts_in(store, "screen-*") >= count
    code, out = run(store, result)
    assert code == 0, out
    assert_same(result, undisturbed)


MESSAGES = [  # of JAX 0.10.2, as seen by a process that stays
    ("The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe tasks have crashed.", ["1", "3"]),
    ("Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 12 heartbeat timeout. This indicates", ["12"]),
    ("Failed to send RPC to coordination service. Either the leader task was preempted/died/restarted", ["0"]),
    ("Terminating process because the JAX distributed service detected fatal errors. This most likely", ["?"]),
    ("Segmentation fault", []),
]


@pytest.mark.parametrize(("log", "lost"), MESSAGES)
def test_a_lost_process_is_read_from_the_log_of_the_runtime(log, lost):
    assert lost_processes(log) == lost


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (f"print({MESSAGES[0][0]!r}); sys.stdout.flush(); os.abort()", "process 1, 3 was lost.*kept in results"),
        (f"print({MESSAGES[3][0]!r}); sys.stdout.flush(); os.abort()", "another process was lost"),
        ("os.kill(os.getpid(), 9)", "this process was ended by SIGKILL.*kept in results"),
        ("print('RPC: RegisterTask'); sys.exit(1)", "did not come in time"),
    ],
)
def test_the_end_of_a_watched_process_is_put_into_words(code, said):
    with pytest.raises(ProcessLostError, match=said):
        watch([sys.executable, "-c", "import os, sys; " + code], "results")


def test_what_a_watched_process_says_itself_stays(capfd):
    saying = "import os; os.write(int(os.environ['KPU_JAX_WATCHED'].split(',')[2]), b'said'); exit(2)"
    assert watch([sys.executable, "-c", saying], None) == 2
    assert watch([sys.executable, "-c", "raise SystemError('unexpected')"], None) == 1
    assert re.fullmatch("saidTraceback.*SystemError: unexpected\n", capfd.readouterr().err, re.S)


def test_processes_that_were_given_different_sweeps_are_told(monkeypatch):
    two = Processes()
    other = json.dumps({"space": "b", "objective": "edp"}).encode()
    monkeypatch.setattr(two, "gather", lambda mine: [mine, {"text": np.frombuffer(other, np.uint8)}])
    with pytest.raises(kpu.KPUError, match="process 1 was given another sweep than process 0: its space differ"):
        two.agree(DESCRIPTION)


DESCRIPTION = {"space": "a", "objective": "edp"}


def test_parts_come_back_and_damaged_ones_are_named(tmp_path):
    store = Store(tmp_path / "s", DESCRIPTION)
    assert store.part("p", lambda: {"x": np.arange(3.0)})["x"].tolist() == [0, 1, 2]
    again = Store(tmp_path / "s", DESCRIPTION, writer=1)
    assert again.part("p", lambda: pytest.fail("computed twice"))["x"].tolist() == [0, 1, 2]
    data = (tmp_path / "s" / "p").read_bytes()
    for damaged in (data[:-1], data[:40] + b"x" + data[41:], data[:-3] + b"xyz", b""):
        (tmp_path / "s" / "p").write_bytes(damaged)
        with pytest.raises(kpu.KPUError, match=r"s/p: is damaged .* delete this file"):
            again.part("p", lambda: {})
        assert (tmp_path / "s" / "p").read_bytes() == damaged


def test_folders_of_others_stay_as_they_are(tmp_path):
    Store(tmp_path, DESCRIPTION)
    with pytest.raises(kpu.KPUError, match="another sweep .its objective differ"):
        Store(tmp_path, {**DESCRIPTION, "objective": "latency"})
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(kpu.KPUError, match="sweep.json: is damaged"):
        Store(tmp_path, DESCRIPTION)
    assert (tmp_path / "sweep.json").read_text() == "{"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(kpu.KPUError, match="holds thesis.txt and no sweep.json"):
        Store(tmp_path / "mine", DESCRIPTION)
    with pytest.raises(kpu.KPUError, match="cannot be written"):
        Store(tmp_path / "mine" / "thesis.txt", DESCRIPTION)


def test_a_folder_that_refuses_loses_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path, DESCRIPTION)
    store.part("p", lambda: {"x": np.zeros(1)})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(kpu.KPUError, match="No space left on device. What was stored is kept"):
        store.part("q", lambda: {"x": np.zeros(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "sweep.json"]
    monkeypatch.setattr(Path, "open", lambda *a, **k: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(kpu.KPUError, match="Read-only file system"):
        Store(tmp_path / "new", DESCRIPTION)
