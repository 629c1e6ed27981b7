"""Every benchmark, one after the other, each in a process of its own.

    python -m experiments.benchmarks [--only peers scaling ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

BENCHMARKS = ("peers", "sweep", "xla_mix", "exact", "executor", "scaling", "parallel", "startup", "matmul")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=BENCHMARKS)
    failed = []
    for name in parser.parse_args().only:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"experiments.benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
