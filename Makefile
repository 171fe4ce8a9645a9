# Two commands on a fresh machine: "make demo" and "make test". Both only need Python and make.
PYTHON ?= python3
SCENE ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check docs clean

demo: .venv/.base  ## upscale a generated scene, or yours: make demo SCENE=my.tif
	$(BIN)/slimdiffsr demo --out demo $(if $(SCENE),--scene "$(SCENE)")

# One thread a process: two test processes with two threads each would fight over two cores.
test: .venv/.test  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

check: .venv/.test  ## lint, types, import contracts
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

docs: .venv/.docs  ## build the documentation site into build/site
	$(BIN)/mkdocs build --quiet

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.base: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[test]"
	touch $@ .venv/.base

.venv/.docs: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[docs]"
	touch $@

clean:
	rm -rf .venv demo build dist
