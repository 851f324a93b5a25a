# make demo: set up and run the main job.   make test: set up and run the tests.
# Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes test, each a module or a task at a time; what Numba compiles is kept in .venv.
PYTEST := NUMBA_CACHE_DIR=$(abspath $(VENV))/numba $(BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-slow lint setup clean
.DEFAULT_GOAL := demo

setup: $(VENV)/.installed

# A Python that is too old gets one sentence, not a page of pip's.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Dolmen needs Python 3.11 or newer, and $(PYTHON) is older; type: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m dolmen.demo

test: setup lint
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
