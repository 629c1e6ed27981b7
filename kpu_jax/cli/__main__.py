"""`python -m kpu_jax.cli`, where the script `kpu-jax` is not on the path."""

import sys

from kpu_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
