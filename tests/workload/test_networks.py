"""Networks against published layer tables."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.workload import CONV, NETWORK_NAMES, network, networks
from kpu_jax.workload.op import ACTIVATIONS

DATA = Path(__file__).parents[1] / "reference" / "data"


def _read(name):
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


MODELS = {
    "BERT-base": "bert_base",
    "BERT-large(MLPerf)": "bert_large",
    "ViT-B/16": "vit_b16",
    "ViT-L/16": "vit_l16",
    "GPT-2-small": "gpt2",
    "GPT-2-XL": "gpt2_xl",
    "GPT-3-6.7B": "gpt3_6_7b",
    "GPT-3-175B": "gpt3_175b",
    "Llama-2-7B": "llama2_7b",
    "Llama-3-8B": "llama3_8b",
    "Llama-3-70B": "llama3_70b",
}


def _arguments(name, row):
    batch, new, context = (int(row[x]) for x in ("batch", "new_tokens", "context"))
    if name.startswith("llama"):
        return {"mode": row["mode"], "batch": batch, "new_tokens": new, "context": context}
    return {"batch": batch} | ({} if name.startswith("vit") else {"sequence": context})


TRANSFORMER_ROWS = _read("transformer_gemms.csv")
CASES = sorted({(r["model"], r["mode"], r["batch"], r["new_tokens"], r["context"]) for r in TRANSFORMER_ROWS})


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_transformers_equal_every_reference_row(case):
    rows = [
        r for r in TRANSFORMER_ROWS if tuple(r[x] for x in ("model", "mode", "batch", "new_tokens", "context")) == case
    ]
    name = MODELS[case[0]]
    net = network(name, **_arguments(name, rows[0]))
    counted = Counter()
    for full, op in net:
        counted[full.split(".")[-1], int(op.m), int(op.n), int(op.k)] += int(op.batch)
    want = {(r["op"], int(r["M"]), int(r["N"]), int(r["K"])): int(r["count"]) for r in rows}
    assert counted == want
    for r in rows:
        assert net.macs[[n.split(".")[-1] == r["op"] for n in net.names]].sum() == int(r["macs_total"])
    assert net.macs.sum() == sum(int(r["macs_total"]) for r in rows)


def test_every_model_of_the_reference_is_offered():
    assert {r["model"] for r in TRANSFORMER_ROWS} <= set(MODELS)


def test_resnet50_equals_every_reference_row():
    net = networks.resnet50()
    rows = _read("resnet50_layers.csv")
    assert len(net) == 54 and len(net.macs) == 54 and net.rows == len(rows) and net.macs.sum() == 4_089_184_256
    for i, r in enumerate(rows):
        op = net.row(i)
        assert net.names[net.row_of.index(i)] == r["first_layer"]
        want = tuple(int(r[x]) for x in ("count", "gemm_M_b1", "gemm_N", "gemm_K", "macs_per_layer_b1"))
        assert (op.count, op.m, op.n, op.k, op.macs) == want
        if op.kind == CONV:
            want = tuple(int(r[x]) for x in ("R", "S", "stride", "C_in", "P_out", "Q_out"))
            assert (op.kernel_h, op.kernel_w, op.stride_h, op.channels, op.out_h, op.out_w) == want
            assert op.pad_top == op.pad_left == int(r["R"]) // 2


def test_resnet50_equals_the_second_source():
    want = Counter()
    for r in _read("dosa_layers.csv"):
        if r["workload"] == "resnet50":
            want[int(r["gemm_M"]), int(r["gemm_N"]), int(r["gemm_K"])] += int(r["count"])
    got = Counter((int(op.m), int(op.n), int(op.k)) for _, op in networks.resnet50())
    assert got == want


def test_resnet50_residuals():
    net = networks.resnet50()
    reads = {name: [net.names[p] for p in row if p >= 0] for name, row in zip(net.names, net.predecessors, strict=True)}
    assert reads["conv1"] == [] and reads["conv2_1_1x1a"] == ["conv1"]
    assert reads["conv2_1_1x1b"] == ["conv2_1_3x3"]
    assert reads["conv2_1_proj"] == ["conv1", "conv2_1_1x1b"]
    assert reads["conv2_2_1x1a"] == ["conv2_1_proj"]
    assert reads["conv2_2_1x1b"] == ["conv2_2_3x3", "conv2_1_proj"]
    assert reads["conv2_3_1x1b"] == ["conv2_3_3x3", "conv2_2_1x1b"]
    assert reads["fc"] == ["conv5_3_1x1b"]


def test_resnet50_fusion_and_vector_work():
    plain, full = networks.resnet50(), networks.resnet50(vector_ops=True)
    assert {int(a) for a in plain.ops.activation} == {0, ACTIVATIONS.index("relu")} and plain.ops.has_bias.all()
    vectors = [n for n, op in full if op.kind == 2]
    assert len(vectors) == 18 and vectors[0] == "maxpool" and vectors[-1] == "avgpool"
    assert full.gemm_work().names == plain.names and full.gemm_work().ops == plain.ops
    by_name = dict(full)
    pool = by_name["maxpool"]
    assert (
        pool.m == 64 * 112**2 and pool.m * pool.c_bits == 64 * 56**2 * 8 and pool.m * pool.vector_simple == 64 * 56**2 * 9
    )
    assert by_name["conv5_3_add"].m == 2048 * 49


def test_batch_folds_into_rows():
    one, eight = networks.resnet50(), networks.resnet50(batch=8, dtype="bf16")
    np.testing.assert_array_equal(eight.ops.m, 8 * one.ops.m)
    np.testing.assert_array_equal(eight.macs, 8 * one.macs)
    bert = dict(networks.bert_base(batch=4, sequence=32))
    assert (bert["layer0.q_proj"].m, bert["layer0.attn_qk"].m, bert["layer0.attn_qk"].batch) == (128, 32, 48)


def test_mobilenet_v2():
    net = networks.mobilenet_v2()
    assert len(net) == 53 and net.macs.sum() == 300_774_272
    assert sum(op.batch > 1 for _, op in net) == 17
    assert dict(net)["block17_project"].m == 49


def test_transformer_vector_work_and_dependences():
    bert, full = networks.bert_base(), networks.bert_base(vector_ops=True)
    assert len(full) == 12 * 13 and full.gemm_work().names == bert.names
    reads = {n: [full.names[p] for p in row if p >= 0] for n, row in zip(full.names, full.predecessors, strict=True)}
    assert reads["layer1.q_proj"] == ["layer0.ffn_norm"]
    assert reads["layer0.attn_pv"] == ["layer0.softmax", "layer0.v_proj"]
    assert reads["layer0.ffn_add"] == ["layer0.ffn_down", "layer0.attn_norm"]
    llama = networks.llama3_8b(vector_ops=True)
    assert len(llama) == 32 * (9 + 8) + 2 and "layer0.k_rotary" in llama.names
    assert dict(llama)["layer0.ffn_gate"].activation == ACTIVATIONS.index("silu")
    plain = networks.llama2_7b()
    reads = {n: [plain.names[p] for p in row if p >= 0] for n, row in zip(plain.names, plain.predecessors, strict=True)}
    assert reads["layer1.o_proj"] == ["layer1.attn_pv", "layer0.ffn_down"]
    assert reads["layer0.ffn_down"] == ["layer0.ffn_up", "layer0.ffn_gate", "layer0.o_proj"]


def test_llama_defaults():
    assert networks.llama2_7b("prefill", context=512) == networks.llama2_7b("prefill", 1, 512, 512)
    assert networks.llama2_7b("decode") == networks.llama2_7b("decode", 1, 1, 2048)
    chunk = dict(networks.llama2_7b("prefill", new_tokens=256, context=1024))
    assert (chunk["layer0.attn_qk"].m, chunk["layer0.attn_qk"].n, chunk["lm_head"].m) == (256, 1024, 256)
    assert networks.gpt2(sequence=64, mode="decode").macs.sum() < networks.gpt2(sequence=64).macs.sum() / 60


def test_vit_ends():
    net = networks.vit_b16(embed_and_head=True)
    assert net.names[0] == "patch_embed" and net.names[-1] == "head"
    assert net.macs[0] == 196 * 768 * 768 and net.macs[-1] == 768_000


def test_perceptrons():
    net = networks.mlp(32, (10, 20, 5), activation="tanh")
    assert net.macs.tolist() == [32 * 200, 32 * 100]
    assert [ACTIVATIONS[int(op.activation)] for _, op in net] == ["tanh", "none"]
    dlrm = dict(networks.dlrm(batch=16))
    assert dlrm["top0"].k == 479 and dlrm["interaction"].batch == 16 and dlrm["top4"].n == 1


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_every_network_builds_and_prints(name):
    net = network(name)
    assert net.macs.min() > 0 and len(set(net.names)) == len(net) and name in networks.__all__
    assert len(repr(net).splitlines()) == net.rows + 2
    assert (net.predecessors < np.arange(len(net))[:, None]).all()


@pytest.mark.parametrize(
    ("name", "kw", "match"),
    [
        ("resnet5", {}, "network = 'resnet5' is unknown: did you mean 'resnet50'"),
        ("resnet50", {"batches": 1}, "network 'resnet50' has no argument 'batches': did you mean 'batch'"),
        ("resnet50", {"batch": 0}, r"resnet50.batch must be .* \[images\], got 0"),
        ("resnet50", {"batch": float("nan")}, "resnet50.batch must be .* got nan"),
        ("resnet50", {"vector_ops": 1}, "resnet50.vector_ops must be true or false"),
        ("resnet50", {"dtype": "int7"}, "dtype = 'int7'"),
        ("bert_base", {"sequence": 1.5}, r"sequence must be .* \[tokens\].*fraction"),
        ("llama2_7b", {"mode": "decod"}, "mode = 'decod' is unknown: did you mean 'decode'"),
        ("gpt2", {"mode": "train"}, "mode = 'train' is unknown"),
        ("llama2_7b", {"new_tokens": 10, "context": 9}, r"context = 9 \[tokens\] is shorter than new_tokens = 10"),
        ("llama2_7b", {"new_tokens": 0}, "new_tokens must be"),
        ("vit_b16", {"image_size": 225}, "must be a multiple of the patch, 16"),
        ("bert_base", {"name": "x"}, "network 'bert_base' has no argument 'name'"),
        ("mlp", {"sizes": (3,)}, "at least 2 layer sizes"),
        ("mlp", {"sizes": "784"}, "must be a sequence"),
        ("mlp", {"sizes": (3, -1)}, r"mlp.sizes\[1\] must be"),
        ("dlrm", {"tables": 0}, "dlrm.tables must be"),
        ("mobilenet_v2", {"image_size": True}, "mobilenet_v2.image_size must be"),
    ],
)
def test_errors(name, kw, match):
    with pytest.raises(KPUError, match=match):
        network(name, **kw)


def test_a_transformer_of_ones_own():
    spec = networks.TransformerSpec(2, 64, 4, 256, kv_heads=2)
    assert len(networks.transformer(spec, new_tokens=8)) == 16
    with pytest.raises(KPUError, match="heads = 3 must divide hidden = 64"):
        networks.TransformerSpec(2, 64, 3, 256)
    for fields, message in (
        ((12, 768, 0, 3072), r"TransformerSpec\.heads must be .*\[heads\], got 0"),
        ((1.5, 768, 12, 3072), r"TransformerSpec\.layers .*fraction 1\.5"),
        (("a", 768, 12, 3072), r"TransformerSpec\.layers .*got 'a'"),
        ((1, 768, 12, 3072, -1), r"TransformerSpec\.kv_heads .*got -1"),
        ((1, 768, 12, 3072, 0, 0, 1), r"TransformerSpec\.gated must be true or false"),
        ((1, 768, 12, 3072, 0, 0, True, "x"), r"TransformerSpec\.activation = 'x'"),
    ):
        with pytest.raises(KPUError, match=message):
            networks.TransformerSpec(*fields)
    with pytest.raises(KPUError, match="spec must be a TransformerSpec, got NoneType"):
        networks.transformer(None, new_tokens=8)
