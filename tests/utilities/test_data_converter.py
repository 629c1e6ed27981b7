"""What is written and read again is equal, in every form; and files that are not whole are named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.utilities import data_converter as convert
from kpu_jax.workload import networks

CHIP = kpu.presets.edge_ai()
GEMM = kpu.Gemm(64, 48, 80, bias=True, activation="gelu", density_b=1 / 3)
SMALL = kpu.Mapping(l3_tile=(32, 48, 40), l2_tile=(16, 16, 40), dataflow="weight_stationary", buffering=("double", "single", "double"))
HUGE = kpu.Mapping(l3_tile=(4096, 4096, 4096), l2_tile=(4096, 4096, 4096))


def traced():
    def fn(x, w):
        return jax.lax.scan(lambda c, _: (jnp.sort(jax.nn.softmax(c @ w)), None), x, None, length=5)[0]

    return kpu.trace(fn)(jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((8, 8), jnp.float32))


def network_report():
    return kpu.simulate(CHIP, kpu.networks.mlp(4, (16, 8, 8, 4)), SMALL, timing="bound")


VALUES = {
    "network": networks.resnet50,
    "vector work": lambda: networks.bert_base(sequence=16, vector_ops=True),
    "traced": traced,
    "names like numbers": lambda: kpu.Workload.from_ops([(n, kpu.Gemm(2, 3, 4)) for n in ("007", "1e5", "", "nan")]),
    "chip": lambda: CHIP.replace({"clocks.fabric_mhz": 1 / 3 * 1000}),
    "mapping": lambda: SMALL,
    "mappings": lambda: jax.tree.map(lambda *v: np.stack(v), SMALL, HUGE),
    "report": lambda: kpu.simulate(CHIP, GEMM, SMALL, timing="bound"),
    "network's report": network_report,
    "infeasible": lambda: kpu.simulate(CHIP, kpu.Gemm(4096, 4096, 4096), HUGE, timing="bound"),
    "table": lambda: [
        {"chip": 3, "mapped_for": "edp", "latency_ms": 0.1, "pareto": True},
        {"chip": 4, "mapped_for": "x,y", "latency_ms": 1e-9, "pareto": False},
        {"chip": 5, "mapped_for": "edp", "latency_ms": float("inf"), "pareto": False},
    ],
}


def equal(a, b):
    if isinstance(a, list):
        return a == b
    flat = jax.tree_util.tree_flatten(a), jax.tree_util.tree_flatten(b)
    same = all(np.array_equal(x, y, equal_nan=True) and np.dtype(x.dtype) == y.dtype for x, y in zip(flat[0][0], flat[1][0], strict=True))
    return type(a) is type(b) and same and str(flat[0][1]) == str(flat[1][1])


@pytest.mark.parametrize("name", VALUES)
def test_round_trips(name, tmp_path):
    value = VALUES[name]()
    assert equal(convert.from_dict(convert.to_dict(value)), value)
    assert equal(convert.from_json(convert.to_json(value)), value)
    convert.to_json(value, tmp_path / "a.json")
    assert equal(convert.from_json(tmp_path / "a.json"), value)
    convert.to_csv(value, tmp_path / "a.csv")
    assert equal(convert.from_csv(tmp_path / "a.csv"), value)
    pytest.importorskip("pandas", reason="extra dataframe")
    assert equal(convert.from_pandas(convert.to_pandas(value)), value)
    convert.to_parquet(value, tmp_path / "a.parquet")
    assert equal(convert.from_parquet(tmp_path / "a.parquet"), value)


def test_what_comes_back_works():
    net = convert.from_json(convert.to_json(traced()))
    assert net == traced() and net.host_work and net.origins[0].reads[0].name == "args[0]"
    again = convert.from_json(convert.to_json(SMALL))
    assert kpu.simulate(CHIP, GEMM, again, timing="bound") == kpu.simulate(CHIP, GEMM, SMALL, timing="bound")
    assert json.loads(convert.to_json(CHIP))["fields"]["compute"]["tile_count"] == 2


@pytest.mark.long
def test_a_sweep_is_a_table(tmp_path):
    result = kpu.sweep(kpu.Space({"compute.tile_count": [1, 2]}), kpu.networks.mlp(4, (16, 8)))
    rows = kpu.analysis.sweep_table(result)
    convert.to_csv(result, tmp_path / "s.csv")
    assert convert.from_csv(tmp_path / "s.csv") == rows == convert.from_json(convert.to_json(result))
    assert rows[0]["pareto"] in (True, False) and isinstance(rows[0]["chip"], int)


def test_kpu_sim_files(tmp_path):
    convert.to_kpu_sim_yaml(CHIP, tmp_path / "c.yaml", name="mine")
    assert convert.from_kpu_sim_yaml(tmp_path / "c.yaml") == CHIP == kpu.load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("form", ["gemm", "conv"])
@pytest.mark.parametrize("net", [networks.resnet50, lambda: networks.mobilenet_v2(batch=2), lambda: networks.gpt2(sequence=32)])
def test_scale_sim_topologies(net, form, tmp_path):
    net = net()
    convert.to_scale_sim_topology(net, tmp_path / "t.csv", form=form)
    assert kpu.load_topology(tmp_path / "t.csv").macs.sum() == net.macs.sum()


def test_scale_sim_topologies_repeat_loops_and_refuse_dilation(tmp_path):
    convert.to_scale_sim_topology(traced(), tmp_path / "t.csv")
    again = kpu.load_topology(tmp_path / "t.csv")
    assert len(again) == 5 and again.macs.sum() == traced().macs.sum()
    dilated = kpu.Workload.from_ops([kpu.Conv(1, 9, 9, 2, 2, 3, dilation=2)])
    with pytest.raises(KPUError, match="no dilated convolutions"):
        convert.to_scale_sim_topology(dilated, tmp_path / "t.csv", form="conv")
    with pytest.raises(KPUError, match="no fabric operations"):
        convert.to_scale_sim_topology(kpu.Workload.from_ops([kpu.VectorOp(4)]), tmp_path / "t.csv")


SCALE = """[general]
run_name = scale_example

[architecture_presets]
ArrayHeight:    32
ArrayWidth:     16
IfmapSramSzkB:    64
FilterSramSzkB:   48
OfmapSramSzkB:    32
IfmapOffset:    0
Dataflow : ws
Bandwidth : 10
MemoryBanks: 1

[run_presets]
InterfaceBandwidth: CALC
"""


def test_scale_sim_configurations(tmp_path):
    file = tmp_path / "scale.cfg"
    file.write_text(SCALE)
    chip, flow = convert.config_from_scale_sim(file, word_bytes=2)
    assert flow == "weight_stationary"
    assert (chip.compute.processor_array.rows, chip.compute.processor_array.cols, chip.compute.tile_count) == (32, 16, 1)
    assert chip.on_chip_memory.l3.tile_capacity_kb == 144
    assert chip.external_memory.bandwidth_gbps == pytest.approx(20 * float(chip.clocks.fabric_mhz) / 1e3)
    convert.to_scale_sim_config(chip, tmp_path / "back.cfg", flow, word_bytes=2)
    again, flow_again = convert.config_from_scale_sim(tmp_path / "back.cfg", word_bytes=2)
    assert (again, flow_again) == (chip, flow)
    for old, new, match in (
        ("ArrayHeight:    32", "", "lacks ArrayHeight"),
        ("32\nArrayWidth", "x\nArrayWidth", "ArrayHeight must be .* got 'x'"),
        ("ws", "rs", "Dataflow = 'rs' is unknown"),
        ("[architecture_presets]", "[arch]", "section .architecture_presets. is missing"),
        ("[general]", "general", "not a SCALE-Sim configuration"),
    ):
        file.write_text(SCALE.replace(old, new, 1))
        with pytest.raises(KPUError, match=f"scale.cfg.*{match}"):
            convert.config_from_scale_sim(file)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "line 1: not valid JSON"),
        ('{"a": 1}', "expected a dict with 'kind'"),
        ('{"kind": "chip"}', "kind = 'chip' is unknown"),
        ('{"kind": "workload", "operations": []}', "workload: a workload needs at least one operation"),
        ('{"kind": "workload"}', "workload: not whole"),
        ('{"kind": "workload", "operations": [{"name": "a", "reads": [], "repeats": 1}]}', "operation 0 lacks kind, m, n"),
        ('{"kind": "mapping", "stacked": false, "mappings": [{"l3_tile": [1, 2]}]}', "mapping: "),
        ('{"kind": "config", "fields": {"compute": 3}}', "config: "),
        ('{"kind": "report", "fields": {"cycles": 3}}', "report: unknown fields .*missing fields"),
        ('{"kind": "workload", "operations": ' + "9" * 500 + "}", "integer of 500 digits"),
    ],
)
def test_bad_json(text, match):
    with pytest.raises(KPUError, match=match):
        convert.from_json(text)


def test_bad_values(tmp_path):
    operations = convert.to_dict(networks.mlp())
    operations["operations"][1]["m"] = -3.0
    with pytest.raises(KPUError, match=r"workload: op.m must be an integer at least 1"):
        convert.from_dict(operations)
    operations = convert.to_dict(networks.mlp())
    operations["operations"][0]["reads"] = [2]
    with pytest.raises(KPUError, match="operation 0 reads .* not all earlier"):
        convert.from_dict(operations)
    with pytest.raises(KPUError, match="cannot convert int 3"):
        convert.to_dict(3)
    with pytest.raises(KPUError, match="cannot be read"):
        convert.from_csv(tmp_path / "none.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(KPUError, match="not a Parquet file"):
        convert.from_parquet(tmp_path / "x.parquet")
    with pytest.raises(KPUError, match="cannot be written"):
        convert.to_csv(networks.mlp(), tmp_path / "no" / "x.csv")
    with pytest.raises(KPUError, match="traced value"):
        jax.jit(lambda m: convert.to_dict(m) and 0)(GEMM)


# -- number formats


FORMATS = ("int4", "int8", "int16", "int32", "fp4", "fp8", "fp8_e5m2", "fp16", "bf16", "fp32")


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f not in ("int32", "fp32")])
def test_every_value_of_a_format_comes_back(fmt):
    bits = {"int4": 4, "fp4": 4, "int8": 8, "fp8": 8, "fp8_e5m2": 8}.get(fmt, 16)
    codes = np.arange(2**bits, dtype=np.uint16)
    data = (codes[0::2] | codes[1::2] << 4).astype(np.uint8) if bits == 4 else codes.astype("<u1" if bits == 8 else "<u2").view(np.uint8)
    values = convert.from_bytes(data, fmt, (2**bits,))
    assert values.dtype == convert.numpy_dtype(fmt)
    np.testing.assert_array_equal(convert.to_bytes(values, fmt), data)
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    exact = convert.from_bytes(convert.to_bytes(wide[finite], fmt, rounding="exact"), fmt, wide[finite].shape)
    np.testing.assert_array_equal(exact.astype(np.float64), wide[finite])


def every_value(fmt):
    bits = {"int4": 4, "fp4": 4, "int8": 8, "fp8": 8, "fp8_e5m2": 8}.get(fmt, 16)
    codes = np.arange(2**bits)
    data = (codes[0::2] | codes[1::2] << 4).astype(np.uint8) if bits == 4 else codes.astype("<u1" if bits == 8 else "<u2").view(np.uint8)
    with np.errstate(invalid="ignore"):
        values = convert.from_bytes(data, fmt, (2**bits,)).astype(np.float64)
    return values[np.isfinite(values)]


@given(st.lists(st.floats(-65000, 65000), min_size=1, max_size=9), st.sampled_from(FORMATS))
@settings(max_examples=80, deadline=None)
def test_rounding_is_to_the_nearest_value(numbers, fmt):
    """Against a search over all values of the format; the 32-bit ones against NumPy."""
    back = convert.from_bytes(convert.to_bytes(numbers, fmt), fmt, (len(numbers),)).astype(np.float64)
    if fmt in ("int32", "fp32"):
        np.testing.assert_array_equal(back, np.rint(numbers) if fmt == "int32" else np.float32(numbers).astype(np.float64))
        return
    every = every_value(fmt)
    for x, y in zip(numbers, back, strict=True):
        assert abs(x - y) == np.min(np.abs(every - x))


def test_packing():
    assert convert.to_bytes([1, -1, 7], "int4").tolist() == [0xF1, 0x07]
    assert convert.to_bytes(np.ones((2, 3)), "bf16").tolist() == [0x80, 0x3F] * 6
    assert convert.to_bytes(jnp.ones(2, jnp.float8_e4m3fn), "fp8").tolist() == [0x38, 0x38]
    assert convert.from_bytes(b"\xf1\x07", "int4", (3,)).tolist() == [1, -1, 7]


class Tensor:
    """What the converter asks of a torch tensor."""

    dtype = "torch.bfloat16"

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return self

    def numpy(self):
        return np.array([[1.0, -2.0]], np.float32)


def test_torch_tensors():
    assert convert.to_bytes(Tensor(), "int8").tolist() == [1, 254]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: convert.to_bytes([1.5], "int8", rounding="exact"), "1.5 is no value of int8"),
        (lambda: convert.to_bytes([np.nan], "int8"), "int8 holds no NaN"),
        (lambda: convert.to_bytes([np.nan], "fp4"), "fp4 holds no NaN"),
        (lambda: convert.to_bytes(["a"], "fp8"), "no array of numbers"),
        (lambda: convert.to_bytes([1], "int7"), "dtype = 'int7'"),
        (lambda: convert.to_bytes([1], "int8", rounding="up"), "rounding = 'up' is unknown"),
        (lambda: convert.from_bytes(b"abc", "int16", (2,)), r"shape \(2,\) in int16 is 4 \[byte\], got 3"),
    ],
)
def test_bad_arrays(call, match):
    with pytest.raises(KPUError, match=match):
        call()
