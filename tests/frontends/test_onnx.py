"""ONNX files: real models against ONNX Runtime, operators against ONNX's own cases, loops, quantisation, broken files."""

import importlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError
from kpu_jax.execution import machine_product, on_machine
from kpu_jax.workload import networks

onnx = pytest.importorskip("onnx", reason="extra onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from kpu_jax.frontends.onnx.load import onnx_function  # noqa: E402

F32 = TensorProto.FLOAT


def package(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0])


def save(tmp_path, nodes, inputs, outputs, weights=(), opset=17, **more):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def computed(path, arrays, **options):
    fn = onnx_function(path, **options)
    with jax.enable_x64(True):
        outputs = jax.jit(fn)({k: jnp.asarray(v) for k, v in arrays.items() if k in fn.inputs})
    return [np.asarray(outputs[name]) for name in fn.outputs]


def random(shape, dtype, rng):
    return rng.normal(size=shape).astype(dtype) if np.dtype(dtype).kind == "f" else rng.integers(0, 9, shape).astype(dtype)


def check_against_runtime(path, tolerance=1e-4, fixed=None, **options):
    """The workload of `path`, after its JAX function gave ONNX Runtime's numbers on random inputs."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    runtime.set_default_logger_severity(4)
    rng = np.random.default_rng(0)
    arrays = {k: random(v.shape, v.dtype, rng) for k, v in onnx_function(path, inputs=fixed, **options).inputs.items()}
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {**arrays, **{k: np.asarray(v, np.int64) for k, v in (fixed or {}).items()}})
    got = computed(path, arrays, inputs=fixed, **options)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))
    return kpu.load_onnx(path, inputs=fixed, **options)


REAL = {
    "classifier": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"shapes": {"x": (1, 3, 48, 192)}}),
    "recogniser": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"shapes": {"x": (1, 3, 48, 64)}}),
    "detector": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"shapes": {"x": (1, 3, 96, 96)}}),
    "voice": (
        "silero_vad",
        "data/silero_vad.onnx",
        {"shapes": {"input": (1, 576), "state": (2, 1, 128)}, "fixed": {"sr": 16000}},
    ),
    "voice, ifless": ("silero_vad", "data/silero_vad_op18_ifless.onnx", {"dims": {"batch": 2, "sequence": 576}, "fixed": {"sr": 16000}}),
    "voices": ("silero_vad", "data/silero_vad_16k_sequence.onnx", {"dims": {"sequence_length": 5}}),
}


def some(names, often):
    """Parameters, those that CI does not run every time marked `long`."""
    return [pytest.param(n, marks=() if n in often else pytest.mark.long) for n in names]


@pytest.mark.parametrize("name", some(REAL, ("classifier", "detector", "voice")))
def test_real_models(name):
    module, file, options = REAL[name]
    path = package(module) / file
    net = check_against_runtime(path, **options)
    assert net.macs.sum() > 0 and not net.host_work
    assert all(o.source.startswith(path.name) and o.scope for o in net.origins)
    report = kpu.simulate(kpu.presets.edge_ai(), net.gemm_work(), ONE, timing="bound") if len(net) < 30 else None
    assert report is None or float(report.macs) == net.macs.sum()


def small_network(tmp_path):
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Flatten", ["b"], ["c"], name="flat"),
        helper.make_node("Gemm", ["c", "v"], ["scores"], name="gemm", transB=1),
        helper.make_node("ArgMax", ["scores"], ["best"], name="best", axis=1),
    ]
    weights = [(n, rng.normal(size=shape).astype(np.float32)) for n, shape in (("w", (3, 2, 3, 3)), ("v", (4, 75)))]
    outputs = [("scores", F32, [1, 4]), ("best", TensorProto.INT64, [1, 1])]
    return save(tmp_path, nodes, [("x", F32, [1, 2, 5, 5])], outputs, weights), {}


def voice(_):
    return package("silero_vad") / "data/silero_vad.onnx", {"shapes": {"input": (1, 576), "state": (2, 1, 128)}, "inputs": {"sr": 16000}}


@pytest.mark.long  # the report searches the best mappings, whose kernels take long to compile
@pytest.mark.parametrize("build", [small_network, voice])
def test_the_machine_computes_what_onnx_runtime_computes(build, tmp_path):
    """The same weights end to end in float32, every product and convolution by the machine."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path, options = build(tmp_path)
    model = kpu.onnx_function(path, **options)
    rng = np.random.default_rng(0)
    arrays = {k: random(v.shape, v.dtype, rng) for k, v in model.inputs.items()}
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {**arrays, **{k: np.asarray(v) for k, v in options.get("inputs", {}).items()}})
    with kpu.Simulator() as sim:
        value, report = sim.execute(model)(arrays)
        assert list(value) == sorted(model.outputs) and sim.report is report
        assert float(report.macs) == kpu.load_onnx(path, **options).macs.sum()
    for name, expected in zip(model.outputs, want, strict=True):
        assert value[name].dtype == expected.dtype
        np.testing.assert_allclose(value[name], expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_on_the_machine_a_model_gives_what_onnx_runtime_gives(tmp_path):
    """The machine's numbers alone, without the report that `sim.execute` adds."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path, _ = small_network(tmp_path)
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)
    model = kpu.onnx_function(path)
    with jax.enable_x64(True):
        value = jax.jit(on_machine(model, machine_product()))({"x": x})
    scores, best = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(value["scores"], scores, rtol=0, atol=2e-6 * np.abs(scores).max())
    assert value["best"].dtype == np.int64 and value["best"] == best


ONE = kpu.Mapping(l3_tile=(2**20, 16, 16), l2_tile=(16, 16, 16), buffering=("single", "single", "single"))


def test_resnet50_of_onnx_is_resnet50():
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    if not path.exists():
        pytest.skip("this onnx ships no light models")
    assert kpu.load_onnx(path).macs.sum() == networks.resnet50().macs.sum()


CASES = {  # ONNX's own test cases: operator -> how many of its cases run here
    "Conv": 4, "ConvTranspose": 10, "Gemm": 11, "MatMul": 3, "MaxPool": 12, "AveragePool": 14, "LSTM": 4, "GRU": 4, "RNN": 3,
    "BatchNormalization": 1, "LayerNormalization": 4, "Softmax": 4, "Slice": 6, "Pad": 5, "Reshape": 5, "Gather": 4, "Where": 1,
    "Split": 4, "Resize": 20, "QLinearConv": 1, "QLinearMatMul": 4, "MatMulInteger": 1, "ConvInteger": 2, "DequantizeLinear": 4,
    "QuantizeLinear": 3, "Einsum": 4, "CumSum": 4, "TopK": 3, "ReduceL2": 4, "ArgMax": 4, "ScatterND": 3, "ScatterElements": 4,
    "GatherND": 2, "DepthToSpace": 2, "Attention": 8, "Clip": 4, "Trilu": 4, "OneHot": 3, "Pow": 3, "Mod": 2, "Elu": 2, "Scan": 1,
}  # fmt: skip


MODULES = {"BatchNormalization": "batchnorm", "AveragePool": "averagepool"}  # where they are not the operator's name


def cases_of(name):
    """ONNX's own cases of one operator. Importing the module makes them; `collect_testcases` imports all, which takes long."""
    from onnx.backend.test.case import node

    importlib.import_module(f"{node.__name__}.{MODULES.get(name, name.lower())}")
    for case in node._NodeTestCases:
        if case.model.graph.node[0].op_type != name:
            continue
        arrays = case.data_sets[0][0]
        wanted = case.data_sets[0][1]
        plain = all(isinstance(v, (np.ndarray, np.generic)) and v.dtype.kind in "fiub" and np.size(v) for v in (*arrays, *wanted))
        if plain and len(case.model.graph.node) == 1 and len(case.model.graph.input) == len(arrays):
            yield case


OFTEN = ("Conv", "ConvTranspose", "AveragePool", "LSTM", "GRU", "Resize", "Slice", "Pad", "QLinearMatMul", "ConvInteger", "Attention")


@pytest.mark.parametrize("name", some(CASES, OFTEN))
@pytest.mark.filterwarnings("ignore")
def test_operators_give_what_onnx_expects(name, tmp_path):
    done = 0
    for case in cases_of(name):
        if done == CASES[name]:
            break
        (tmp_path / "m.onnx").write_bytes(case.model.SerializeToString())
        arrays = dict(zip((v.name for v in case.model.graph.input), case.data_sets[0][0], strict=True))
        small = {k: v for k, v in arrays.items() if v.ndim <= 1 and (v.dtype.kind in "iub" and v.size <= 8 or name == "Resize")}
        try:
            got = computed(tmp_path / "m.onnx", arrays, inputs=small, shapes={k: v.shape for k, v in arrays.items() if k not in small})
        except KPUError as error:
            assert "not supported" in str(error) or "unknown" in str(error), error
            continue
        for a, b in zip(got, case.data_sets[0][1], strict=True):
            assert a.shape == np.shape(b), case.name
            np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=2e-3, atol=1e-4, err_msg=case.name)
        done += 1
    assert done, f"no case of {name} ran"


# -- bodies, quantisation, host work


def body_of_loop(steady=True):
    test = helper.make_node("Identity", ["c"], ["c2"]) if steady else helper.make_node("Less", ["n", "most"], ["c2"])
    nodes = [helper.make_node("MatMul", ["h", "w"], ["h2"], name="inner"), test, helper.make_node("Identity", ["h2"], ["y"])]
    inputs = [("n", TensorProto.INT64, []), ("c", TensorProto.BOOL, []), ("h", F32, [2, 4])]
    outputs = [("c2", TensorProto.BOOL, []), ("h2", F32, [2, 4]), ("y", F32, [2, 4])]
    infos = [[helper.make_tensor_value_info(*v) for v in side] for side in (inputs, outputs)]
    return helper.make_graph(nodes, "body", infos[0], infos[1])


def test_loops_are_listed_once(tmp_path):
    node = helper.make_node("Loop", ["trips", "", "h0"], ["h_end", "all"], name="repeat", body=body_of_loop())
    weights = [("trips", np.int64(6)), ("w", np.eye(4, dtype=np.float32) * 0.5)]
    path = save(tmp_path, [node], [("h0", F32, [2, 4])], [("h_end", F32, [2, 4]), ("all", F32, [6, 2, 4])], weights)
    net = check_against_runtime(path)
    at = [i for i, m in enumerate(net.macs) if m]
    assert net.macs.sum() == 6 * 32 and len(at) == 1 and net.repeats[at[0]] == 6 and "inner" in net.names[at[0]]
    node = helper.make_node("Loop", ["trips", "go", "h0"], ["h_end", "all"], name="repeat", body=body_of_loop(steady=False))
    weights += [("most", np.int64(3)), ("go", np.bool_(True))]
    path = save(tmp_path, [node], [("h0", F32, [2, 4])], [("h_end", F32, [2, 4])], weights)
    with pytest.raises(
        KPUError, match=r"m.onnx: node 'repeat' \(Loop\): it runs as often as its data say: .*while_trips=\{'repeat': 100\}"
    ):
        kpu.load_onnx(path)
    assert kpu.load_onnx(path, while_trips={"repeat": 4}).macs.sum() == 4 * 32


def if_file(tmp_path, other=4):
    def branch(name, width):
        out = helper.make_tensor_value_info("y", F32, None)
        return helper.make_graph([helper.make_node("MatMul", ["x", f"w{width}"], ["y"], name=name)], name, [], [out])

    node = helper.make_node("If", ["test"], ["z"], name="choose", then_branch=branch("wide", 4), else_branch=branch("other", other))
    weights = [(f"w{n}", np.ones((3, n), np.float32)) for n in {4, other}]
    return save(tmp_path, [node], [("test", TensorProto.BOOL, []), ("x", F32, [2, 3])], [("z", F32, None)], weights)


def test_branches(tmp_path):
    path = if_file(tmp_path, 5)
    assert [kpu.load_onnx(path, inputs={"test": np.bool_(t)}).macs.sum() for t in (True, False)] == [24, 30]
    with pytest.raises(KPUError, match=r"node 'choose' \(If\): the branches give .*\(2, 4\).* and .*\(2, 5\).*inputs="):
        kpu.load_onnx(path)
    assert kpu.load_onnx(if_file(tmp_path)).macs.sum() == 24


def test_quantised_operands_multiply_as_integers(tmp_path):
    rng = np.random.default_rng(1)
    q = rng.integers(-127, 127, (8, 6)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="product"),
    ]
    weights = [
        ("sx", np.float32(0.05)),
        ("zx", np.uint8(7)),
        ("wq", q),
        ("sw", rng.uniform(0.01, 0.02, 6).astype(np.float32)),
        ("zw", np.zeros(6, np.int8)),
    ]
    net = check_against_runtime(save(tmp_path, nodes, [("x", F32, [5, 8])], [("y", F32, [5, 6])], weights))
    (op,) = [op for _, op in net if op.macs]
    assert (op.m, op.n, op.k, op.a_bits, op.b_bits, op.acc_bits) == (5, 6, 8, 8, 8, 32)


def test_a_quantised_convolution_with_padding_and_zero_points(tmp_path):
    rng = np.random.default_rng(2)
    weights = [
        ("sx", np.float32(0.02)), ("zx", np.uint8(131)), ("w", rng.integers(-99, 99, (6, 2, 3, 3)).astype(np.int8)),
        ("sw", rng.uniform(0.01, 0.03, 6).astype(np.float32)), ("zw", np.zeros(6, np.int8)), ("sy", np.float32(0.1)), ("zy", np.uint8(120)),
    ]  # fmt: skip
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    node = helper.make_node("QLinearConv", names, ["y"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2], group=2)
    path = save(tmp_path, [node], [("x", TensorProto.UINT8, [1, 4, 9, 9])], [("y", TensorProto.UINT8, [1, 6, 5, 5])], weights)
    net = check_against_runtime(path, tolerance=0.01)
    assert net.macs.sum() == 25 * 6 * 2 * 9 and {int(op.a_bits) for _, op in net if op.macs} == {8}


def unknown(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Mystery", ["a"], ["b"], name="strange", domain="com.example"),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="second"),
    ]
    return save(tmp_path, nodes, [("x", F32, ["batch", 4])], [("y", F32, ["batch", 4])], [("w", np.ones((4, 4), np.float32))])


def test_an_unknown_operator_and_its_policies(tmp_path):
    path = unknown(tmp_path)
    with pytest.raises(KPUError, match=r"node 'strange' \(com.example::Mystery\): .*not supported.*'host'.*'skip'"):
        kpu.load_onnx(path, dims={"batch": 3})
    net = kpu.load_onnx(path, dims={"batch": 3}, unsupported="host")
    (work,) = net.host_work
    assert (work.function, work.bytes_to_host, work.bytes_from_host, work.readers) == ("com.example::Mystery", 48, 48, (1,))
    assert net.macs.sum() == 96 and "strange" in work.origin.source
    assert kpu.load_onnx(path, dims={"batch": 3}, unsupported="skip").host_work == ()
    one_left_out = helper.make_node("Mystery", ["x"], ["y", ""], name="strange", domain="com.example")
    path = save(tmp_path, [one_left_out], [("x", F32, [3, 4])], [("y", F32, None)])
    with pytest.raises(KPUError, match=r"m.onnx: the function gives the chip nothing to do: all its work is the host's \(strange"):
        kpu.load_onnx(path, unsupported="host")


# -- what is wrong with a file


def test_dimensions_are_bound_by_name(tmp_path):
    path = unknown(tmp_path)
    for options, match in (
        ({}, r"the input 'x' has the unknown shape \(batch, 4\): bind it with dims=\{'batch': 1\}"),
        ({"dims": {"batch": 0}}, r"dims\['batch'\] must be an integer at least 1 \[elements\], got 0"),
        ({"dims": {"batsch": 1}}, "dims names 'batsch', which the model does not have: did you mean 'batch'"),
        ({"shapes": {"x": (3, 5)}}, r"shapes\['x'\] = \(3, 5\) does not fit the declared \(batch, 4\)"),
        ({"inputs": {"z": 1}}, "inputs names 'z', which the model does not have"),
        ({"unsupported": "ignore"}, "unsupported = 'ignore' is unknown"),
    ):
        with pytest.raises(KPUError, match=match):
            kpu.load_onnx(path, **options)


def test_broken_files(tmp_path):
    path = unknown(tmp_path)
    whole = path.read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"\x00" * 50, b"not a model at all"):
        path.write_bytes(data)
        with pytest.raises(KPUError, match="m.onnx: corrupt or truncated"):
            kpu.load_onnx(path, dims={"batch": 1})
    with pytest.raises(KPUError, match="none.onnx: cannot be read"):
        kpu.load_onnx(tmp_path / "none.onnx")
    relu = [helper.make_node("Relu", [a], [b], name=f"{a}{b}") for a, b in (("x", "a"), ("c", "b"), ("b", "c"))]
    for nodes, match in (
        (relu, "the graph has a cycle: cb -> bc -> cb"),
        ([helper.make_node("Relu", ["q"], ["y"], name="r")], r"node 'r' \(Relu\) reads 'q', which nothing writes"),
        ([relu[0], relu[0]], "the value 'a' is written twice"),
        ([helper.make_node("Add", ["x", "w"], ["c"], name="sum")], r"node 'sum' \(Add\): .* on inputs of shapes \(2, 3\), \(4,\)"),
    ):
        path = save(tmp_path, nodes, [("x", F32, [2, 3])], [(nodes[-1].output[0], F32, None)], [("w", np.ones(4, np.float32))])
        with pytest.raises(KPUError, match=f"m.onnx: {match}"):
            kpu.load_onnx(path)


def broken(data, rng):
    """A file cut short, or with bytes changed, zeroed or written twice."""
    b, at = bytearray(data), int(rng.integers(len(data)))
    kind = int(rng.integers(5))
    if kind == 0:
        return bytes(b[:at])
    if kind == 1:
        b[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in rng.integers(len(b), size=int(rng.integers(2, 20))):
            b[place] = int(rng.integers(256))
    elif kind == 3:
        b[at : at + 8] = bytes(len(b[at : at + 8]))
    else:
        b[at:at] = b[at : at + int(rng.integers(1, 64))]
    return bytes(b)


FUZZED = {
    "voice": ("silero_vad", "data/silero_vad.onnx", {"shapes": {"input": (1, 576), "state": (2, 1, 128)}, "inputs": {"sr": 16000}}),
    "classifier": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"shapes": {"x": (1, 3, 48, 32)}}),
}


@pytest.mark.parametrize(("name", "count"), [("voice", 40), pytest.param("voice", 300, marks=pytest.mark.long),
                                             pytest.param("classifier", 300, marks=pytest.mark.long)])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_raises_nothing_but_kpu_errors(name, count, tmp_path):
    module, file, options = FUZZED[name]
    data, rng, refused = (package(module) / file).read_bytes(), np.random.default_rng(count), 0
    for i in range(count):
        start = (0, 0, max(0, len(data) - 20_000))[i % 3]  # anywhere, or where nodes and shapes stand: at the beginning and the end
        end = (len(data), 20_000, len(data))[i % 3]
        damaged = data[:start] + broken(data[start:end], rng) + data[end:]
        (tmp_path / "m.onnx").write_bytes(damaged)
        try:
            kpu.load_onnx(tmp_path / "m.onnx", **options)
        except KPUError as error:
            refused += 1
            assert "m.onnx" in str(error) and "\n" not in str(error)
    assert refused > count // 4


def test_missing_external_weights(tmp_path):
    model = onnx.load(unknown(tmp_path))
    onnx.save_model(model, tmp_path / "e.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert kpu.load_onnx(tmp_path / "e.onnx", dims={"batch": 3}, unsupported="skip").macs.sum() > 0
    (tmp_path / "weights.bin").write_bytes(b"12")
    with pytest.raises(KPUError, match="the weights 'w' (cannot be read|are corrupt)"):
        kpu.load_onnx(tmp_path / "e.onnx", dims={"batch": 3})
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(KPUError, match="the weights 'w' are in 'weights.bin', which is not beside the file"):
        kpu.load_onnx(tmp_path / "e.onnx", dims={"batch": 3})
