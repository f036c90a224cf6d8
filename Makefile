# Every target creates what it needs: a virtual environment in .venv, filled from the hashed locks in deploy/.
# A machine needs Python 3.11 and make, nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check alerts load capacity faults soak bench schedules lint types contracts unit mutate lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
MINUTES ?= 30
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is compiled at first import: of most packages only a part is ever imported.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet install --no-compile
INSTALL_SELF := $(PIP) --no-deps --no-build-isolation --no-index --editable .
# Of the machine, else of Debian's package, unpacked here: that needs no root.
PROMTOOL ?= $(or $(shell command -v promtool),.cache/prometheus/usr/bin/promtool)
# The locks name packages and hashes, never a host.
RESOLVE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links
COMPILE := $(RESOLVE) pyproject.toml --group build

help:  ## lists the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/.demo  ## the real thing, live; make demo ARGS="--seconds 30" ends with a summary
	@$(BIN)/processor demo $(ARGS)

test: $(VENV)/.dev  ## every test: unit, contract, end to end; ARGS go to pytest
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, import contracts, unit tests: under 30 s
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target schedules types lint contracts unit

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/.dev
	@$(BIN)/mypy

contracts: $(VENV)/.dev
	@$(BIN)/lint-imports --config contracts.toml

# The unit tests in two parts, so that neither core waits for the other.  That the schedules would find a wrong path is left to `make test`.
SCHEDULES := $(addprefix tests/unit/test_,simulation.py recount.py lane.py lanes.py demo_traffic.py command.py)

schedules: $(VENV)/.dev
	@$(BIN)/python -m pytest $(SCHEDULES) --quiet --hypothesis-profile=quick -k "not a_path_without_one_of_its_rules"

unit: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/unit $(SCHEDULES:%=--ignore=%) --quiet --hypothesis-profile=quick

load: $(VENV)/.dev  ## how long listings of millions of events take under load; ARGS="--events N"
	@$(BIN)/python -m tests.load $(ARGS)

alerts: $(PROMTOOL)  ## alert rules on series that fire them and ones that do not; needs promtool, fetches Debian's prometheus
	@$(PROMTOOL) check rules deploy/prometheus/alerts.yaml
	@$(PROMTOOL) test rules deploy/prometheus/alerts_test.yaml

capacity: $(VENV)/.dev  ## what an event costs each part, and what up to 1,000,000 a second need; ARGS="--events N"
	@$(BIN)/python -m tests.capacity $(ARGS)

faults: $(VENV)/.dev  ## the fault matrix on real servers, under an hour; ARGS="--only NAME --seed N"
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(VENV)/.dev  ## MINUTES=30 of faults under load: invariants, and memory and connections that do not grow; ARGS="--seed N"
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/.dev  ## throughput beside a floor, every verdict checked; ARGS=latency, ARGS="--with kstreams,faust,quix" for rivals
	@$(BIN)/python -m tests.bench $(ARGS)

mutate: $(VENV)/.dev  ## mutants of the verdicts and merges; the run fails when under 90 % are killed
	@$(BIN)/mutmut run
	@$(BIN)/mutmut export-cicd-stats
	@$(BIN)/python -m tests.mutation_score

lock: $(VENV)/.dev  ## resolves deploy/*.lock and the Kafka jars anew
	@$(PIP) uv
	@$(BIN)/$(COMPILE) --upgrade --all-extras --output-file deploy/dev.lock
	@$(BIN)/$(COMPILE) --constraint deploy/dev.lock --extra embedded --extra api --output-file deploy/demo.lock
	@$(BIN)/$(COMPILE) --constraint deploy/dev.lock --extra api --extra engagement --output-file deploy/runtime.lock
	@$(BIN)/$(RESOLVE) --upgrade --group quix --output-file deploy/bench.lock
	@$(BIN)/python -c 'from processor.embedded.jars import BROKER; BROKER.resolve()'
	@$(BIN)/python -c 'from tests.bench.rivals.kstreams import JARS; JARS.resolve()'

clean:  ## removes the virtual environment and every cache
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache mutants build dist

.cache/prometheus/usr/bin/promtool:
	@command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null \
	  || { echo "promtool is needed: install Prometheus, or make alerts PROMTOOL=..." >&2; exit 2; }
	@echo "fetching promtool, of Debian's package prometheus, once"
	@mkdir -p .cache/prometheus
	@cd .cache/prometheus && apt-get -qq -o APT::Sandbox::User=root download prometheus \
	  || { echo "apt-get finds no package prometheus: apt-get update, or apt-get install prometheus" >&2; exit 2; }
	@cd .cache/prometheus && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb

# Stamps, so that a second run starts at once; a venv cut off half-way is made anew.
$(VENV)/.created:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, as python3.11 or python3 on the PATH, or make PYTHON=..." >&2; exit 2; }
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: deploy/demo.lock pyproject.toml processor/embedded/jars.lock | $(VENV)/.created
	@echo "installing what the demo needs into $(VENV), once"
	@$(PIP) --require-hashes --requirement deploy/demo.lock
	@$(INSTALL_SELF)
	@echo "fetching Kafka, once"
	@$(BIN)/python -m processor.embedded.archive --jars
	@touch $@

$(VENV)/.dev: deploy/dev.lock pyproject.toml processor/embedded/jars.lock | $(VENV)/.created
	@echo "installing what the tests need into $(VENV), once"
	@$(PIP) --require-hashes --requirement deploy/dev.lock
	@$(INSTALL_SELF)
	@echo "fetching Kafka, once"
	@$(BIN)/python -m processor.embedded.archive
	@touch $@
