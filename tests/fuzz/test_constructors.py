"""Arbitrary input to constructors and files: a `KPUError` in one line, or something that the checks accept too."""

import contextlib
import datetime
import importlib.resources
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpu_jax.base.errors import KPUError
from kpu_jax.explore.space import Space
from kpu_jax.explore.study import load_study
from kpu_jax.hardware import check_config, load_config, preset
from kpu_jax.hardware.fields import FIELDS, section_paths
from kpu_jax.mapping.mapping import BUFFERINGS, DATAFLOWS, ORDERS, PASS_ORDERS, Mapping, check_mapping
from kpu_jax.workload import ACTIVATIONS, VECTOR_FUNCTIONS, Conv, Gemm, VectorOp, Workload, check_op

COUNTS = [250, pytest.param(20_000, marks=pytest.mark.long)]
CHIP = (importlib.resources.files("kpu_jax.hardware") / "preset_files" / "edge_ai.yaml").read_text()
STUDY = (Path(__file__).parents[2] / "experiments" / "which_kpu" / "space.toml").read_text()
ODD_OBJECTS = (
    [10**400, -(10**1000), 2**31, 2**53 + 2, 4j, object(), len, int, Ellipsis, datetime.date(2020, 1, 1), range(3), {1, 2}]
    + [np.float32(2), np.array(3), np.array([1, 2, 3]), np.array("4"), np.array(True), np.array(None), np.datetime64("2020")]
    + [jnp.array(-5), jnp.array(jnp.nan), jnp.array([1, 2, -3]), jnp.array(True), jnp.array(2.5), np.float64, np.dtype("i4,f4")]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
ODD = st.recursive(
    SCALARS | st.sampled_from(ODD_OBJECTS),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
SIZES = st.integers(1, 512)
DTYPES = st.sampled_from(["int8", "fp16", "float32", "int7", np.int8, jnp.bfloat16])
OPTIONS = {
    "batch": SIZES,
    "dtype": DTYPES,
    "b_dtype": DTYPES,
    "acc_dtype": DTYPES,
    "bias": st.booleans(),
    "activation": st.sampled_from(ACTIVATIONS),
    "density_a": st.floats(0, 1),
    "zero_gating": st.floats(0, 1),
    "data_on": st.sampled_from(["l3", "host", {"A": "l3"}]),
    "reserved_l3_bytes": SIZES,
    "count": SIZES,
}
CONV_OPTIONS = {k: v for k, v in OPTIONS.items() if k != "batch"}
GEMM = ({"m": SIZES, "n": SIZES, "k": SIZES}, OPTIONS)
PIXELS = st.integers(1, 9)
CONV = (
    dict.fromkeys(("images", "in_h", "in_w", "in_channels", "out_channels"), SIZES),
    {**CONV_OPTIONS, **dict.fromkeys(("kernel", "stride", "dilation", "groups"), PIXELS), "padding": PIXELS | st.just("same")},
)
VECTOR = (
    {"elements": SIZES},
    {"function": st.sampled_from(list(VECTOR_FUNCTIONS)), "inputs": SIZES, "outputs_per_element": st.floats(0, 1), "count": SIZES},
)
TILE = st.tuples(SIZES, SIZES, SIZES)
MAPPING = (
    {"l3_tile": TILE, "l2_tile": TILE},
    {
        "dataflow": st.sampled_from([*DATAFLOWS, "os"]),
        "l3_order": st.sampled_from(ORDERS),
        "pass_order": st.sampled_from(PASS_ORDERS),
        "buffering": st.tuples(*[st.sampled_from(BUFFERINGS)] * 3),
        "partition": st.tuples(SIZES, SIZES, SIZES, SIZES),
    },
)
PATHS = st.sampled_from([*FIELDS, *section_paths(), "name", "technology.dram", "clock"]) | st.text(max_size=9)


def fuzz(count):
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def arguments(required, optional):
    """Keyword arguments that are mostly right, some of them odd."""
    often = {k: v | v | ODD for k, v in {**required, **optional}.items()}
    return st.fixed_dictionaries({k: often[k] for k in required}, optional={k: often[k] for k in optional})


@contextlib.contextmanager
def only_kpu_errors(name=""):
    try:
        yield
    except KPUError as error:
        assert name in str(error) and len(str(error)) < 3000 and "\n" not in str(error)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("make", "given_to", "check"),
    [(Gemm, GEMM, check_op), (Conv, CONV, check_op), (VectorOp, VECTOR, check_op), (Mapping, MAPPING, check_mapping)],
    ids=["Gemm", "Conv", "VectorOp", "Mapping"],
)
def test_constructors(make, given_to, check, count):
    made = []

    @fuzz(count)
    @given(arguments(*given_to))
    def attempt(kw):
        with only_kpu_errors():
            made.append(make(**kw))

    attempt()
    assert len(made) > count / 50
    for each in made:
        check(each)
        assert "\n" not in repr(each)


@pytest.mark.parametrize("count", COUNTS)
def test_replace_and_spaces(count):
    cfg = preset("edge_ai")

    @fuzz(count)
    @given(st.dictionaries(PATHS, ODD | st.floats(1, 1000) | SIZES, max_size=3) | ODD, st.lists(ODD | SIZES, max_size=3) | ODD)
    def attempt(changes, values):
        with only_kpu_errors():
            check_config(cfg.replace(changes))
        paths = changes if isinstance(changes, dict) else {"compute.tile_count": 1}
        for fields in (changes, dict.fromkeys(paths, values), {tuple(paths): values}):
            with only_kpu_errors():
                check_config(Space(fields).chip(0))
        for wrong in (values, changes):
            for check in (check_config, check_op, check_mapping):
                with pytest.raises(KPUError):
                    check(wrong)

    attempt()


@pytest.mark.parametrize("count", COUNTS)
def test_workloads(count):
    ops = st.sampled_from([Gemm(8, 8, 8), VectorOp(8), Gemm(2, 3, 4, count=3)])
    item = ops | st.tuples(st.sampled_from("ab"), ops, ODD | st.sampled_from(["a", 0, ["a", 0], []])) | ODD

    @fuzz(count)
    @given(st.lists(item, max_size=4) | ODD)
    def attempt(items):
        with only_kpu_errors():
            check_op(Workload.from_ops(items).ops)

    attempt()


YAML_TOKENS = (
    ["!!bool foo", "!!timestamp foo", "!!int ''", "!!python/object:os.system x", "! 3", "&a [*a]", "*zzz", "1e999", ".nan", "-.inf"]
    + ["0x10", "0o17", "017", "1:30", "1_000", "~", "yes", "2020-13-45", "'8'", '"\\ud800"', '"\\x00"', "[]", "{}", "{a: 1}", "|\n x"]
    + ["? x", "-", "---", "...", "%YAML 9", "@", "{<<: 5}", "{? [1]: 2}", "9" * 400, "9" * 5000, "-0", "3.5", "true", "[[[[[[[[[[", "1__"]
)
TOML_TOKENS = (
    ["0", "-1", "1.5", "nan", "inf", "true", '"x"', "[]", "{}", "[[]]", "[[1, 2], [3]]", '["8"]', "[true]", "[{a=1}]", "9" * 400]
    + ["9" * 5000, "1979-05-27", "07:32:00", '[{network="bert_base",name="x"}]', '[{network="mlp",sizes=5}]', "[{}]", '"x.yaml"']
    + ['"\\u0000.yaml"', '["compute.tile_count"]', '[["compute.tile_count"]]', '"technology.dram"', '"a..b"', "1e400", "[" * 2000]
)


def mutated(text, tokens):
    """`text` after a few edits: a value replaced, a line doubled, dropped, indented or cut, a character changed."""
    lines = text.splitlines()

    def edit(edits):
        out = list(lines)
        for kind, at, token, char in edits:
            i = at % len(out)
            head, mark, _ = out[i].partition(":" if ":" in out[i].split("#")[0] else "=")
            if kind == "value":
                out[i] = f"{head}{mark} {token}"
            elif kind == "key":
                out[i] = token + out[i][len(head) :]
            elif kind == "character":
                cut = at % (len(out[i]) + 1)
                out[i] = out[i][:cut] + char + out[i][cut + 1 :]
            else:
                out[i : i + 1] = {"double": [out[i]] * 2, "drop": [""], "indent": [" " + out[i]], "cut": [out[i][: at % 20]]}[kind]
        return "\n".join(out)

    kinds = st.sampled_from(["value", "value", "key", "character", "double", "drop", "indent", "cut"])
    characters = st.characters(codec="utf-8")
    return st.lists(st.tuples(kinds, st.integers(0, 10_000), st.sampled_from(tokens), characters), min_size=1, max_size=3).map(edit)


@pytest.mark.parametrize("count", COUNTS)
def test_configuration_files(tmp_path, count):
    plain = json.dumps(yaml.safe_load(CHIP), indent=1)
    as_json = mutated(plain, ["null", "NaN", "Infinity", "1e999", "9" * 5000, '"8"', "[]", "{}", "true", '"\\ud800"', "-1", "[" * 9999])

    @fuzz(count)
    @given(
        st.tuples(st.just("chip.yaml"), mutated(CHIP, YAML_TOKENS).map(str.encode) | st.binary(max_size=40))
        | st.tuples(st.just("chip.json"), as_json.map(str.encode) | st.binary(max_size=40))
    )
    def attempt(named):
        file = tmp_path / named[0]
        file.write_bytes(named[1])
        with only_kpu_errors(named[0]):
            check_config(load_config(file))

    attempt()


@pytest.mark.parametrize("count", COUNTS)
def test_study_files(tmp_path, count):
    file = tmp_path / "study.toml"

    @fuzz(count)
    @given(mutated(STUDY.replace('"resnet50", ', ""), TOML_TOKENS).map(str.encode) | st.binary(max_size=40))
    def attempt(content):
        file.write_bytes(content)
        with only_kpu_errors("study.toml"):
            check_op(load_study(file).workload.ops)

    attempt()
