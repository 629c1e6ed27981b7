"""SCALE-Sim's topology files: the header forms, its own counts, and what is wrong in a file."""

import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
TWO = "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Stride Height,Stride Width\n"
ROW = "Conv1, 230, 224, 7, 5, 3, 64, 2,\n"


def load(tmp_path, text, **options):
    file = tmp_path / "t.csv"
    file.write_text(text)
    return kpu.load_topology(file, **options)


def counted(h, w, r, s, c, f, stride_h, stride_w):
    """SCALE-Sim's own count (`topo_calc_hyperparams`): ceil((ifmap - filter + stride) / stride) outputs per axis."""
    p, q = -(-(h - r + 1) // stride_h), -(-(w - s + 1) // stride_w)
    return p * q * r * s * c * f


def test_both_header_forms(tmp_path):
    one = load(tmp_path, CONV + ROW)
    assert one.macs.tolist() == [counted(230, 224, 7, 5, 3, 64, 2, 2)] and one.names == ("Conv1",)
    two = load(tmp_path, TWO + "Conv1,230,224,7,5,3,64,2,3\n\n")
    assert two.macs.tolist() == [counted(230, 224, 7, 5, 3, 64, 2, 3)] and two.row(0).stride_w == 3
    assert load(tmp_path, CONV.rstrip(",\n") + "\n" + ROW.rstrip(",\n")) == one  # no comma at the ends
    assert load(tmp_path, ROW) == one  # no header
    gemm = load(tmp_path, "Layer, M, N, K,\nQKT, 1024, 512, 64,\nQKT, 1, 2, 3,\n", dtype="bf16")
    assert gemm.names == ("QKT", "QKT_1") and gemm.macs.tolist() == [1024 * 512 * 64, 6] and gemm.row(0).a_bits == 16


def test_titles_depthwise_and_sparsity(tmp_path):
    net = load(tmp_path, CONV + "MobileNet,\n" + "Conv2 DP, 114, 114, 3, 3, 32, 1, 1,\nConv3, 112, 112, 1, 1, 32, 64, 1,\n")
    assert net.macs.tolist() == [112 * 112 * 9 * 32, 112 * 112 * 32 * 64] and net.row(0).batch == 32
    sparse = load(tmp_path, "Layer, M, N, K, Sparsity,\nL0, 256, 512, 768, 2:4,\n")
    assert sparse.row(0).density_b == 0.5 and sparse.row(0).density_a == 1


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file is empty"),
        (CONV, "holds no layers"),
        ("Layer, M, N\nx, 1, 2\n", "line 1: columns k are missing"),
        ("Layer, M, N, Q,\n", "line 1: unknown column 'Q'"),
        ("Layer, M, N, K,\nx, 1, 2,\n", r"line 2 \(x\): K must be an integer at least 1 \[elements\], got ''"),
        ("Layer, M, N, K,\nx, 1, 2.5, 3,\n", r"line 2 \(x\): N must be .* got '2.5'"),
        ("Layer, M, N, K,\nx, 1, 0, 3,\n", r"N must be .* got 0"),
        ("Layer, M, N, K,\nx, 1, 2, 3, 4,\n", "line 2: .* values for the 4 columns"),
        (CONV + "c, 3, 3, 5, 5, 1, 1, 1,\n", r"line 2 \(c\): .*window spans 5 pixels but the padded input only 3"),
        ("Layer, M, N, K, Sparsity,\nx, 1, 2, 3, 5:4,\n", "Sparsity = '5:4' must be N:M"),
    ],
)
def test_errors(tmp_path, text, match):
    with pytest.raises(KPUError, match=f"t.csv.*{match}"):
        load(tmp_path, text)


def test_a_missing_file():
    with pytest.raises(KPUError, match="none.csv: cannot be read"):
        kpu.load_topology("none.csv")
