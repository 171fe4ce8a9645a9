# Two commands on a fresh machine: "make demo" and "make test". Both only need Python and make.
PYTHON ?= python3
SCENE ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# On Linux the usual torch brings 2 GB of CUDA. Without an NVIDIA card PyTorch's build for CPUs, from
# PyTorch's own index, does the same; where that index does not answer, the usual one is taken.
CPU_TORCH := https://download.pytorch.org/whl/cpu

.PHONY: demo test slow check docs clean

demo: .venv/.base  ## upscale a generated scene, or yours: make demo SCENE=my.tif
	$(BIN)/slimdiffsr demo --out demo $(if $(SCENE),--scene "$(SCENE)")

# One thread a process: two test processes with two threads each would fight over two cores.
test: .venv/.test  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

slow: .venv/.test  ## run the tests that take longer than ten seconds
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "slow and not gpu and not weights"

check: .venv/.test  ## lint, types, import contracts
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

docs: .venv/.docs  ## build the documentation site into build/site
	$(BIN)/mkdocs build --quiet

.venv/.torch:
	$(PYTHON) -m venv .venv
	@[ "$$(uname -s)" != Linux ] || nvidia-smi -L > /dev/null 2>&1 || \
	  $(PIP) --no-deps --retries 0 --timeout 20 --index-url $(CPU_TORCH) torch 2> /dev/null || true
	touch $@

.venv/.base: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.test: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -e ".[test]"
	touch $@ .venv/.base

.venv/.docs: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -e ".[docs]"
	touch $@

clean:
	rm -rf .venv demo build dist
