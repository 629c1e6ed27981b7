"""Messages: numbers in full, hints, and values of any size shown in a line."""

import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kpu_jax.base.errors import KPUError, check_choice, check_flag, check_number, nearest, plain, shown


@pytest.mark.parametrize(
    "value", [4, 4.0, np.int8(4), np.float32(4), np.array(4), jnp.array(4), jnp.bfloat16(4), fractions.Fraction(8, 2)]
)
def test_numbers_of_all_libraries_are_numbers(value):
    got = check_number("x", value, "count", integer=True)
    assert got == 4 and type(got) is float


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), jnp.array(True), "4", b"4", np.array("4"), np.str_("4"), None, 4j, np.complex64(4)]
    + [np.datetime64("2020"), np.timedelta64(4), [4], {}, object(), np.array([4]), jnp.array([4, 5]), 10**400, 10**5000]
    + [math.nan, math.inf, jnp.array(jnp.nan), fractions.Fraction(10**400), 2**31],
    ids=lambda v: type(v).__name__,
)
def test_other_things_are_not(value):
    with pytest.raises(KPUError, match=r"^x must be a number at least 0 and at most 2147483647 \[count\], got ") as caught:
        check_number("x", value, "count", high=2**31 - 1)
    assert len(str(caught.value)) < 200


def test_a_tracer_is_refused_where_a_number_must_be_known():
    with pytest.raises(KPUError, match="x must be .* got a traced value"):
        jax.jit(lambda x: check_number("x", x, "count"))(4.0)


@pytest.mark.parametrize(
    ("number", "text"),
    [(2**31 - 1, "2147483647"), (2**53, "9007199254740992"), (0.1 + 0.2, "0.30000000000000004"), (1e300, "1e+300"), (-3.0, "-3")],
)
def test_numbers_are_printed_in_full(number, text):
    assert plain(float(number)) == text


def test_flags():
    assert [check_flag("x", v) for v in (True, np.False_, jnp.array(True))] == [1, 0, 1]
    for wrong in (1, 0.0, "true", None, jnp.array(1), np.array([True])):
        with pytest.raises(KPUError, match="x must be true or false, got"):
            check_flag("x", wrong)


def test_hints_ignore_case_and_know_other_words():
    assert nearest("MNK", ["mnk", "knm"]).startswith("did you mean 'mnk'? valid")
    assert nearest("os", ["output_stationary"], {"os": "output_stationary"}).startswith("did you mean 'output_stationary'?")
    assert nearest(5, ["a"]) == "valid: a"
    with pytest.raises(KPUError, match=r"x = \['a'\] is unknown: valid: a"):
        check_choice("x", ["a"], ["a"])


def test_values_are_shown_in_a_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    nested: list = []
    nested.append(nested)
    for value in ("x" * 10**6, [["x" * 100] * 100] * 100, 10**5000, -(10**30), nested, Broken(), np.zeros((40, 40))):
        assert len(shown(value)) <= 200 and "\n" not in shown(value)
    assert shown(10**5000) == "an integer of about 5001 digits"
