.DEFAULT_GOAL := help
PYTHON ?= python3
LAB_ARGS ?=
BENCH_ARGS ?=
GPU_CHECK_ARGS ?=
OUT ?= gpu-check
BIN := .venv/bin
# JupyterLab refuses to run as root (in a container, say) unless it is told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root,)

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: lab
lab: .venv/lab.stamp  ## make .venv, install, open JupyterLab on the start page
	$(BIN)/jupyter lab $(AS_ROOT) $(LAB_ARGS) notebooks/00_start_here.ipynb

.PHONY: test
test: test-python test-interpreter test-notebooks  ## make .venv, install, run all tests

.PHONY: test-python
test-python: .venv/dev.stamp
	$(BIN)/python -m pytest tests kdlab

.PHONY: test-interpreter
test-interpreter: .venv/dev.stamp
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels kernels

.PHONY: test-notebooks
test-notebooks: .venv/dev.stamp
	$(BIN)/python -m pytest --nbval --nbval-current-env notebooks

.PHONY: lint
lint: .venv/dev.stamp  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: .venv/dev.stamp  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: doctor
doctor: .venv/lab.stamp  ## say what this machine has and which backend will run
	$(BIN)/kdlab doctor

.PHONY: kernel-report
kernel-report: .venv/lab.stamp  ## compile the kernels for sm_80, sm_90, sm_100 and print their resources
	$(BIN)/python -m kdlab.kernels.resources

.PHONY: bench
bench: .venv/bench.stamp  ## measure the loss beside its peers, on the GPU or CPU that is here
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

.PHONY: bench-report
bench-report: .venv/bench.stamp  ## write README's table and the plots from benchmarks/results
	$(BIN)/python -m benchmarks.report

# Installs nothing: a machine with a GPU and no network runs the checkout with the Python it has.
.PHONY: gpu-check
gpu-check:  ## test, run the notebooks and measure on a GPU, within 9 minutes: make gpu-check OUT=folder
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu_check $(OUT) $(GPU_CHECK_ARGS)

.PHONY: clean
clean:  ## remove .venv and caches
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'kdlab needs Python 3.10 or newer; give one with: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo 'The venv module is missing (Debian: apt install python3-venv)'; exit 1; }

.venv/lab.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[lab]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@ .venv/lab.stamp

.venv/bench.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[bench]'
	touch $@
