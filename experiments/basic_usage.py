"""The KPU in five minutes: a product in numbers, what it cost, narrower formats, gradients, memories, a program.

    python -m experiments.basic_usage
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import kpu_jax as kpu


def main() -> None:
    """Run every step and print what it gives."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((100, 200)).astype(np.float32)
    B = rng.standard_normal((200, 150)).astype(np.float32)

    with kpu.Simulator() as sim:
        print("1. A product: numbers out of the machine, in the order in which its schedule adds them")
        C = sim.matmul(A, B)
        exact = A.astype(np.float64) @ B.astype(np.float64)
        print(f"   largest error {np.abs(C - exact).max():.2g}, at most {kpu.matmul_error_bound(A, B).max():.2g} for any order\n")

        print("2. What it cost on this chip, under this mapping")
        print(f"{sim.report}\n")

        print("3. Narrower formats: operands rounded and scaled to their range, sums in int32 or fp32")
        for dtype in ("fp32", "bf16", "fp8", "int8", "int4"):
            found = kpu.compare(sim.matmul(A, B, dtype=dtype), exact)
            report = sim.report
            print(f"   {dtype:5} mean error {found.mean_abs:8.2g}   {report.cycles:7,.0f} cycles   {report.energy_pj * 1e-6:6.2f} uJ")

        print("\n4. Gradients go through the machine, rounding and all (straight-through)")
        slope = jax.grad(lambda a: (sim.matmul(a, B, dtype="int8", activation="gelu") ** 2).sum())(jnp.asarray(A))
        print(f"   d loss / dA has shape {slope.shape} and norm {jnp.linalg.norm(slope):.5g}")

        print("\n5. Memories are bytes at addresses; DMA moves blocks between them")
        sim.main_memory.write(0x1000, np.arange(64, dtype=np.uint8))
        sim.dma_transfer(sim.main_memory.base + 0x1000, sim.scratchpad.base, 4, rows=4, source_stride=16)
        print(f"   the first four bytes of each row of sixteen: {sim.scratchpad.read(0, 16).tolist()}")

    print("\n6. A program, instruction by instruction, on the stepped PE grid")
    chip = kpu.presets.minimal()
    gemm = kpu.Gemm(20, 18, 24, c_dtype="int32")
    mapping = kpu.Mapping(l3_tile=(20, 9, 24), l2_tile=(10, 9, 12), dataflow="weight_stationary")
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((20, 24), (24, 18)))
    done = kpu.machine.run(kpu.program.build(chip, gemm, mapping), {"A": a, "B": b})
    same = np.array_equal(done.arrays["C"], a.astype(np.int32) @ b.astype(np.int32))
    print(f"   equal to NumPy's product: {same}; {done.macs:,} multiply-adds, {done.fabric_cycles:,} cycles of passes")
    print(f"   bytes as the closed form counts them: {done.reads == kpu.simulate(chip, gemm, mapping).reads}")


if __name__ == "__main__":
    main()
