# `make` lists the targets. Everything runs in .venv, which the first target that needs it sets up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core $(sort $(wildcard plugins/*))

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast mutate docs zoo bench fuzz test-oldest check format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements-dev.txt pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation . $(PACKAGES:%=--editable %)
	touch $@

demo: $(VENV)/.ready ## convert torchvision's resnet18, print its IR, rebuild it, compare outputs bit for bit
	$(BIN)/python -m tests.demo

test: $(VENV)/.ready ## run every package's tests
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-fast: $(VENV)/.ready ## run all tests but the slow ones
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

COUNT ?= 40
mutate: $(VENV)/.ready ## change the code in 40 places or COUNT=…, one at a time, and see which the tests notice
	$(BIN)/python -m tests.mutate --count $(COUNT)

docs: $(VENV)/.ready ## build the documentation into site/; a warning is an error
	$(BIN)/zensical build --clean --strict

zoo: $(VENV)/.ready ## convert hundreds of models of torchvision and transformers, compare what comes back
	$(BIN)/python -m zoo

bench: $(VENV)/.bench ## measure side by side with others, all or what ONLY="capture rebuild" says, in a few minutes with QUICK=1
	$(BIN)/python -m benchmarks $(ONLY) $(if $(QUICK),--quick)

$(VENV)/.bench: $(VENV)/.ready benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

SECONDS ?= 60
fuzz: $(VENV)/.ready ## look for files that layergraph mishandles, for 60 seconds or SECONDS=…
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	mkdir -p .fuzz
	$(BIN)/python -m fuzz -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=0 -max_len=20000 \
		-artifact_prefix=.fuzz/ .fuzz fuzz/corpus

OLDEST := .venv-oldest
$(OLDEST)/.ready: requirements-dev.txt $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 \
		"pluggy>=1.5" flit_core numpy
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation $(PACKAGES:%=--editable %)
	touch $@

test-oldest: $(VENV)/.ready $(OLDEST)/.ready ## load files of the newest torch with the oldest, and the other way round
	$(BIN)/python -m tests.across $(BIN)/python $(OLDEST)/bin/python

check: $(VENV)/.ready ## check format, lint, imports and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy core/src $(wildcard plugins/*/src)

format: $(VENV)/.ready ## mend format and lint where that can be done by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) .venv-oldest site .cache .fuzz .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
