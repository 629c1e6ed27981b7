"""What every primitive of JAX means for the chip: vector work with its cost, a view, fabric work, control, host work.

Costs are in primitives of the vector engine per element (`VectorOp`): `exp` stands for any transcendental; tanh,
logistic and erf are an exponential, a division and the polynomial around them (erf: Abramowitz and Stegun 7.1.26).
Random bits: threefry-2x32 runs 20 rounds of add, rotate (3) and xor on 2 words (Salmon et al., SC 2011).
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Primitives of the vector engine per element."""

    simple: float = 0.0
    exp: float = 0.0
    div: float = 0.0
    sqrt: float = 0.0

    def __mul__(self, times: float) -> Cost:  # type: ignore[override]
        return Cost(*(times * x for x in self))

    def __add__(self, other: tuple) -> Cost:  # type: ignore[override]
        return Cost(*(x + y for x, y in zip(self, other, strict=True)))


_SIMPLE = Cost(simple=1)
_EXP = Cost(exp=1)
_HASH = Cost(simple=60)  # per 32 bits: 20 rounds of 6 on 2 words, and the key schedule

ELEMENTWISE: dict[str, Cost] = {
    **dict.fromkeys(
        "abs add add_any and ceil clz conj convert_element_type copy empty empty2 eq eq_to floor ge gt imag iota is_finite le "
        "le_to lt lt_to max min mul ne neg nextafter not or population_count real reduce_precision round select_n "
        "shift_left shift_right_arithmetic shift_right_logical sign square sub xor concatenate pad complex "
        "dynamic_slice gather cumsum cumprod cummax cummin mulhi tile stack zeros_like iota_2x32_shape".split(),
        _SIMPLE,
    ),
    **dict.fromkeys("clamp one_minus_square".split(), Cost(simple=2)),
    "polynomial": Cost(simple=2),  # per degree: Horner's rule
    **dict.fromkeys("exp exp2 log log2 sin cos".split(), _EXP),
    **dict.fromkeys("expm1 log1p".split(), Cost(simple=1, exp=1)),
    "tan": Cost(exp=2, div=1),
    **dict.fromkeys("tanh logistic".split(), Cost(simple=2, exp=1, div=1)),
    **dict.fromkeys("erf erfc".split(), Cost(simple=12, exp=1, div=1)),
    "erf_inv": Cost(simple=20, exp=1, sqrt=1),
    **dict.fromkeys("sinh cosh".split(), Cost(simple=2, exp=2)),
    **dict.fromkeys("asinh acosh".split(), Cost(simple=3, exp=1, sqrt=1)),
    "atanh": Cost(simple=3, exp=1, div=1),
    **dict.fromkeys("asin acos".split(), Cost(simple=8, sqrt=1)),
    **dict.fromkeys("atan atan2".split(), Cost(simple=12, div=1)),
    "div": Cost(div=1),
    "rem": Cost(simple=2, div=1),
    **dict.fromkeys("sqrt rsqrt cbrt".split(), Cost(sqrt=1)),
    "pow": Cost(simple=1, exp=2),
    "integer_pow": Cost(simple=2),
    "cumlogsumexp": Cost(simple=3, exp=2),
    **dict.fromkeys(
        "random_bits random_seed random_split random_fold_in random_clone rng_bit_generator rng_uniform threefry2x32 "
        "threefry4x32 philox2x32 philox4x32".split(),
        _HASH,
    ),
    **dict.fromkeys("lgamma digamma bessel_i0e bessel_i1e".split(), Cost(simple=24, exp=2, div=2)),
}
"""Per element of the (largest) result."""

REDUCTIONS: dict[str, Cost] = {
    **dict.fromkeys("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor reduce".split(), _SIMPLE),
    **dict.fromkeys("argmax argmin".split(), Cost(simple=2)),
}
"""Per element of the operand."""

WINDOWS: dict[str, Cost] = {
    **dict.fromkeys("reduce_window reduce_window_sum reduce_window_max reduce_window_min".split(), _SIMPLE),
    **dict.fromkeys("select_and_gather_add select_and_scatter_add select_and_scatter".split(), Cost(simple=2)),
}
"""Per element of each window."""

UPDATES: dict[str, Cost] = {
    **dict.fromkeys("scatter dynamic_update_slice".split(), _SIMPLE),
    **dict.fromkeys(
        "scatter-add scatter_add scatter-sub scatter_sub scatter-mul scatter_mul scatter-min scatter_min scatter-max scatter_max".split(),
        Cost(simple=2),
    ),
}
"""Per element of the update; the array is updated in place."""

VIEWS: frozenset[str] = frozenset(
    "reshape transpose broadcast_in_dim broadcast_to squeeze slice rev bitcast_convert_type stop_gradient name "
    "random_wrap random_unwrap to_edtype from_edtype device_put sharding_constraint layout_constraint reshard "
    "optimization_barrier pvary reduced_vary_cast_p vary_unreduced_cast_p reduced_vary_cast vary_unreduced_cast relayout split unstack "
    "tie stage with_memory_space_constraint pin unpin shape_assertion dce_sink inspect_sharding check".split()
)
"""No work: the movers reshape, transpose, slice and broadcast on the way."""

FABRIC: frozenset[str] = frozenset({"dot_general", "conv_general_dilated", "ragged_dot_general"})

CALLS: frozenset[str] = frozenset(
    "jit pjit closed_call call core_call remat remat2 checkpoint custom_jvp_call custom_jvp_call_jaxpr custom_vjp_call composite "
    "custom_vmap_call eval_jaxpr remat_opt custom_linear_solve".split()
)
"""Inlined."""

CONTROL: frozenset[str] = frozenset({"scan", "while", "cond"})

_SOLVER = "a factorisation, whose steps depend on its own data"
_CHIPS = "a collective between chips; a workload is one chip's"
_collectives = "all_gather all_gather_reduced all_to_all pbroadcast ppermute psum psum_invariant reduce_scatter".split()
HOST: dict[str, str] = {
    **dict.fromkeys("sort approx_top_k top_k".split(), "sorting"),
    "fft": "a Fourier transform",
    **dict.fromkeys(
        "cholesky cholesky_update eig eigh hessenberg householder_product lu lu_pivots_to_permutation qr geqrf geqp3 "
        "ormqr schur svd triangular_solve tridiagonal tridiagonal_solve symmetric_product".split(),
        _SOLVER,
    ),
    **dict.fromkeys(
        "igamma igamma_grad_a igammac polygamma regularized_incomplete_beta zeta random_gamma".split(),
        "the vector engine has no such function",
    ),
    **dict.fromkeys(
        [
            *_collectives,
            *(f"{name}_{end}" for name in _collectives for end in ("start", "done")),
            *"all_gather_invariant axis_index pbroadcast_dynamic pmax pmin unreduced_pmax unreduced_pmin ragged_all_to_all unreduced_psum "
            "unreduced_psum_start preduced unreduced_reduce_scatter unreduced_reduce_scatter_start psend precv".split(),
        ],
        _CHIPS,
    ),
    **dict.fromkeys("pure_callback ffi_call".split(), "a call of the host"),
    "onnx_operator": "kpu_jax does not know the operator",
}
"""Work of the host, and why."""

_EFFECT = "it acts on something beside its results"
_KERNEL = "a kernel for another machine, whose work cannot be seen"
_SIZES = "its shapes are unknown"
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        "debug_callback debug_print io_callback get swap addupdate accum_grad_in_ref new_ref empty_ref free_ref freeze "
        "create_token after_all box_get box_set new_box new_log log_extend log_read core_map create_linear run_state".split(),
        _EFFECT,
    ),
    **dict.fromkeys(
        [
            *(f"dot_product_attention_{x}{w}" for x in ("fwd", "bwd", "fp8_fwd", "fp8_bwd") for w in ("", "_wrapper")),
            *"scaled_matmul scaled_matmul_wrapper scaled_dot cudnn_fusion pallas_call mpmd_map custom_partitioning "
            "call_exported call_hi_primitive call_hi_primitive_linearized".split(),
        ],
        _KERNEL,
    ),
    **dict.fromkeys("dim_as_value dimension_size".split(), _SIZES),
    "shard_map": "a program of several chips; trace the function of one",
    **dict.fromkeys("custom_lin linear_call unreachable platform_index".split(), "a part of JAX's own machinery"),
}
"""Not traced, and why."""

KNOWN: frozenset[str] = frozenset().union(ELEMENTWISE, REDUCTIONS, WINDOWS, UPDATES, VIEWS, FABRIC, CALLS, CONTROL, HOST, REFUSED)
"""All primitives that `kpu.trace` has a reading of."""
