# make demo    the demo, then the console            (ARGS=--no-serve ends by itself)
# make test    lint, types, tests, house rules, docs (ARGS goes to pytest)
# make torture the long forms of the tests of durability and of what comes in: hours (SHARE=0.01 runs a hundredth of them)
# make format  format the code and sort the imports
# make sbom    what it is made of, as CycloneDX, in sbom.json
# make lock    compile the locks again               (ARGS=--upgrade takes newer versions)
#
# Needs Python >= 3.11 and make. uv is taken from PATH, else installed into .uv from its own lock.

PYTHON ?= python3
SHARE ?= 1
# Every file of tests that has a long form.
TORTURE = $(shell grep -l HETKI_TORTURE tests/test_*.py)
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin
INSTALLED := .venv/.installed
NPM := $(shell command -v npm 2>/dev/null)
COMPILE := $(UV) pip compile -q --universal --generate-hashes --python-version 3.11 --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# What Python has compiled is kept, whatever the environment says: else every process of the tests compiles two
# thousand modules anew, which takes three times as long as to load them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test torture format sbom lock install
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	@$(BIN)/hetki demo $(ARGS)

test: $(INSTALLED) $(if $(NPM),tests/clients/node_modules/.installed)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary src
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q -rs -n 3 --dist worksteal $(ARGS)

torture: $(INSTALLED)
	@HETKI_TORTURE=$(SHARE) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q -rsP -n 2 $(TORTURE) $(ARGS)

format: $(INSTALLED)
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

sbom: $(INSTALLED)
	@$(BIN)/python scripts/sbom > sbom.json

# The base lock follows the versions of the dev lock, so that what is tested is what is shipped.
lock: $(UV)
	@$(COMPILE) $(ARGS) --extra dev -o requirements/dev.txt pyproject.toml
	@$(COMPILE) -c requirements/dev.txt -o requirements/base.txt pyproject.toml
	@echo "uv>=0.13,<0.14" | $(COMPILE) $(ARGS) -o requirements/uv.txt -

install: $(INSTALLED)

$(INSTALLED): requirements/dev.txt pyproject.toml | $(UV)
	@test -x $(BIN)/python || $(UV) venv -q --python ">=3.11" .venv
	@$(UV) pip sync -q --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.uv/bin/uv: requirements/uv.txt
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

tests/clients/node_modules/.installed: tests/clients/package-lock.json
	@cd tests/clients && $(NPM) ci --loglevel=error --no-audit --no-fund
	@touch $@
