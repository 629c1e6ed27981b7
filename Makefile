# The main job's study; STUDY=experiments/which_kpu/million.toml sweeps a million chips.
STUDY ?= experiments/which_kpu/space.toml
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

main-job: .venv/ready
	.venv/bin/kpu-jax sweep $(STUDY) $(ARGS)

test: .venv/ready
	.venv/bin/python -m pytest tests/ -q -n auto

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/mypy

.PHONY: main-job test lint
