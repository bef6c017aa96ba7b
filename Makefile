# Two commands do everything on a bare machine: `make demo` and `make test`. README.md spells both out in plain pip.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Commands that tests start would each compile the whole package for themselves.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test narrow slow gpu peers bench real lint coverage clean

demo: $(VENV)/demo
	$(BIN)/superscope scan

test: $(VENV)/test
	scripts/test
	scripts/test-narrow

narrow: $(VENV)/test
	scripts/test-narrow

slow: $(VENV)/test
	$(BIN)/python -m pytest -m 'slow and not real'

# Where torch has a GPU: the kernels compiled for it, and what runs there beside the CPU.
gpu: $(VENV)/test
	$(BIN)/python -m pytest -m "not slow" tests/kernels tests/test_gpu.py

peers:
	scripts/peers

bench:
	scripts/bench

real: $(VENV)/test
	scripts/real

coverage: $(VENV)/test
	scripts/coverage

lint: $(VENV)/test
	scripts/lint

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Superscope and what it needs (the first time this downloads about 400 MB) ..."
	$(INSTALL) --editable '.[fast,plots]'
	@touch $@

$(VENV)/test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing Superscope, its test tools and Chromium ..."
	$(INSTALL) --editable '.[dev]'
	scripts/chromium
	@touch $@

clean:
	rm -rf $(VENV) build dist superscope/studio/static web/node_modules
