# Two commands to know: `make up` and `make test`. ARGS goes to the command: make up ARGS="--images DIR".
SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
PYTEST_ARGS ?=
NAME ?=
BENCHES = $(foreach name,convert serve retrain review,$(if $(wildcard benchmarks/$(name).py),$(name)))
export PYTHON

.NOTPARALLEL:
.PHONY: help install system label-studio up down status loop test lint unit train e2e soak bench docs docs-images lock clean

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: ## .venv with dermloop, training and test tools; quick where it is up to date
	@.ci/install

system: ## Chromium, fonts, PostgreSQL, Redis, Caddy and Prometheus for the tests (as root; else it says what is missing)
	@.ci/system

label-studio: install ## Label Studio in .venv-label-studio; quick where it is there
	@$(BIN)/python -c "from dermloop.stack.install import ensure_label_studio; ensure_label_studio(print)"

up: install ## the local stack: Label Studio, ML backend, review service, job worker; Ctrl-C stops it
	@$(BIN)/dermloop up $(ARGS)

down: install ## stop what `make up ARGS=--detach` started
	@$(BIN)/dermloop down $(ARGS)

status: install ## which programs run, and how far the review is
	@$(BIN)/dermloop status $(ARGS)

loop: install ## the whole loop without hands, a line of JSON for each stage
	@$(BIN)/dermloop loop $(ARGS)

test: install system label-studio lint ## everything that proves it works: linters, types, unit to end-to-end tests
	@.ci/tests $(PYTEST_ARGS)

lint: install ## ruff, mypy --strict, the arrows between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

unit: install ## the quick tests alone
	@$(BIN)/python -m pytest -q -m "not e2e and not train and not slow and not soak" $(PYTEST_ARGS)

train: install ## the tests that train a model
	@$(BIN)/python -m pytest -m "train and not soak" $(PYTEST_ARGS)

e2e: install system label-studio ## the tests that drive the real Label Studio, some with Chromium
	@$(BIN)/python -m pytest -m "e2e and not soak" $(PYTEST_ARGS)

soak: install system label-studio ## the long proofs: many images, many kills (an hour or so)
	@$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

bench: install ## how fast it is, measured here, a line of JSON each: NAME=serve for one, all without it
	@for name in $(or $(NAME),$(BENCHES)); do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

docs: install ## the documentation at http://127.0.0.1:8000, built anew as you write; ARGS=--build only builds it
	@export NO_MKDOCS_2_WARNING=1; if [ "$(ARGS)" = "--build" ]; then $(BIN)/mkdocs build --strict --quiet && echo tests/output/site/index.html; \
	else $(BIN)/mkdocs serve --strict; fi

SHOTS = tests/e2e/test_three_tiers_in_the_browser.py tests/e2e/test_review_dashboard.py tests/ml_backend/test_page.py
docs-images: install system label-studio ## the documentation's screenshots, taken anew by the browser tests
	@$(BIN)/python -m pytest -q $(SHOTS) && $(BIN)/python docs/generate/pictures.py

lock: install ## write constraints.txt from what is installed now
	@(echo "# The versions that everything here was tested with; \`make lock\` writes them anew."; \
	  (uv pip freeze --python $(BIN)/python 2>/dev/null || $(BIN)/uv pip freeze --python $(BIN)/python) \
	  | grep '==') > constraints.draft && mv constraints.draft constraints.txt

clean: ## caches and test output; neither the environments nor any home folder
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/output build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
