# Commands of the README, one line each. Everything runs in .venv, which `make` builds when it is missing.
# For another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
INTEROP := .venv-interop

.PHONY: install hooks demo test test-interop test-all test-lowest coverage lint docs bench-checks bench-durability bench-fidelity bench-memory bench-overhead bench-methods bench-routing bench-default bench-families curves ablation bench-scale chaos clean

install: $(VENV)/installed

# torch goes first and alone: the pinned version is the CPU build where one is offered, and a torch that is
# already there (VENV_FLAGS=--system-site-packages with a CUDA build) is kept, whatever the pin says; torchvision follows it.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/python -c "from importlib.metadata import version; print('torch==' + version('torch'))" > $(VENV)/constraints.txt
	grep -v -e '^torch==' -e '^torchvision==' constraints.txt >> $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e ".[demo,test,train,community]"
	touch $@

# Lint before every commit.
hooks: install
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt "pre-commit>=4"
	$(BIN)/pre-commit install

demo: install
	$(BIN)/python -m tierscale.jobs.demo demo

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=8

# Other programs' readers. ome-zarr asks for an s3fs that wants an older fsspec; local zarrs need neither.
test-interop:
	test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP)
	grep -v -e '^torch==' -e '^torchvision==' constraints.txt > $(INTEROP)/constraints.txt
	$(INTEROP)/bin/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(INTEROP)/bin/python -m pip install -q -c $(INTEROP)/constraints.txt -e ".[demo,test,interop]" deprecated rangehttpserver
	$(INTEROP)/bin/python -m pip install -q --no-deps "ome-zarr>=0.18"
	$(INTEROP)/bin/python -m pytest -m "" -rs tests/end_to_end/test_interop.py

test-all: install lint
	$(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile --durations=20

# The tests with the lowest versions that pyproject.toml states.
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m tests.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install -q $$(grep '^torch==' $(LOWEST)/constraints.txt)
	$(LOWEST)/bin/python -m pip install -q -c $(LOWEST)/constraints.txt -e ".[demo,test]"
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile

coverage: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The pages that are made from the code. A test fails where they are out of date.
docs: install
	$(BIN)/python -m docs.generate_api
	$(BIN)/python -m docs.generate_cli

bench-checks: install
	$(BIN)/python -m benchmarks.checks

bench-durability: install
	$(BIN)/python -m benchmarks.durability

bench-fidelity: install
	$(BIN)/python -m benchmarks.fidelity

bench-memory: install
	$(BIN)/python -m benchmarks.memory

bench-overhead: install
	$(BIN)/python -m benchmarks.overhead

bench-methods: install
	$(BIN)/python -m benchmarks.methods

bench-routing: install
	$(BIN)/python -m benchmarks.routing

bench-default: install
	$(BIN)/python -m benchmarks.default

bench-families: install
	$(BIN)/python -m benchmarks.families

curves: install
	$(BIN)/python -m benchmarks.curves
	$(BIN)/python -m benchmarks.kinds
	$(BIN)/python -m benchmarks.scales

ablation: install
	$(BIN)/python -m benchmarks.ablation

bench-scale: install
	$(BIN)/python -m benchmarks.scale

chaos: install
	$(BIN)/python -m benchmarks.chaos

clean:
	rm -rf .venv .venv-* demo build *.egg-info
