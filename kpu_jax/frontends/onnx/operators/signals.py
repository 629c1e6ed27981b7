"""Spectra, window functions and mel filters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.operators.layout import whole
from kpu_jax.frontends.onnx.run import Run, operator


def _pairs(x: Any, dtype: Any) -> Any:
    """Complex numbers as a last axis of two."""
    return jnp.stack([x.real, x.imag], -1).astype(dtype)


def _complex(x: Any) -> Any:
    wide = jnp.asarray(x).astype(jnp.float32) if np.dtype(x.dtype).itemsize < 4 else jnp.asarray(x)
    return jax.lax.complex(wide[..., 0], wide[..., 1]) if x.shape[-1] == 2 else wide[..., 0]


@operator("DFT")
def _dft(run: Run, node: Node, x: Any, length: Any = None, axis: Any = None) -> Any:
    at = node.get("axis", 1 if run.opset < 20 else -2) if axis is None else whole(run, node, axis, "the axis")[0]
    at = at - 1 if at > 0 and at == x.ndim - 1 else at
    half, inverse = node.get("onesided", 0), node.get("inverse", 0)
    n = (2 * (x.shape[at] - 1) if half and inverse else x.shape[at]) if length is None else whole(run, node, length, "the length")[0]
    at = at % x.ndim
    values = _complex(x)
    if inverse:
        return jnp.fft.irfft(values, n, at)[..., None].astype(x.dtype) if half else _pairs(jnp.fft.ifft(values, n, at), x.dtype)
    spectrum = jnp.fft.rfft(values, n, at) if half and not jnp.iscomplexobj(values) else jnp.fft.fft(values, n, at)
    return _pairs(spectrum, x.dtype)


@operator("STFT")
def _stft(run: Run, node: Node, signal: Any, step: Any, window: Any = None, length: Any = None) -> Any:
    (hop,) = whole(run, node, step, "the step")
    size = np.shape(window)[0] if length is None else whole(run, node, length, "the length")[0]
    x = signal[..., None] if signal.ndim == 2 else signal
    starts = np.arange(0, x.shape[1] - size + 1, hop)
    frames = _complex(jnp.take(x, starts[:, None] + np.arange(size), 1))
    frames = frames if window is None else frames * window
    real = node.get("onesided", 1) and not jnp.iscomplexobj(frames)
    return _pairs(jnp.fft.rfft(frames, size, -1) if real else jnp.fft.fft(frames, size, -1), signal.dtype)


@operator("com.microsoft::Rfft", "com.microsoft::Irfft")
def _real_spectrum(run: Run, node: Node, x: Any) -> Any:
    axes = tuple(range(-node.get("signal_ndim", 1), 0))
    if node.operator.endswith("::Rfft"):
        return _pairs(jnp.fft.rfftn(x, axes=axes), x.dtype)
    sizes = [*(x.shape[i - 1] for i in axes[:-1]), 2 * (x.shape[-2] - 1)]
    return jnp.fft.irfftn(_complex(x), sizes, axes).astype(x.dtype)


_WINDOWS = {"HannWindow": (0.5, 0.5), "HammingWindow": (25 / 46, 21 / 46), "BlackmanWindow": (0.42, 0.5, 0.08)}


@operator(*_WINDOWS)
def _window(run: Run, node: Node, size: Any) -> Any:
    """A sum of cosines over the window, or over one place less where it is not periodic."""
    import onnx

    (n,) = whole(run, node, size, "the size")
    turns = 2 * np.pi * np.arange(n) / (n if node.get("periodic", 1) else n - 1)
    wave = sum((-1) ** i * a * np.cos(i * turns) for i, a in enumerate(_WINDOWS[node.operator]))
    return np.asarray(wave, onnx.helper.tensor_dtype_to_np_dtype(node.get("output_datatype", 1)))


@operator("MelWeightMatrix")
def _mel(run: Run, node: Node, bands: Any, length: Any, rate: Any, low: Any, high: Any) -> Any:
    """Triangles over the bins of a spectrum, evenly spaced in mel, [bin, band]."""
    import onnx

    count, size, hertz, *ends = (np.ravel(v)[0] for v in (bands, length, rate, low, high))
    first, last = (2595 * np.log10(1 + e / 700) for e in ends)
    steps = first + np.arange(count + 2) * (last - first) / (count + 2)
    bins = ((size + 1) * 700 * (10 ** (steps / 2595) - 1) // hertz).astype(int)
    weights = np.zeros((size // 2 + 1, count))
    for band, (left, centre, right) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
        if left == centre:
            weights[centre, band] = 1
        else:
            weights[left : centre + 1, band] = (np.arange(left, centre + 1) - left) / (centre - left)
        if right > centre:
            weights[centre:right, band] = (right - np.arange(centre, right)) / (right - centre)
    return weights.astype(onnx.helper.tensor_dtype_to_np_dtype(node.get("output_datatype", 1)))
