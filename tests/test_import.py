"""`import kpu_jax` is light and changes nothing."""

import subprocess
import sys

import kpu_jax

SCRIPT = """
import jax, sys
before = jax.config.jax_enable_x64, set(sys.modules)
import kpu_jax
heavy = {"matplotlib", "optax", "scipy", "pandas", "tqdm"} & {m.split(".")[0] for m in set(sys.modules) - before[1]}
assert not heavy, heavy
assert jax.config.jax_enable_x64 == before[0]
"""


def test_import_is_light():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    for name in kpu_jax.__all__:
        assert getattr(kpu_jax, name) is not None
    assert kpu_jax.visualization.plot_pareto and kpu_jax.analysis.sweep_table
