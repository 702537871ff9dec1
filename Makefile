# Two commands do everything: `make quickstart` and `make test`. Both set up what they need.
# PYTHON names an interpreter, 3.11 to 3.14. Without it uv takes one it finds, or fetches one.
PYTHON ?=
UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
RUN := .venv/bin/
export UV_COMPILE_BYTECODE = 1

.PHONY: quickstart setup test test-all test-long fuzz gpu-smoke lint types format clean

quickstart: setup
	$(RUN)gcdis digits runs/digits-scenes
	$(RUN)gcdis run configs/quickstart.yaml

# Of the interpreter that is named, if one is: another one is set up anew.
SYNCED := .venv/.synced$(if $(PYTHON),-$(subst /,_,$(PYTHON)))

setup: $(SYNCED)

$(SYNCED): pyproject.toml uv.lock | $(UV)
	@$(UV) sync --locked --extra cpu --extra weights $(if $(PYTHON),--python $(PYTHON)) --quiet \
		|| { echo "setup: if it is the Python that does not fit: install 3.11, 3.12, 3.13 or 3.14 and" \
		"name it, make setup PYTHON=/path/to/python3.13; without PYTHON, uv finds or fetches one" >&2; \
		exit 1; }
	@rm -f .venv/.synced*
	@touch .venv/.synced $@

# Any Python 3 will do here.
.venv-uv/bin/uv:
	@$(or $(PYTHON),python3) -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv \
		|| { echo "setup: uv cannot be installed: install uv yourself, or Python 3.11 to 3.14 with" \
		"its venv module (Debian, Ubuntu: python3-venv)" >&2; exit 1; }

test: setup
	$(RUN)pytest

test-all: setup
	$(RUN)pytest -m "not long" --hypothesis-profile full

test-long: setup
	$(RUN)pytest -m "long or hypothesis" --hypothesis-profile many --timeout 7200

fuzz: setup
	$(RUN)python tests/fuzz_records.py --inputs 100000

# Without set-up: it needs torch 2.10 or newer and a GPU, and neither Ray, DeepSpeed nor a network.
gpu-smoke:
	PYTHONPATH=. $(or $(PYTHON),$(wildcard .venv/bin/python),python3) benchmarks/gpu_smoke.py $(if $(CPU),--cpu)

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
