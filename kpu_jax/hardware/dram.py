"""DRAM kinds and their access energy. Sources differ by 3 to 10 times, so every row names its own.

Energy is per bit moved, device and interface together, the same for reads and writes.
"""

from __future__ import annotations

import dataclasses

from kpu_jax.base.errors import KPUError, nearest, shown


@dataclasses.dataclass(frozen=True)
class DramKind:
    """Access energy [pJ/bit], its source, whether the source itself was read, and whether it is a stacked HBM."""

    pj_per_bit: float
    source: str
    verified: bool = True
    stacked: bool = False


_CACTI = "hwcomponents-cacti _DRAM table"
_VENDOR = "branes-ai/graphs technology_profile.py"
_HOROWITZ = "Horowitz, ISSCC 2014: 1300 pJ per 64-bit access, system"
_JOUPPI = "Jouppi et al., Ten Lessons, ISCA 2021, Table 2, unverified"
_RATIO = 8.0 / 1.5  # LPDDR4, where a literature value (8) and the vendor estimate (1.5) both exist


def _scaled(pj_per_bit: float) -> DramKind:
    """A kind known only from vendor estimates, lifted to the literature's level by the ratio seen at LPDDR4."""
    source = f"{_VENDOR} {pj_per_bit:g} pJ/bit x 8/1.5 ({_CACTI} LPDDR4 8 over its own 1.5); the scaling is assumed"
    return DramKind(pj_per_bit * _RATIO, source)


def _vendor(pj_per_bit: float, stacked: bool = False) -> DramKind:
    return DramKind(pj_per_bit, f"{_VENDOR}, vendor estimate, 3 to 7 times below the literature", stacked=stacked)


DRAM_KINDS: dict[str, DramKind] = {
    "DDR3": DramKind(1300 / 64, _HOROWITZ),
    "DDR4": DramKind(1300 / 64, f"{_HOROWITZ} (its row covers DDR3 and DDR4)"),
    "DDR5": _scaled(2.5),
    "LPDDR4": DramKind(8.0, f"{_CACTI}, device and IO; Timeloop's default"),
    "LPDDR4X": _scaled(1.25),
    "LPDDR5": _scaled(1.0),
    "LPDDR5X": _scaled(0.875),
    "GDDR5": DramKind(14.0, "O'Connor et al., MICRO 2017, Fig. 1, via the DRAM_info README, device and IO"),
    "GDDR6": _scaled(1.9),
    "GDDR6X": _scaled(2.25),
    "GDDR7": _scaled(1.75),
    "HBM2": DramKind(6.25, f"{_CACTI} (itself a weak citation)", stacked=True),
    "HBM2E": DramKind(
        0.81 * 6.25 / 0.875, f"{_VENDOR} 0.81 pJ/bit x 6.25/0.875 (HBM2); the scaling is assumed", stacked=True
    ),
    "HBM3": DramKind(4.05, f"{_CACTI} (itself a weak citation)", stacked=True),
    "HBM3E": DramKind(
        0.625 * 4.05 / 0.69, f"{_VENDOR} 0.625 pJ/bit x 4.05/0.69 (HBM3); the scaling is assumed", stacked=True
    ),
    "HBM4": DramKind(3.2, f"{_CACTI}, projection: 20 % below HBM3", stacked=True),
    # Options beside the default of a kind: the same devices by other sources.
    "DDR3_cacti": DramKind(70.0, f"{_CACTI}, system (Malladi ISCA 2012; Chatterjee MICRO 2017)"),
    "DDR3_vogelsang": DramKind(9.0, "Vogelsang, MICRO 2010, IDD7, device only, via the DRAM_info README"),
    "DDR4_vogelsang": DramKind(4.5, "Vogelsang, MICRO 2010, IDD7, device only, projected, via the DRAM_info README"),
    "LPDDR4_dramdse": DramKind(13.5, "H. Jung, Stanford thesis, DramDSE, 13 to 14, via the DRAM_info README"),
    "LPDDR5_kpu_sim": DramKind(1.5, "stillwater-sc/kpu-sim notes: 12 pJ/byte; 3 to 5 times below the literature"),
    "DDR4_vendor": _vendor(3.1),
    "DDR5_vendor": _vendor(2.5),
    "LPDDR4_vendor": _vendor(1.5),
    "LPDDR5_vendor": _vendor(1.0),
    "GDDR6_vendor": _vendor(1.9),
    "HBM2_vendor": _vendor(0.875, True),
    "HBM3_vendor": _vendor(0.69, True),
    "GDDR6_jouppi": DramKind(6.5, f"{_JOUPPI}: 350 to 480 pJ per 64 bit, middle", verified=False),
    "HBM2_jouppi": DramKind(5.45, f"{_JOUPPI}: 250 to 450 pJ per 64 bit, middle", verified=False, stacked=True),
    "HBM2_oconnor": DramKind(3.92, "O'Connor et al., MICRO 2017 (FGDRAM), unverified", verified=False, stacked=True),
    "HBM2_hygcn": DramKind(7.0, "HyGCN, HPCA 2020, via the DRAM_info README", stacked=True),
}
"""Name -> `DramKind`. Plain names are the defaults of their kind; names with a suffix are other sources for it."""


def dram_name(name: object) -> str:
    """The table's spelling of a DRAM kind (case does not matter), or a `KPUError` with the nearest names."""
    spelled = {kind.lower(): kind for kind in DRAM_KINDS}
    if isinstance(name, str) and name.lower() in spelled:
        return spelled[name.lower()]
    raise KPUError(f"technology.dram = {shown(name)} is unknown: {nearest(name, DRAM_KINDS)}")
