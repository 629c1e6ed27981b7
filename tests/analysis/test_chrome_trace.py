"""The trace against the timeline that it shows."""

import json

import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.analysis import write_chrome_trace

CHIP = kpu.presets.edge_ai()
PROGRAM = kpu.program.build(CHIP, kpu.Gemm(32, 32, 64, dtype="int8"), kpu.Mapping(l3_tile=(32, 16, 64), l2_tile=(16, 16, 32)))
TIMELINE = kpu.program.execute(CHIP, PROGRAM)


def test_every_instruction_that_takes_time_is_an_event(tmp_path):
    path = tmp_path / "run.json"
    write_chrome_trace(TIMELINE, path, program=PROGRAM, fabric_mhz=500.0)
    events = json.loads(path.read_text())["traceEvents"]
    work = [e for e in events if e["ph"] == "X"]
    assert len(work) == np.sum(TIMELINE.engine != kpu.program.Engine.CONTROL) > 0
    for event in work:
        i = event["args"]["instruction"]
        assert event["ts"] == pytest.approx(TIMELINE.start[i] / 500)
        assert event["dur"] == pytest.approx((TIMELINE.end[i] - TIMELINE.start[i]) / 500)
        assert event["tid"] == TIMELINE.engine[i]
        assert event["args"].get("idle_before_cycles", 0) == TIMELINE.wait[i]
        assert event["args"]["bytes"] == PROGRAM.bytes[i]
    assert any("idle_for" in event["args"] for event in work)
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"dma", "block_mover", "streamer", "fabric"}
    assert max(e["args"]["done_cycles"] for e in work) == TIMELINE.makespan
    for engine in {e["tid"] for e in work}:  # an engine does one thing at a time
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in work if e["tid"] == engine)
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(spans, spans[1:], strict=False))


def test_bad_input_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(kpu.KPUError, match="needs the timeline"):
        write_chrome_trace(3, tmp_path / "x.json")
    with pytest.raises(kpu.KPUError, match="the program must be"):
        write_chrome_trace(TIMELINE, tmp_path / "x.json", program=3)
    with pytest.raises(kpu.KPUError, match="fabric_mhz"):
        write_chrome_trace(TIMELINE, tmp_path / "x.json", fabric_mhz=0)
    with pytest.raises(kpu.KPUError, match="cannot be written"):
        write_chrome_trace(TIMELINE, tmp_path / "none" / "x.json")
    assert not list(tmp_path.iterdir())
