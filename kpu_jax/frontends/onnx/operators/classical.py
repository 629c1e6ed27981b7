"""Models of scikit-learn's kind (domain ai.onnx.ml): linear ones are products; trees, whose steps depend on data, the host's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kpu_jax.frontends.onnx.model import Node
from kpu_jax.frontends.onnx.run import Run, Text, operator

_ML = "ai.onnx.ml::"


def _numbers(node: Node, name: str) -> np.ndarray:
    return np.asarray(node.get(name, []), np.float32)


def _transformed(kind: str, scores: Any) -> Any:
    """A model's scores [row, class] after its `post_transform`."""
    if kind == "SOFTMAX":
        return jax.nn.softmax(scores, -1)
    if kind == "SOFTMAX_ZERO":
        shares = jax.nn.softmax(jnp.where(scores == 0, -jnp.inf, scores), -1)
        return jnp.where(scores == 0, 0, shares)
    if kind == "LOGISTIC":
        return jax.nn.sigmoid(scores)
    if kind == "PROBIT":
        return jnp.sqrt(np.float32(2)) * jax.scipy.special.erfinv(2 * scores - 1)
    return scores


def _labels(node: Node, best: Any, rows: int) -> Any:
    """Numbers of the classes `best` [row], or text in their place."""
    if node.get("classlabels_strings"):
        return Text((rows,))
    numbers = node.get("classlabels_ints", node.get("classlabels_int64s"))
    return best.astype(np.int64) if not numbers else jnp.take(np.asarray(numbers, np.int64), best)


@operator(_ML + "LinearRegressor")
def _linear_regressor(run: Run, node: Node, x: Any) -> Any:
    targets = node.get("targets", 1)
    y = jnp.matmul(x.astype(np.float32), _numbers(node, "coefficients").reshape(targets, -1).T)
    return _transformed(node.get("post_transform", "NONE"), y + _numbers(node, "intercepts") if node.get("intercepts") else y)


@operator(_ML + "LinearClassifier")
def _linear_classifier(run: Run, node: Node, x: Any) -> Any:
    labels = node.get("classlabels_strings") or node.get("classlabels_ints") or []
    x = jnp.asarray(x).reshape(-1, x.shape[-1])
    weights = _numbers(node, "coefficients").reshape(-1, x.shape[-1])
    scores = jnp.matmul(x.astype(np.float32), weights.T)
    scores = scores + _numbers(node, "intercepts") if node.get("intercepts") else scores
    kind = node.get("post_transform", "NONE")
    if len(labels) == 2 and weights.shape[0] == 1:  # one score tells two classes apart
        best = (scores[:, 0] > 0).astype(np.int32)
        other = 1 - _transformed(kind, scores) if kind == "LOGISTIC" else -_transformed(kind, scores)
        return _labels(node, best, x.shape[0]), jnp.concatenate([other, _transformed(kind, scores)], 1)
    return _labels(node, jnp.argmax(scores, -1), x.shape[0]), _transformed(kind, scores)


@operator(_ML + "SVMRegressor")
def _svm_regressor(run: Run, node: Node, x: Any) -> Any:
    """Products with the support vectors, a kernel function, and a sum."""
    x, vectors = x.astype(np.float32), _numbers(node, "support_vectors").reshape(-1, x.shape[-1])
    gamma, shift, degree = (*node.get("kernel_params", []), 0.0, 0.0, 3.0)[:3]
    kind, count = node.get("kernel_type", "LINEAR"), node.get("n_supports", 0)
    if not count:
        return jnp.matmul(x, _numbers(node, "coefficients").reshape(1, -1).T) + _numbers(node, "rho")
    products = jnp.matmul(x, vectors.T)
    if kind == "RBF":
        products = jnp.exp(-gamma * (jnp.sum(x * x, -1, keepdims=True) - 2 * products + np.sum(vectors * vectors, -1)))
    elif kind == "POLY":
        products = (gamma * products + shift) ** degree
    elif kind == "SIGMOID":
        products = jnp.tanh(gamma * products + shift)
    y = jnp.matmul(products, _numbers(node, "coefficients").reshape(-1, 1)) + _numbers(node, "rho")[:1]
    return jnp.where(y > 0, np.float32(1), np.float32(-1)) if node.get("one_class", 0) else y


@operator(_ML + "TreeEnsembleClassifier", _ML + "TreeEnsembleRegressor", _ML + "TreeEnsemble", _ML + "SVMClassifier")
def _on_host(run: Run, node: Node, x: Any) -> Any:
    """Work whose steps depend on its data: the host's, whatever the policy."""
    rows = np.shape(x)[0] if np.ndim(x) > 1 else 1
    if not node.operator.endswith("Classifier"):
        return run.on_host(node, [x], [jax.ShapeDtypeStruct((rows, node.get("n_targets", 1)), np.dtype(np.float32))])
    names = node.get("classlabels_strings")
    classes = len(names or node.get("classlabels_int64s") or node.get("classlabels_ints") or [0, 1])
    label: Any = Text((rows,)) if names else jax.ShapeDtypeStruct((rows,), np.dtype(np.int64))
    both = [label, jax.ShapeDtypeStruct((rows, classes), np.dtype(np.float32))]
    return run.on_host(node, [x], [size for size, name in zip(both, node.outputs, strict=False) if name])


@operator(_ML + "Scaler")
def _scaler(run: Run, node: Node, x: Any) -> Any:
    return ((x - _numbers(node, "offset")) * _numbers(node, "scale")).astype(np.float32)


@operator(_ML + "Normalizer")
def _normalizer(run: Run, node: Node, x: Any) -> Any:
    kind = node.get("norm", "MAX")
    if kind == "MAX":
        sizes = jnp.max(x, -1, keepdims=True)
    else:
        sizes = jnp.sum(jnp.abs(x), -1, keepdims=True) if kind == "L1" else jnp.sqrt(jnp.sum(x * x, -1, keepdims=True))
    return (x / jnp.where(sizes == 0, 1, sizes)).astype(np.float32)


@operator(_ML + "Binarizer")
def _binarizer(run: Run, node: Node, x: Any) -> Any:
    return (x > node.get("threshold", 0.0)).astype(x.dtype)


@operator(_ML + "Imputer")
def _imputer(run: Run, node: Node, x: Any) -> Any:
    floats = node.get("imputed_value_floats")
    values = np.asarray(floats if floats else node.get("imputed_value_int64s"), x.dtype)
    lacking = node.get("replaced_value_float", 0.0) if floats else node.get("replaced_value_int64", 0)
    return jnp.where(jnp.isnan(x) if floats and np.isnan(lacking) else x == lacking, values, x)


@operator(_ML + "ArrayFeatureExtractor")
def _extractor(run: Run, node: Node, x: Any, at: Any) -> Any:
    return jnp.take(x.reshape(1, -1) if np.ndim(x) == 1 else x, jnp.ravel(at), -1)


@operator(_ML + "FeatureVectorizer")
def _vectorizer(run: Run, node: Node, *inputs: Any) -> Any:
    return jnp.concatenate([x.reshape(1, -1) if np.ndim(x) == 1 else x for x in inputs], 1).astype(np.float32)


@operator(_ML + "OneHotEncoder")
def _one_hot(run: Run, node: Node, x: Any) -> Any:
    if not node.get("cats_int64s"):
        raise NotImplementedError("text")
    return (jnp.asarray(x)[..., None].astype(np.int64) == np.asarray(node.get("cats_int64s"))).astype(np.float32)


@operator(_ML + "LabelEncoder")
def _label_encoder(run: Run, node: Node, x: Any) -> Any:
    """A table from numbers to numbers; text on either side is the host's."""

    def column(side: str) -> Any:
        for end, dtype in (("int64s", np.int64), ("floats", np.float32)):
            if node.get(f"{side}_{end}"):
                return np.asarray(node.get(f"{side}_{end}"), dtype)
        found = node.get(f"{side}_tensor")
        return found if found is not None and found.dtype.kind != "O" else None

    keys, values = column("keys"), column("values")
    if keys is None or values is None:
        raise NotImplementedError("text")
    default = node.get("default_int64", -1) if values.dtype.kind == "i" else node.get("default_float", -0.0)
    default = np.ravel(node.get("default_tensor"))[0] if node.get("default_tensor") is not None else default
    alike = jnp.asarray(x)[..., None] == keys
    alike = alike | (jnp.isnan(jnp.asarray(x))[..., None] & np.isnan(keys)) if keys.dtype.kind == "f" else alike
    return jnp.where(alike.any(-1), jnp.take(values, jnp.argmax(alike, -1)), np.asarray(default, values.dtype))


@operator(_ML + "ZipMap")
def _zip_map(run: Run, node: Node, x: Any) -> Any:
    """Names beside the scores, which stay where they are."""
    return x
