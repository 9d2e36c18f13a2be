# Everything a contributor needs. `make` alone explains.
PYTHON ?= python3
VENV   ?= .venv

BIN  := $(VENV)/bin
# Some shells keep Python from storing what it compiled; tests, demo and benchmarks start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
# Called as root (containers) pip would lecture about it; nobody here wants its self-update notice either.
export PIP_ROOT_USER_ACTION := ignore
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP  := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench clean

help: ## explain the targets (this text)
	@echo "faultproof: distributed-systems micro-patterns that bring their own proof"
	@echo
	@echo "  make demo    run the reference shop: it takes 2500 orders, is killed again and again,"
	@echo "               and audits itself afterwards (under two minutes, installation included)"
	@echo "  make test    what CI runs: ruff, mypy, pytest"
	@echo "  make soak    the long tests, which 'make test' leaves out (minutes)"
	@echo "  make bench   ours beside the peers', on SQLite and PostgreSQL, in one run (21 minutes)"
	@echo "  make clean   remove $(VENV) and every cache"
	@echo
	@echo "The first run installs into $(VENV) and needs a package index; later runs work offline, and"
	@echo "install again only when pyproject.toml or constraints.txt changed."
	@echo "Another Python (3.11 or newer):  make test PYTHON=python3.13 VENV=.venv313"
	@echo "After 'make demo' or 'make test':  $(BIN)/faultproof --help"

demo: $(VENV)/.installed-shop ## the reference shop under fire
	$(BIN)/faultproof shop --orders 2500 --kill-every 0.5

test: $(VENV)/.installed-test ## what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not soak and not alone"
	$(BIN)/pytest -m "alone and not soak"

soak: $(VENV)/.installed-test ## the long tests
	$(BIN)/pytest -m soak

bench: $(VENV)/.installed-bench ## ours beside the peers'; run nothing else meanwhile. One of them: make bench NAME=drain
	$(BIN)/faultproof bench $(NAME) --html benchmarks.html

clean: ## back to a fresh checkout
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# No prerequisites: an existing environment is kept and only installed into again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "faultproof needs Python 3.11 or newer; $(PYTHON) is not. Try: make PYTHON=python3.13" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make environments (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }

# The build tools come first and without isolation, so that constraints.txt pins them too. The install is
# editable: an edit under src/ needs no new install. The test install contains the others, hence a stamp for each.
$(VENV)/.installed-shop: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[shop]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[bench]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@ $(VENV)/.installed-shop $(VENV)/.installed-bench
