# Everything one does here has a name; plain `make` lists the names.
# Each target makes its own environment: Python >= 3.11 and a package index are all it needs.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/requirements.txt
DEV := $(VENV)/requirements-dev.txt
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --custom-compile-command 'make lock' pyproject.toml -
IMAGES := --constraint requirements-dev.txt -o deploy/docker/requirements-
PAGES := README.md bus_worker/README.md gateway/README.md plugins/README.md

.DEFAULT_GOAL := help
.PHONY: help up run test web soak lint bench docs lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf 'make %-6s %s\n' "$$name" "$$what"; done

up: $(RUN)  ## start bus, model, workers and gateway on this machine (ARGS="--bus-host 0.0.0.0" opens the bus)
	@$(BIN)/bus-worker up $(ARGS)

run: $(RUN)  ## start one worker for the bus that NATS_URL names
	@$(BIN)/bus-worker run $(ARGS)

test soak: export PYTHONDONTWRITEBYTECODE =  # they start hundreds of interpreters

test: $(DEV)  ## run all tests, real servers included (ARGS="-k credits" picks some)
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

web: $(DEV)  ## try the Next.js app: types, style, units, build, and a browser on the real service
	cd deploy/nextjs && npm ci --loglevel=error
	cd deploy/nextjs && npm run type-check && npm run lint && npm test && npm run build && npm run e2e

soak: $(DEV)  ## run the long trials: kill loops, hours of audio
	$(BIN)/pytest -m soak $(ARGS)

lint: $(DEV)  ## check style, types and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(DEV)  ## measure what the README's figures tell
	$(BIN)/python -m bus_worker.bench $(ARGS)

docs: $(DEV)  ## write the tables in the READMEs and .env.example anew from the code
	$(BIN)/cog -r -P -p 'from tests.helpers import docs' $(PAGES)
	$(BIN)/python -m tests.helpers.docs > .env.example
	$(BIN)/python -m tests.helpers.description > deploy/nextjs/lib/openapi.json

lock: $(BIN)/python  ## pin the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	echo hatchling | $(BIN)/$(LOCK) --extra all -o requirements.txt
	echo hatchling | $(BIN)/$(LOCK) --extra dev --constraint requirements.txt -o requirements-dev.txt
	echo hatchling | $(BIN)/$(LOCK:pyproject.toml=) $(IMAGES)build.txt
	$(BIN)/$(LOCK:-=) --extra worker --extra traces $(IMAGES)worker.txt
	$(BIN)/$(LOCK:-=) --extra gateway --extra traces $(IMAGES)gateway.txt
	$(BIN)/$(LOCK:-=) --extra model-base $(IMAGES)model-base.txt
	$(BIN)/$(LOCK:-=) --extra cuda $(IMAGES)cuda.txt

clean:  ## remove the environment and everything else that was made here
	rm -rf $(VENV) build dist bench-results .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .next -prune -exec rm -rf {} +
	find . -name node_modules -prune -exec rm -rf {} +

# The copy of the file in the environment says what was installed from it.
$(RUN) $(DEV): $(VENV)/%: % pyproject.toml | $(BIN)/python
	@echo "installing what $< names into $(VENV); a minute or two, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@cp $< $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "This needs Python 3.11 or newer, not %d.%d; try: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)
