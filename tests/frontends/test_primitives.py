"""Every primitive that this version of JAX defines has a reading, so that a new one fails here and not at a user's."""

import subprocess
import sys

import jax
import pytest

import kpu_jax as kpu
from kpu_jax.base.errors import KPUError

ENUMERATE = """
import gc, importlib
from jax.extend import core
for name in ("jax.extend.core.primitives jax.numpy jax.numpy.linalg jax.numpy.fft jax.lax jax.lax.linalg jax.nn jax.random "
             "jax.image jax.scipy.special jax.scipy.linalg jax.scipy.signal jax.scipy.stats jax.ffi jax.export").split():
    importlib.import_module(name)
print("\\n".join(sorted({p.name for p in gc.get_objects() if isinstance(p, core.Primitive)})))
"""


def primitives():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ENUMERATE], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_primitive_of_this_jax_has_a_reading():
    from kpu_jax.frontends.primitives import KNOWN

    found = primitives()
    assert len(found) > 200 and {"dot_general", "conv_general_dilated", "scan", "while", "cond"} <= found
    unknown = sorted(found - KNOWN)
    assert not unknown, f"JAX {jax.__version__} has primitives that kpu_jax/frontends/primitives.py does not know: {unknown}"


def test_no_primitive_has_two_readings():
    from kpu_jax.frontends import primitives as table

    parts = (table.ELEMENTWISE, table.REDUCTIONS, table.WINDOWS, table.UPDATES, table.VIEWS, table.FABRIC, table.CALLS,
             table.CONTROL, table.HOST, table.REFUSED)  # fmt: skip
    assert sum(map(len, parts)) == len(table.KNOWN)


def test_an_unknown_primitive_is_named():
    from jax.extend import core
    from jax.interpreters import mlir  # noqa: F401

    own = core.Primitive("my_own_kernel")
    own.def_abstract_eval(lambda x: x)
    with pytest.raises(KPUError, match=r"my_own_kernel at .*test_primitives.py:\d+ .*does not know it .*unsupported='host'"):
        kpu.trace(lambda x: own.bind(x @ x))(jax.ShapeDtypeStruct((4, 4), "float32"))
    net = kpu.trace(lambda x: own.bind(x @ x), unsupported="host")(jax.ShapeDtypeStruct((4, 4), "float32"))
    assert [w.function for w in net.host_work] == ["my_own_kernel"] and net.macs.sum() == 64


@pytest.mark.skipif(not hasattr(jax.lax, "polynomial"), reason="this JAX has no polynomial primitive")
def test_a_polynomial_is_priced_by_its_degree():
    net = kpu.trace(lambda x: jax.lax.polynomial(x, [1.0, 5.0, 2.0, 4.0]))(jax.ShapeDtypeStruct((32,), "float32"))
    assert net.ops.vector_simple.ravel()[0] == 6  # three multiplications and three additions per element
