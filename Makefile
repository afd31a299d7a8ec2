# `make` alone lists the targets. Everything runs in .venv, which `make install` (and every target that needs it) makes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Training data, as described in weights/README.md; needed only for `make weights` and part of `make samples`.
DATA   ?= ../shared/data
# More options for pip: PIP_OPTIONS=--no-compile installs sooner, and each module is compiled when it is first imported.
PIP_OPTIONS ?=
# The tests to run: TESTS="not more and not benchmark" for all that CI has time for.
TESTS  ?= not slow and not benchmark
# Options of the check of a GPU, such as GPU="--device cuda:1", or "--device cpu --tiny".
GPU    ?=
# Options for the demo's film, such as DEMO="--duration 2".
DEMO   ?=

# One torch thread per worker: the workers share the cores. A file's tests share what they make, so they share a worker.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## make .venv with w2c-gen and all that its tests need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_OPTIONS) -e '.[dev]'
	@touch $@

demo: $(READY)  ## render the film of samples/demo.yaml, and its page, into films/
	@mkdir -p films
	$(BIN)/w2c-gen samples/song --config samples/demo.yaml --out films/demo.mp4 --report --overwrite $(DEMO)
	@echo "Play films/demo.mp4, or open films/demo.html in a browser: the film, and under it what it follows."

test: $(READY)  ## the quick suite: no network, a few minutes on two cores
	$(PYTEST) -m "$(TESTS)"

test-slow: $(READY)  ## the slow tests: wheel, training, published sizes
	$(PYTEST) --dist worksteal -m slow

test-all: test test-slow  ## both

lint: $(READY)  ## ruff: style and order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

format: $(READY)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test  ## what every change needs

gpu-check: $(READY)  ## check and measure a GPU: results-gpu.md in films/ (docs/gpu.md); minutes
	$(BIN)/python -m tests.gpu_check --out films $(GPU)

bench: $(READY)  ## measure speed and memory; writes tests/benchmarks/results.md
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

samples: $(READY)  ## remake the pictures and the film that the README shows; those of held-out sounds if DATA is there
	$(BIN)/python samples/make_demo.py
	$(BIN)/python samples/make_samples.py
	$(BIN)/python samples/make_presets.py
	$(BIN)/python samples/make_pages.py
	$(BIN)/python samples/make_sounds.py $(if $(wildcard $(DATA)),--data $(DATA))

weights: $(READY)  ## train the small family from DATA (hours); resumes where it was stopped
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,train]'
	$(BIN)/w2c-gen train clip --data $(DATA)
	$(BIN)/w2c-gen train vqgan --data $(DATA)
	$(BIN)/w2c-gen train wav2clip --data $(DATA)
	$(BIN)/w2c-gen train prior --data $(DATA)

weights-smoke: $(READY)  ## prove the way from data to film on made-up data: minutes of work, no quality
	$(BIN)/python -m tests.training.smoke

docs: $(READY)  ## write docs/options.md and build the documentation into site/
	$(BIN)/python -m tests.readme
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove .venv and what was built
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache

.PHONY: help install demo test test-slow test-all lint types format check gpu-check bench samples weights weights-smoke docs clean
