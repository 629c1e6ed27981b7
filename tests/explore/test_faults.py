"""Sweeps that are killed, run out of disk, meet other folders or lose a process: the same bits in the end, and nothing overwritten."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.explore.store import Store

SCRIPT = Path(__file__).with_name("swept.py")
LIMIT = 240  # seconds, for one process on a busy machine


def start(store, result, *more, **environment):
    limit = environment.pop("largest_file", None)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(store), str(result), *map(str, more)],
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


def killed(store, result, rng, times):
    """Kill the sweep `times` times once it stores parts, then let it end."""
    for _ in range(times):
        before = len(list(store.glob("*"))) if store.exists() else 0
        process = start(store, result)
        while process.poll() is None and (len(list(store.glob("*"))) if store.exists() else 0) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    return run(store, result)


def test_killed_and_continued_with_another_clock(tmp_path, undisturbed):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    process = start(store, result)
    while not (store / "screen-000003").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = {path.name: path.read_bytes() for path in store.glob("screen-*")}
    (store / "screen-000001").unlink()
    code, out = run(store, result, CLOCK_SKEW="-1e8")
    assert code == 0, out
    assert_same(result, undisturbed)
    assert all((store / name).read_bytes() == data for name, data in kept.items())


@pytest.mark.long
def test_killed_twenty_times(tmp_path, undisturbed):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    code, out = killed(store, result, random.Random(0), 20)
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


def free_address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def together(store, result, count, **environment):
    address = free_address()
    processes = [start(store, result, address, count, i, **environment) for i in range(count)]
    return [(p.communicate(timeout=LIMIT)[0], p.returncode) for p in processes]


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
def test_a_process_that_dies_ends_the_others_in_time_and_the_sweep_goes_on(tmp_path, undisturbed):
    store, result = tmp_path / "store", tmp_path / "result.npz"
    begun = time.monotonic()
    outcomes = together(store, result, 2, DIE_AT="4:1")
    assert outcomes[1][1] == 9 and outcomes[0][1] != 0 and not result.exists()
    assert time.monotonic() - begun < 120
    code, out = run(store, result)
    assert code == 0, out
    assert_same(result, undisturbed)


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
