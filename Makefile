# Two commands are all a newcomer needs: `make quickstart` and `make test`. Each sets itself up, as `make docs` does.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The CPU build is enough for both; where the package index offers several builds, say which:
#   make test TORCH="torch==2.13.0 --index-url ..."
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is written when a module is first imported: most of what torch and transformers bring never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile

# The models of quickstart and tests are too small for a second thread to pay.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart federation test test-slow lint cards docs clean

quickstart: $(VENV)/.ready
	$(BIN)/python -m fedllm_train.quickstart --out quickstart

# A training between three organisations on one machine, over Flower; LINE=sockets does without Flower.
LINE ?= flower
federation: $(VENV)/.ready-sites
	$(if $(filter flower,$(LINE)),$(BIN)/fedllm-train deploy env flwr-env)
	$(BIN)/python -m fedllm_train.federation --out federation --line $(LINE) --env flwr-env

# Each worker begins with half of the tests in their order, so that most modules set up their fixtures once.
test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# The documentation is built and looked at as well.
test-slow: $(VENV)/.ready-docs
	$(BIN)/python -m pytest -q -m "slow or fuzz" --hypothesis-profile thorough

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The cards of corpora and runs in cards/, after a template or its words have changed.
cards: $(VENV)/.ready-test
	$(BIN)/python -m tests.cards.make_cards

# The documentation as a site that opens from disk: site/index.html.
docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo 'open site/index.html'

clean:
	rm -rf $(VENV) quickstart federation flwr-env site build dist *.egg-info

# torch first and pinned: a bare requirement may bring several gigabytes of GPU libraries.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt $(TORCH)
	$(PIP) --constraint constraints.txt --editable '.[train]'
	touch $@

$(VENV)/.ready-sites: $(VENV)/.ready
	$(PIP) --constraint constraints.txt --editable '.[train,sites]'
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) --constraint constraints.txt --editable '.[train,test]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-test
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready-test
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	touch $@
