# The main job's study; STUDY=experiments/which_kpu/million.toml sweeps 1.1 million chips.
STUDY ?= experiments/which_kpu/space.toml
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Tested versions, of the packages and of what builds them.
export PIP_CONSTRAINT = constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -e '.[dev]'
	.venv/bin/pip install -q --no-deps rapidocr-onnxruntime silero-vad  # for their model files; their own needs are large
	touch $@

main-job: .venv/ready
	.venv/bin/kpu-jax sweep $(STUDY) $(ARGS)

test: .venv/ready
	.venv/bin/python -m pytest tests/ -q -n auto

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/mypy

# A wheel from the source distribution, installed alone, answers.
package: .venv/ready
	rm -rf build/package && mkdir -p build/package
	.venv/bin/python -m build -q --outdir build/package .
	$(PYTHON) -m venv build/package/venv
	build/package/venv/bin/pip install -q build/package/*.whl
	cd build/package && venv/bin/python -c "import kpu_jax as kpu; print(kpu.presets.edge_ai().compute)" && venv/bin/kpu-jax --version

# Python 3.11 to 3.13, each with the newest and the oldest versions of what the package needs; tens of minutes.
matrix: .venv/ready
	.venv/bin/python tests/packaging/matrix.py

# The documents as a site in build/site; a warning, such as a link to nowhere, is an error.
docs: .venv/ready
	.venv/bin/pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.PHONY: main-job test lint package matrix docs
