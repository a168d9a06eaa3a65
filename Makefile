# One-liners for everything; CI calls only these. `make` alone lists them.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py $(wildcard ncfast/*.p[yx][xd] ncfast/*/*.p[yx][xd])
PACKAGES := redis-server redis-tools slapd ldap-utils haproxy iperf3 nginx-light nftables iproute2 dnsmasq-base \
	prometheus prometheus-alertmanager valgrind mariadb-server postgresql systemd groff-base \
	openssh-client openssh-server rsync
DEBUG := build/debug
# What of sockets, hub and agent is run under the sanitizers each time, and how many seeds of the simulation: half a minute
# each. Longer: make test-debug DEBUG_TESTS="tests/net tests/hub tests/agent tests/mesh" DEBUG_SEEDS=100 FIRST=1000
DEBUG_TESTS ?= $(addprefix tests/,$(addprefix net/test_,let_go.py passing.py raw.py seam.py transport.py turns.py websocket.py) \
	$(addprefix hub/test_,giving.py leaving.py listener.py pending.py relays.py routing.py session.py) \
	$(addprefix agent/test_,arrivals.py connections.py flows.py giving.py))
DEBUG_SEEDS ?= 10
FUZZ_SECONDS ?= 600
UPGRADE ?= --upgrade
TARGETS ?= $(patsubst tests/fuzz/fuzz_%.py,%,$(wildcard tests/fuzz/fuzz_*.py))
SEEDS ?= 200
JOBS ?= 2
MINUTES ?= 60
ENGINE ?= docker
FIRST ?= 1
export DOCS
REPORT ?= build/soak.md
# LOCKED=1 takes packages of the locks alone, each by its hash, and no others from anywhere.
LOCKED ?=
PIP := $(BIN)/pip install -q
ALONE := $(if $(LOCKED),--no-index)
# Without the Cython modules, which are built in place, once, and found there.
EDITABLE := NCFAST_UNBUILT=1 $(PIP) $(ALONE) --no-build-isolation -e
# A lock is for every Python and machine that we name; what it holds moves by `make lock` alone.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# Rooms whose tests take a minute together, and need no other programs: not those of several processes, nor the benches.
QUICK := core net config auth observe hub registry/test_memory.py registry/test_view.py \
	$(patsubst tests/%,%,$(filter-out %/test_bench.py %/test_bench_ldap.py,$(wildcard tests/house/test_*.py)))
COVERED := $(addprefix tests/,core net config auth observe registry mesh hub agent cli integration)

export PATH := $(PATH):/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-setup test-debug test-previous quick readme walks alerts upgrades page-test recording coverage lint format simulate simulate-mutants soak bench bench-gate benchmarks perf-ldap dashboards fuzz fuzz-debug debug-build build dist wheels deb \
	docs image image-rehearsal pin-base lock audit clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

demo: build  ## see flows survive a tunnel that is cut under them
	$(BIN)/python -m ncfast demo $(DEMO)

test: test-setup  ## all tests, with real programs, in two processes (TESTS=... for some, JOBS=0 in one, as they are written)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

quick: build $(VENV)/.test  ## the tests that take less than a minute, for between two edits
	$(BIN)/python -m pytest -q $(addprefix tests/,$(QUICK))

readme: test-setup  ## README's commands in a fresh clone, as a new reader would type them: some minutes
	FRESH=1 $(BIN)/python -m pytest -q tests/integration/test_readme.py

walks: test-setup  ## a new user's walks in a fresh clone: to the first LDAP search, to three hubs with mutual TLS, from ten faults to their pages (docs/reports/walks.md; half an hour)
	$(BIN)/python -m tests.walks --report docs/reports/walks.md $(WALKS)

alerts: test-setup  ## every alert fired by a real fault, and led to its page: docs/reports/alerts.md (ALERTS="--only redis_frozen --report FILE"; half an hour)
	$(BIN)/python -m tests.alerts --report docs/reports/alerts.md $(ALERTS)

upgrades: test-setup  ## a hub, an agent, hubs of a cluster upgraded twenty times each under real clients: docs/reports/upgrades.md (UPGRADES="--only 2 --report FILE"; half an hour)
	$(BIN)/python -m tests.upgrade_runs --report docs/reports/upgrades.md $(UPGRADES)

page-test: test-setup $(VENV)/.page  ## the admin edge's page in a real browser, with axe-core (PICTURES=DIR leaves pictures there)
	.ci/need chromium
	BROWSER=1 PICTURES=$(PICTURES) $(BIN)/python -m pytest -q tests/browser

recording: build  ## record the demo anew, for the README (docs/demo.svg)
	$(BIN)/python -m docs.recording

coverage: test-setup  ## which lines of the Python files no test reaches; child processes are measured, too
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered $(or $(TESTS),$(COVERED))

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test  ## ruff, putting right what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-setup: build $(VENV)/.test
	.ci/need $(PACKAGES)

# In a copy, so that the modules in ncfast/ stay what they are. The interpreter has to load the sanitizer before them, and pytest must
# leave descriptor 2 to its reports. Leaks are looked for behind two modules of tests alone: in longer runs LeakSanitizer itself
# sometimes dies.
SANITIZED = NCFAST_DEBUG=1 PYTHONMALLOC=malloc LD_PRELOAD=$$(gcc -print-file-name=libasan.so) UBSAN_OPTIONS=print_stacktrace=1 \
	LSAN_OPTIONS=suppressions=tests/core/leaks.supp:print_suppressions=0
test-debug: $(VENV)/.test debug-build  ## tests of the Cython modules, and the simulation, under gcc's address, undefined-behaviour and leak sanitizers (DEBUG_TESTS, DEBUG_SEEDS for more)
	cd $(DEBUG) && $(SANITIZED) ASAN_OPTIONS=detect_leaks=0 $(CURDIR)/$(BIN)/python -m pytest -q --capture=sys \
		tests/core $(DEBUG_TESTS)
	cd $(DEBUG) && $(SANITIZED) $(CURDIR)/$(BIN)/python -m pytest -q --capture=sys tests/core/test_flow.py tests/core/test_link.py
	cd $(DEBUG) && $(SANITIZED) ASAN_OPTIONS=detect_leaks=0 $(CURDIR)/$(BIN)/python -m tests.simulation --jobs 1 \
		--seeds $(DEBUG_SEEDS) --first $(FIRST)

test-previous: test-setup  ## ends of the last release and of this tree together: agent, hub, one cluster of both; some minutes
	NCFAST_PREVIOUS=1 $(BIN)/python -m pytest -q tests/previous

simulate: build $(VENV)/.test  ## a whole cluster on a virtual clock, SEEDS times (200) from FIRST (1)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

simulate-mutants: build $(VENV)/.test  ## plant bugs, one at a time, and see the simulation find each (MUTANTS="3 7" for some)
	$(BIN)/python -m tests.simulation.mutants $(MUTANTS)

soak: test-setup  ## a cluster under real clients and faults for MINUTES (60), with a report in REPORT (build/soak.md; SOAK=... for more)
	mkdir -p $(dir $(REPORT))
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --report $(REPORT) $(SOAK)

bench: test-setup  ## measure beside two chained HAProxy processes (BENCH=--quick for a first look)
	$(BIN)/python -m bench $(BENCH)

bench-gate: test-setup  ## a minute of it, held against the ratios of docs/benchmarks.md; and LDAP clients, briefly
	$(BIN)/python -m bench.gate
	$(BIN)/python -m bench.ldap --seconds 1 --rate 50 --ways off,active-mesh --faults none --p99 1000 --errors 0

benchmarks: test-setup  ## the run that docs/benchmarks.md shows, and by it README and docs/compare.md: tables and plots; on a quiet machine (BEFORE=DIR for an earlier tree beside, BENCH="--resume FILE" to go on with a run)
	$(BIN)/python -m bench $(if $(BEFORE),--before $(BEFORE)) --page docs/benchmarks.md $(BENCH)
	$(BIN)/python -m bench.plots $(if $(BEFORE),--before $(BEFORE))
	$(BIN)/python -m docs.generate

dashboards: build  ## rules for Prometheus and Alertmanager, the dashboard for Grafana (DOCS=URL for where docs/ is read)
	$(BIN)/python -m monitoring

perf-ldap: test-setup $(VENV)/.bench  ## what LDAP clients feel in each mode and fault: docs/reports/ldap.md (LDAP="--rate 200 --p99 50")
	$(BIN)/python -m bench.ldap --report docs/reports/ldap.md $(LDAP)

debug-build: $(VENV)/.installed
	mkdir -p $(DEBUG)
	find $(DEBUG) -type f -name '*.p[yx]*' -delete
	tar -c --exclude='*.so' --exclude='*.c' --exclude=__pycache__ bench ncfast tests setup.py pyproject.toml README.md | tar -x -C $(DEBUG)
	cd $(DEBUG) && NCFAST_DEBUG=1 $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace -j 2

fuzz-debug: $(VENV)/.fuzz debug-build  ## fuzz each target (TARGETS=websocket for one) under the sanitizers, for FUZZ_SECONDS
	cd $(DEBUG) && for target in $(TARGETS); do $(SANITIZED) ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=. \
		$(CURDIR)/$(BIN)/python tests/fuzz/fuzz_$$target.py -max_total_time=$(FUZZ_SECONDS) || exit 1; done

fuzz: build $(VENV)/.fuzz  ## fuzz each target for FUZZ_SECONDS (600)
	for target in tests/fuzz/fuzz_*.py; do $(BIN)/python $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

build: $(VENV)/.built  ## virtual environment and Cython modules

dist: $(VENV)/.dist  ## sdist, a wheel built from that sdist, and what the image has in it as an SBOM (CycloneDX)
	$(BIN)/python -m build --no-isolation
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/ncfast.cdx.json locks/run.txt

wheels: $(VENV)/.dist  ## wheels for every Python that is promised, for glibc and musl, by cibuildwheel (needs Docker or Podman)
	$(BIN)/cibuildwheel --output-dir dist

deb: dist  ## a Debian package from that wheel, which must be for the system's Python (make deb PYTHON=/usr/bin/python3)
	packaging/deb dist/ncfast-*-$$(/usr/bin/python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')-*.whl dist

image: dist  ## the image, by ENGINE (docker, or podman), and beside it what is in it (dist/ncfast.cdx.json)
	version=$$($(BIN)/python -c 'import ncfast; print(ncfast.__version__)') && $(ENGINE) build \
		--build-arg VERSION=$$version --build-arg REVISION=$$(git rev-parse HEAD) -t ncfast:$$version .

# Root's; ten minutes, and no registry of images.
image-rehearsal:  ## build the images on a root of Debian's packages, and run a hub as an orchestrator would
	.ci/need buildah podman runc mmdebstrap netavark
	tests/deploy/rehearse-image

pin-base:  ## the base image that its tag leads to now, by its digest, into the Dockerfile
	.ci/need skopeo
	tag=$$(sed -n 's/^ARG BASE=\(.*\)@.*/\1/p' Dockerfile) && digest=$$(skopeo inspect --format '{{.Digest}}' "docker://$$tag") \
		&& sed -i "s|^ARG BASE=.*|ARG BASE=$$tag@$$digest|" Dockerfile

docs: $(VENV)/.docs  ## the pages as a site with search, in build/site; dead links and anchors are refused
	$(BIN)/python -m docs.site

audit: $(VENV)/.dist  ## whether a package of the locks is known to be vulnerable
	for lock in locks/*.txt; do $(BIN)/pip-audit --strict --disable-pip --require-hashes -r $$lock || exit 1; done

lock: $(VENV)/.dist  ## the newest packages that pyproject.toml allows, by their hashes, into locks/ (UPGRADE= keeps what fits)
	$(BIN)/$(LOCK) $(UPGRADE) -o locks/run.txt pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(BIN)/$(LOCK) $(UPGRADE) -o locks/build.txt -
	$(BIN)/$(LOCK) $(UPGRADE) -c locks/run.txt -c locks/build.txt --extra test --extra dist --extra docs -o locks/dev.txt pyproject.toml
	$(BIN)/$(LOCK) $(UPGRADE) -c locks/run.txt --extra fuzz -o locks/fuzz.txt pyproject.toml
	$(BIN)/$(LOCK) $(UPGRADE) -c locks/run.txt --extra bench -o locks/bench.txt pyproject.toml

clean:  ## remove all that is built here, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info ncfast/*.c ncfast/*.so ncfast/*/*.c ncfast/*/*.so .pytest_cache .hypothesis \
		.mypy_cache .ruff_cache .cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package is installed editable: Python files need nothing more, Cython files are built below.
$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 found; say where it is: make PYTHON=..."; exit 1; }
	$(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
		|| .ci/need gcc libc6-dev $$($(PYTHON) -c 'import sys; v = "python%d.%d" % sys.version_info[:2]; print(v + "-venv", v + "-dev")')
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCKED),$(PIP) --require-hashes -r locks/dev.txt)
	$(PIP) $(ALONE) 'setuptools>=77' 'cython>=3.2,<4'
	$(EDITABLE) .
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(EDITABLE) '.[test]'
	touch $@

$(VENV)/.fuzz: $(VENV)/.installed
	$(if $(LOCKED),$(PIP) --require-hashes -r locks/fuzz.txt)
	$(EDITABLE) '.[fuzz]'
	touch $@

# axe-core alone: what drives the browser is tests/support/chromium.py.
$(VENV)/.page: $(VENV)/.installed
	$(PIP) $(ALONE) --no-deps 'axe-playwright-python>=0.1.8,<0.2'
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(if $(LOCKED),$(PIP) --require-hashes -r locks/bench.txt)
	$(EDITABLE) '.[bench]'
	touch $@

$(VENV)/.dist: $(VENV)/.installed
	$(EDITABLE) '.[dist]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(EDITABLE) '.[docs]'
	touch $@
