# `make study` and `make test` are all a fresh machine needs: Python >= 3.12 and make.

PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two test processes share two cores: one thread of linear algebra each.
TEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# uv installs in a fraction of pip's time; pip needs nothing.
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
INSTALL := uv pip install --quiet --python $(BIN)/python
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif
EXTRAS := studies,test,notebooks,docs,checkpoints

.PHONY: study test test-slow mutations lint notebooks docs clean

study: $(INSTALLED)
	$(BIN)/python -m studies digits_regression

# A file's tests share what is traced and compiled: apart they take a quarter more time.
test: $(INSTALLED)
	$(TEST) --dist loadfile -m "not slow"

# Types of calls are checked in the tests above; these are long runs of what those have checked.
test-slow: $(INSTALLED)
	JAXTYPING_DISABLE=1 $(TEST) -m slow

# Formulas are broken in a copy, and their tests must fail.
mutations: $(INSTALLED)
	$(BIN)/python -m tests.mutations

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(INSTALLED)
	$(BIN)/python -m notebooks

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file .mkdocs.yml

$(INSTALLED): pyproject.toml .ci/constraints.txt
	@test -n "$(PYTHON)" || { \
		echo "statsgd needs Python 3.12 or newer; found $$(python3 --version 2>&1)." \
		     "Set PYTHON=/path/to/python3.12."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { \
		echo "statsgd needs Python 3.12 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --constraint .ci/constraints.txt --editable ".[$(EXTRAS)]"
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache
