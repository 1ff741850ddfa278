# Every target sets up what it needs, on any machine with git, make and Python 3.10 or later:  make help

PYTHON ?= python3
# The environment everything runs in, and the oldest Airflow line that is supported.
AIRFLOW := 3.3.2
AIRFLOW_OLD := 2.11.2

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-ui test lint bench soak constraints clean

UV := .venv/bootstrap/bin/uv
BIN := .venv/$(AIRFLOW)/bin
BIN_OLD := .venv/$(AIRFLOW_OLD)/bin
READY := .venv/$(AIRFLOW)/.installed
READY_OLD := .venv/$(AIRFLOW_OLD)/.installed

export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
ifdef PIP_INDEX_URL
# uv does not read pip's settings, so a mirror that pip is told to use would be passed by.
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

heading = printf '\n== %s ==\n'

help: ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(READY) ## Back up and restore a collection on a real Milvus and a real S3, and compare every row
	@$(BIN)/python -m demo.demo

demo-ui: $(READY) ## The same servers with Airflow's UI and scheduler in front, until Ctrl-C
	@exec $(BIN)/python -m demo.ui

# Tests mostly wait for servers, so four rows of runs go side by side; the output of the rows in the background is printed whole at the end.
# A failure hides no failure after it.
test: $(READY) $(READY_OLD) ## Lint and all tests, on both Airflow lines
	@mkdir -p .cache; failed=; \
	$(MAKE) --no-print-directory lint || failed="$$failed lint"; \
	aside() { \
	  name=$$1; python=$$2; shift 2; echo failed > .cache/$$name.end; \
	  $$python -m pytest "$$@" > .cache/$$name.log 2>&1 && echo passed > .cache/$$name.end || true; \
	}; \
	shown() { name=$$1; shift; $(heading) "$$1"; cat .cache/$$name.log; [[ $$(< .cache/$$name.end) = passed ]] || failed="$$failed $$name"; }; \
	set -m; \
	{ aside airflow-$(AIRFLOW_OLD) $(BIN_OLD)/python tests/airflow; aside breaking $(BIN)/python tests/breaking; } & first=$$!; \
	{ aside airflow-$(AIRFLOW) $(BIN)/python tests/airflow; aside door $(BIN)/python tests/integration --door=v3.0.0; } & second=$$!; \
	{ aside unit-versions $(BIN)/python tests/unit tests/versions; } & third=$$!; \
	set +m; \
	trap 'kill -9 -- -$$first -$$second -$$third 2>/dev/null || true' EXIT; \
	$(heading) "pytest tests/integration"; \
	$(BIN)/python -m pytest tests/integration || failed="$$failed integration"; \
	wait $$first $$second $$third; \
	shown airflow-$(AIRFLOW_OLD) "Airflow $(AIRFLOW_OLD): pytest tests/airflow"; \
	shown unit-versions "pytest tests/unit tests/versions"; \
	shown airflow-$(AIRFLOW) "Airflow $(AIRFLOW): pytest tests/airflow"; \
	shown door "pytest tests/integration --door=v3.0.0"; \
	shown breaking "pytest tests/breaking"; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed" >&2; exit 1; fi

lint: $(READY) ## ruff, mypy and import-linter
	@failed=; \
	$(heading) "ruff"; $(BIN)/ruff check . || failed=1; \
	$(heading) "mypy"; $(BIN)/mypy || failed=1; \
	$(heading) "import-linter"; $(BIN)/lint-imports || failed=1; \
	test -z "$$failed"

bench: $(READY) ## Measure backup and restore
	@$(BIN)/python -m benchmarks

soak: $(READY) ## Back up and restore behind random faults for ten minutes; ARGS='--seconds 60'
	@$(BIN)/python -m tests.breaking.soak $(ARGS)

constraints: $(UV) ## Resolve the dependencies anew; ARGS=--upgrade moves pins that still fit, too
	@for version in $(AIRFLOW) $(AIRFLOW_OLD); do \
	  $(heading) "constraints-$$version.txt"; \
	  $(UV) pip compile --quiet --universal --python-version 3.10 pyproject.toml --all-extras --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links -c <(echo "apache-airflow==$$version") -o constraints/constraints-$$version.txt $(ARGS); \
	  wc -l < constraints/constraints-$$version.txt; \
	done

clean: ## Remove the environments and all caches of this directory
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.git/*' -not -path './.venv*' -prune -exec rm -rf {} +

# uv comes from pip into an environment of its own: nothing has to be on the machine, and nothing is left on it.
$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and f"Python 3.10 or later is needed; $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=...")'
	@$(heading) "uv into .venv/bootstrap"
	@$(PYTHON) -m venv --clear .venv/bootstrap
	@.venv/bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# Bytecode is compiled here, once: where PYTHONDONTWRITEBYTECODE is set every start of Airflow would compile it again.
.venv/%/.installed: pyproject.toml constraints/constraints-%.txt | $(UV)
	@$(heading) "Airflow $* into .venv/$*: a minute or two the first time"
	@test -x .venv/$*/bin/python || $(UV) venv --quiet --clear --python .venv/bootstrap/bin/python .venv/$*
	@$(UV) pip install --quiet --compile-bytecode --python .venv/$*/bin/python -c constraints/constraints-$*.txt -e '.[dev]'
	@touch $@
