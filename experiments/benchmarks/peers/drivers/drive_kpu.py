"""kpu_jax on the same work, in this environment."""

from __future__ import annotations

from protocol import Answer, serve, timed


def prepare() -> dict:
    import jax
    import numpy as np

    import kpu_jax as kpu
    from experiments.benchmarks.peers.chip import chip_of

    def gemm_of(gemm: list) -> kpu.Gemm:
        return kpu.Gemm(*gemm, dtype="int8", acc_dtype="int8")

    def fixed(chip: Answer, gemm: list) -> kpu.Mapping:
        """The product whole in L3, blocks of one pass with all of K in L2."""
        return kpu.Mapping(l3_tile=tuple(gemm), l2_tile=(chip["rows"], chip["cols"], gemm[2]), buffering=("single", "single", "double"))

    def evaluate(job: Answer) -> Answer:
        cfg, op, mapping = chip_of(job["chip"]), gemm_of(job["gemm"]), fixed(job["chip"], job["gemm"])
        r, spent = timed(lambda: kpu.simulate(cfg, op, mapping).check())
        return {"seconds": spent, "pj": float(r.energy_pj), "cycles": float(r.cycles)}

    def search(job: Answer) -> Answer:
        cfg, op = chip_of(job["chip"]), gemm_of(job["gemm"])

        def best() -> kpu.Report:
            return kpu.simulate(cfg, op, kpu.best_mapping(cfg, op, objective="energy")).check()

        r, spent = timed(best)
        return {"seconds": spent, "pj": float(r.energy_pj)}

    sweeps = {
        timing: jax.jit(jax.vmap(lambda cfg, op, mapping, t=timing: _figures(kpu.simulate(cfg, op, mapping, timing=t)), (0, None, None)))
        for timing in ("exact", "bound")
    }

    def sweep(job: Answer) -> Answer:
        """Cycles and energy of every chip; `timing` exact or by the lower bound."""
        cfgs = [chip_of(chip) for chip in job["chips"]]
        chips = jax.tree.map(lambda *v: np.stack(v), *cfgs)
        op, mapping = gemm_of(job["gemm"]), fixed(job["chips"][0], job["gemm"])
        with jax.enable_x64(True):
            _, spent = timed(lambda: jax.block_until_ready(sweeps[job["timing"]](chips, op, mapping)))
        return {"seconds": spent}

    def network(job: Answer) -> Answer:
        cfg = chip_of(job["chip"])
        net = kpu.Workload.from_ops([gemm_of(gemm) for gemm in job["gemms"]])

        def best() -> kpu.Report:
            return kpu.simulate(cfg, net, kpu.best_mapping(cfg, net, objective="energy")).check()

        r, spent = timed(best)
        return {"seconds": spent, "pj": float(r.energy_pj)}

    return {"evaluate": evaluate, "search": search, "sweep": sweep, "network": network}


def _figures(report: object) -> tuple:
    return report.cycles, report.energy_pj  # type: ignore[attr-defined]


if __name__ == "__main__":
    serve(prepare)
