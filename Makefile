# Each target does all of its own set-up. `make` alone lists them.
#
#   PYTHON=python3.12       the interpreter that .venv is made with (default python3; 3.11 or newer)
#   PYTHON312= PYTHON313=   interpreters for the further unit test runs of `make check`
#   JOBS=2                  how many test processes at once (default: one a processor)
#   SEED=17                 with `make sim`: replay this seed, with every step
#   SEEDS=100000 START=0    with `make soak`: how many seeds, and the first
#   MESSAGES=1000000        with `make soak`: how much nonsense is said to a live scheduler
#   MINUTES=10 START=0      with `make nemesis`: for how long, and the first seed; or SEED=
#   ONLY="daemon-20 4x"     with `make calm`: these trials alone; MINUTES= of four times more work
#   ONLY="short-in slow"    with `make network`: these trials alone
#   FAST=1                  with `make bench`, `bench-peers`, `bench-scale`: fewer and shorter turns

PYTHON ?= python3
SEEDS ?= 100000
START ?= 0
MESSAGES ?= 1000000
# what `make calm` is told; the default below is the nemesis's
CALM_MINUTES := $(MINUTES)
MINUTES ?= 5

RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest -o faulthandler_timeout=120
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# what starts processes mostly waits for them; tests of one file share a cluster. Files are begun in
# the order given: by default those with few tests, which are the longest ones here, come last
WAITING := -n $(shell expr $(JOBS) + 1) --dist loadfile --no-loadscope-reorder
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
# a test run that hangs is ended, where the timeout command exists
LIMIT := $(shell timeout --foreground 1 true 2>/dev/null && echo timeout --foreground -k 10)

.PHONY: help demo dev format lint types test unit sim integration nemesis network calm \
	compose-test check soak bench bench-peers bench-scale bench-page clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo         a local cluster parses the Python standard library: see it work"
	@echo "make test         unit tests, some simulated clusters, a real one: under two minutes"
	@echo "make check        everything that must hold before a change goes in: under ten minutes"
	@echo
	@echo "make dev          the virtual environment .venv with all tools"
	@echo "make format       format the code and write the generated pages of docs/"
	@echo "make lint         ruff"
	@echo "make types        mypy, strict"
	@echo "make unit         the unit tests"
	@echo "make sim          the simulator's tests; make sim SEED=17 replays one seed"
	@echo "make integration  the tests with real processes"
	@echo "make nemesis      real processes killed and stopped at work: make nemesis MINUTES=10"
	@echo "make network      links between hosts cut, slow and lossy, at real times: thirteen minutes"
	@echo "make calm         what looks like a fault and is none, at real times: a quarter of an hour"
	@echo "make compose-test  docker-compose.yml on a Docker engine, if one answers here"
	@echo "make soak         calm, the simulator and nonsense on sockets for as long as you like: SEEDS= MESSAGES="
	@echo "make bench        the benchmarks against the pools of the standard library"
	@echo "make bench-peers  the same against Ray and Dask, which it installs into .venvs"
	@echo "make bench-scale  the scheduler with up to 1,000 simulated nodes, and with 50 real ones"
	@echo "make bench-page   write what these measured into docs/performance.md, with plots"
	@echo "make clean        remove what these made"

$(RUN):
	@.ci/venv .venv "$(PYTHON)"

.venv/run.stamp: pyproject.toml | $(RUN)
	@echo "installing Drumbeat into .venv"
	@$(PIP) install -e .
	@touch $@

.venv/dev.stamp: pyproject.toml | $(RUN)
	@echo "installing Drumbeat and the development tools into .venv"
	@$(PIP) install -e '.[dev]'
	@touch .venv/run.stamp $@

# static tools find the package by its name here, since the repository's root is the package
build/types/drumbeat:
	@mkdir -p build/types
	@ln -sfn ../.. $@

demo: .venv/run.stamp
	@$(RUN) examples/census.py

dev: .venv/dev.stamp build/types/drumbeat
	@echo "ready: . .venv/bin/activate"

format: .venv/dev.stamp
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix-only .
	@$(RUN) tests/support/settings_page.py
	@$(RUN) tests/support/promises_page.py

lint: .venv/dev.stamp
	@$(RUN) -m ruff check .

types: .venv/dev.stamp build/types/drumbeat
	@$(RUN) -m mypy

unit: .venv/dev.stamp
	@$(LIMIT) $(if $(LIMIT),600) $(PYTEST) -n $(JOBS) tests/unit

ifdef SEED
sim: .venv/dev.stamp
	@$(RUN) tests/sim/run.py --seed $(SEED) --verbose
else
sim: .venv/dev.stamp
	@$(LIMIT) $(if $(LIMIT),600) $(PYTEST) -n $(JOBS) tests/sim
endif

integration: .venv/dev.stamp
	@$(LIMIT) $(if $(LIMIT),1800) $(PYTEST) $(WAITING) tests/network tests/nemesis \
		tests/fuzz tests/platform tests/integration

nemesis: .venv/dev.stamp
	@$(RUN) tests/nemesis/run.py $(if $(SEED),--seed $(SEED),--start $(START) --minutes $(MINUTES))

network: .venv/dev.stamp
	@$(RUN) tests/network/run.py $(foreach trial,$(ONLY),--only $(trial))

calm: .venv/dev.stamp
	@$(RUN) tests/soak/calm.py $(if $(CALM_MINUTES),--minutes $(CALM_MINUTES)) \
		$(foreach trial,$(ONLY),--only $(trial))

compose-test: .venv/dev.stamp
	@$(RUN) tests/compose/run.py

test: unit
	@$(LIMIT) $(if $(LIMIT),120) $(RUN) tests/sim/run.py --seeds 40
	@$(LIMIT) $(if $(LIMIT),120) $(PYTEST) tests/integration/test_smoke.py

check: .venv/dev.stamp
	@$(RUN) -m ruff format --check .
	@$(MAKE) --no-print-directory lint types unit
	@.ci/unit-on 3.12 "$(PYTHON312)" $(JOBS)
	@.ci/unit-on 3.13 "$(PYTHON313)" $(JOBS)
	@$(MAKE) --no-print-directory sim integration

soak: .venv/dev.stamp
	@$(MAKE) --no-print-directory calm
	@$(RUN) tests/sim/run.py --seeds $(SEEDS) --start $(START)
	@$(RUN) tests/fuzz/run.py --messages $(MESSAGES)

bench: .venv/dev.stamp
	@$(RUN) -m benchmarks $(if $(FAST),--fast)

bench-peers: .venv/dev.stamp
	@$(RUN) -m benchmarks.environments ray dask
	@$(RUN) -m benchmarks --peers $(if $(FAST),--fast)

bench-scale: .venv/run.stamp
	@$(RUN) -m benchmarks.scale $(if $(FAST),--fast --turns 1)
	@$(RUN) -m benchmarks.scale_real $(if $(FAST),--tasks 5000 --turns 1)

bench-page: .venv/run.stamp
	@$(RUN) -m benchmarks.environments plots
	@$(RUN) -m benchmarks.page

clean:
	@rm -rf .venv .venvs build drumbeat.egg-info benchmarks/results
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
