.DEFAULT_GOAL := help
PYTHON ?= python3
LAB_ARGS ?=
APP_ARGS ?=
BENCH_ARGS ?=
KERNEL_REPORT_ARGS ?=
GPU_CHECK_ARGS ?=
OUT ?= gpu-check
BIN := .venv/bin
# JupyterLab refuses to run as root (in a container, say) unless it is told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root,)
# What nobody imports need not be byte-compiled, which is a third of the time that installing takes.
INSTALL := $(BIN)/python -m pip install --no-compile -c constraints.txt
# Two tests or notebooks at a time, each with one thread: half the wait on two cores.
TWO_AT_A_TIME := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: lab
lab: .venv/lab.stamp  ## make .venv, install, open JupyterLab on the start page
	$(BIN)/jupyter lab $(AS_ROOT) $(LAB_ARGS) notebooks/00_start_here.ipynb

.PHONY: app
app: .venv/lab.stamp  ## serve the laboratory, the widgets on a page without code, at a local address
	cd notebooks && ../$(BIN)/voila laboratory.ipynb $(APP_ARGS)

.PHONY: test
test: BROWSER_TESTS := -m "not long"
test: test-python test-interpreter test-notebooks test-browser  ## make .venv, install, run the tests

.PHONY: test-python
test-python: .venv/dev.stamp
	$(TWO_AT_A_TIME) tests kdlab --ignore tests/browser

.PHONY: test-interpreter
test-interpreter: .venv/dev.stamp
	TRITON_INTERPRET=1 $(TWO_AT_A_TIME) tests/kernels kernels

.PHONY: test-notebooks
test-notebooks: .venv/dev.stamp
	$(TWO_AT_A_TIME) --dist loadfile --nbval --nbval-current-env notebooks

# Skips itself, saying how to get one, where there is no Chromium; what it saw is in test-artifacts/.
# Of the latencies, which need a quiet machine to mean anything, one is enough to see nothing queue up.
.PHONY: test-browser
test-browser: .venv/dev.stamp  ## open JupyterLab and the laboratory in Chromium and use them
	rm -rf test-artifacts
	$(TWO_AT_A_TIME) --dist loadgroup tests/browser -k "not test_latency or beta-explorer" $(BROWSER_TESTS)

.PHONY: widget-latency
widget-latency: .venv/dev.stamp  ## measure how fast a widget follows its slider, in Chromium
	$(BIN)/python -m pytest -q -rP tests/browser/test_latency.py

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
	$(BIN)/kdlab doctor --course

.PHONY: kernel-report
kernel-report: .venv/lab.stamp  ## what the kernels compile to; minutes, less with KERNEL_REPORT_ARGS='--sm 90'
	$(BIN)/python -m kdlab.kernels.resources $(KERNEL_REPORT_ARGS)

.PHONY: kernel-check
kernel-check: .venv/dev.stamp  ## compile the kernels as any four of the launcher's choices meet; a quarter of an hour
	KDLAB_COMPILE_STRENGTH=4 $(TWO_AT_A_TIME) tests/test_compile.py -k 'choices_together or teams'

.PHONY: site
site: .venv/site.stamp  ## the course as web pages, from the stored outputs: build/site/index.html
	rm -rf build/site build/site-source
	mkdir -p build
	cp -r docs build/site-source
	cp -r notebooks build/site-source/notebooks
	$(BIN)/sphinx-build -q -W --keep-going build/site-source build/site
	@echo build/site/index.html

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

.PHONY: gpu-tune
gpu-tune:  ## time the kernels' tile shapes on a GPU, for some 5 minutes: make gpu-tune OUT=folder
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.tune --out $(OUT)

.PHONY: clean
clean:  ## remove .venv and caches
	rm -rf .venv test-artifacts .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'kdlab needs Python 3.10 or newer; give one with: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo 'The venv module is missing (Debian: apt install python3-venv)'; exit 1; }

.venv/lab.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[lab]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/lab.stamp

.venv/site.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[site]'
	touch $@ .venv/lab.stamp

.venv/bench.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[bench]'
	touch $@
