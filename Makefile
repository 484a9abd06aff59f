# `make` lists the targets. Everything runs in .venv, which the first target that needs it sets up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core $(sort $(wildcard plugins/*))

.DEFAULT_GOAL := help
.PHONY: help demo test zoo bench check format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements-dev.txt pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PACKAGES:%=--editable %)
	touch $@

demo: $(VENV)/.ready ## convert torchvision's resnet18, print its IR, rebuild it, compare outputs bit for bit
	$(BIN)/python -m tests.demo

test: $(VENV)/.ready ## run every package's tests
	$(BIN)/python -m pytest

zoo: $(VENV)/.ready ## convert hundreds of models of torchvision and transformers, compare what comes back
	$(BIN)/python -m zoo

bench: $(VENV)/.ready ## time capture against the models' own runs and torch.export, on some models of the zoo
	$(BIN)/python -m benchmarks.capture
	$(BIN)/python -m benchmarks.export

check: $(VENV)/.ready ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy core/src $(wildcard plugins/*/src)

format: $(VENV)/.ready ## mend format and lint where that can be done by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
