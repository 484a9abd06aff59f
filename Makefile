# `make` lists the targets. Everything runs in .venv, which the first target that needs it sets up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core $(sort $(wildcard plugins/*))
PARALLEL := -n auto --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast mutate docs zoo bench fuzz test-versions check format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements-dev.txt requirements-versions.txt pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation . $(PACKAGES:%=--editable %)
	touch $@

demo: $(VENV)/.ready ## convert torchvision's resnet18, print its IR, rebuild it, compare outputs bit for bit
	$(BIN)/python -m tests.demo

test: $(VENV)/.ready ## run every package's tests
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(VENV)/.ready ## run all tests but the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

COUNT ?= 40
mutate: $(VENV)/.ready ## change the code in 40 places or COUNT=…, and in those of tests/mutations.toml, and see which the tests notice
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

# The oldest release of torch that the packages accept, and one between it and that of .venv. Each
# takes about 6 GB: these builds come with the libraries of CUDA.
VERSIONS := 2.6.0 2.9.1
VERSION_VENVS := $(VERSIONS:%=.venv-%)
# Some libraries have releases for one torch each: their tests run in .venv alone.
LIBRARIES := adapters creator data nir onnx snntorch torchao torchvision transformers
VERSION_TESTS := core/tests $(sort $(filter-out $(LIBRARIES:%=plugins/%/tests), $(wildcard plugins/*/tests)))

.venv-%/.ready: requirements-versions.txt $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check torch==$* \
		-r requirements-versions.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation $(PACKAGES:%=--editable %)
	touch $@

test-versions: $(VENV)/.ready $(VERSION_VENVS:%=%/.ready) ## run the tests on the oldest torch, one between and the newest, and exchange files
	$(BIN)/python -m pytest $(PARALLEL) $(VERSION_TESTS)
	for each in $(VERSION_VENVS); do $$each/bin/python -m pytest $(PARALLEL) $(VERSION_TESTS) || exit 1; done
	for each in $(VERSION_VENVS); do \
		$(BIN)/python -m tests.across $(BIN)/python $$each/bin/python || exit 1; done

check: $(VENV)/.ready ## check format, lint, imports and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy core/src $(wildcard plugins/*/src)

format: $(VENV)/.ready ## mend format and lint where that can be done by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) $(VERSION_VENVS) site .cache .fuzz .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
