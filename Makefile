# Two commands do everything: `make quickstart` and `make test`. Both set up what they need.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
RUN := .venv/bin/
export UV_COMPILE_BYTECODE = 1
export UV_PYTHON_DOWNLOADS = never

.PHONY: quickstart setup test test-all test-long fuzz lint types format clean

quickstart: setup
	$(RUN)gcdis digits runs/digits-scenes
	$(RUN)gcdis run configs/quickstart.yaml

setup: .venv/.synced

.venv/.synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --locked --extra cpu --extra weights --python $(PYTHON) --quiet
	@touch $@

.venv-uv/bin/uv:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv

test: setup
	$(RUN)pytest

test-all: setup
	$(RUN)pytest -m "not long" --hypothesis-profile full

test-long: setup
	$(RUN)pytest -m "long or hypothesis" --hypothesis-profile many --timeout 7200

fuzz: setup
	$(RUN)python tests/fuzz_records.py --inputs 100000

lint: setup
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)lint-imports
	$(RUN)pyright

format: setup
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

clean:
	rm -rf .venv .venv-uv runs/quickstart runs/digits-scenes
