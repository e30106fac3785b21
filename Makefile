# One command sets up what it needs: a virtual environment in .venv, nothing outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What running needs, and what developing needs on top of it.
INSTALLED := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help install run demo-fleet test fast slow check tiers static static-tools lint types imports words \
	coverage compiled sanitized bench soak bench-report lock sbom audit audit-if-possible tools rules attacks \
	fuzz security screenshots docs reference dist chart release-check clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(INSTALLED): requirements.lock .ci/environment.py
	@$(PYTHON) .ci/environment.py $(VENV) requirements.lock --only-binary
	@touch $@

$(STAMP): requirements-dev.lock $(INSTALLED)
	@$(PYTHON) .ci/environment.py $(VENV) requirements-dev.lock
	@touch $@

install: $(INSTALLED) ## Set up .venv with what running needs: .venv/bin/gateway

COMPILED := build/compiled
SOURCES := $(shell find gateway -name '*.py' -o -path '*/codec/*' -type f) setup.py

$(COMPILED)/.built: $(STAMP) $(SOURCES)
	rm -rf $(COMPILED) build/dist build/lib* build/temp*
	deploy/docker/install.sh wheel build/dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(COMPILED) build/dist/*.whl
	@touch $@

run: $(INSTALLED) ## Start the gateway with its demo upstream (Ctrl-C stops both)
	@$(BIN)/python -m examples.demo

# The packages for development bring a Redis.
demo-fleet: $(if $(shell command -v redis-server),$(INSTALLED),$(STAMP)) ## Three gateways and a Redis on loopback: revocation across them, measured
	@$(BIN)/python -m examples.demo_fleet

# Thousands of processes would compile the same sources again.
test fast slow coverage compiled: export PYTHONDONTWRITEBYTECODE :=

# More processes than cores: they mostly wait for one another.
PYTEST = $(BIN)/python -m pytest -q -n $(or $(PROCESSES),auto) --dist worksteal

test: $(STAMP) ## What a change needs: linters, types, import rules, and all tests that are fast
	@$(MAKE) --no-print-directory -j --output-sync --keep-going static-tools fast

fast: $(STAMP)
	+MAKEFLAGS= $(PYTEST) -m 'not slow'

slow: audit-if-possible $(STAMP) ## The rest: slow tests, the coverage floor, tests on the compiled wheel, the audit
	$(PYTEST) -m slow
	@$(MAKE) --no-print-directory coverage compiled sanitized

check: ## Both, as CI runs them
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory slow

tiers: $(STAMP) ## How many tests are fast, how many are slow, and why
	@PYTHONPATH=tests $(BIN)/python -m support.tiers

static: $(STAMP) ## Only what needs no test run
	@$(MAKE) --no-print-directory -j --output-sync static-tools

static-tools: lint security types imports words

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

security: $(STAMP)
	$(BIN)/bandit --quiet --recursive -c pyproject.toml gateway

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

words: $(STAMP)
	$(BIN)/python .ci/words.py

# Tests in one process with the gateway, again: others cover it, too, but can't be watched as cheaply.
coverage: $(STAMP) ## The coverage floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n $(or $(PROCESSES),auto) --dist worksteal -m 'not slow and not system'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Tests of the data plane, once more, on the wheel that users install; then those of heads without its codec.
TEST_WHEEL = cd tests && TEST_COMPILED=1 PYTHONPATH=../$(COMPILED):.. ../$(BIN)/python -P -m pytest -q -c ../pyproject.toml \
	-n $(or $(PROCESSES),auto) --dist worksteal --rootdir .. -o pythonpath=tests -p no:cacheprovider
compiled: $(COMPILED)/.built ## The tests of what is compiled, compiled
	$(TEST_WHEEL) codec downstream embedded http http2 proxy upstream hardening/test_hardening_bypass.py \
		hardening/test_hardening_smuggling.py oauth/test_oauth_token_cache.py system/test_compiled.py -k 'not a_million'
	GATEWAY_NO_CODEC=1; export GATEWAY_NO_CODEC; $(TEST_WHEEL) codec downstream http proxy \
		hardening/test_hardening_bypass.py hardening/test_hardening_smuggling.py system/test_compiled.py -k 'not a_million'

# Memory of its own for each object of Python, so that the borders of all of them are watched.
sanitized: $(STAMP) ## The codec beside the Python readers, in a build with ASAN and UBSAN (CASES=1000000 for each)
	CODEC=$$($(BIN)/python .ci/codec.py --sanitize) && ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc CODEC=$$CODEC \
		LD_PRELOAD=$$(cc -print-file-name=libasan.so):$$(cc -print-file-name=libubsan.so) \
		$(BIN)/python -m fuzz.differential --cases $(or $(CASES),30000)

bench: $(COMPILED)/.built ## Measure the gateway beside nginx, Envoy, HAProxy, Caddy and plain aiohttp (QUICK=1: a short run)
	@PYTHONPATH=$(CURDIR)/$(COMPILED)$(if $(INTERPRETER),:$(wildcard $(CURDIR)/$(VENV)/lib/python*/site-packages)) \
		$(or $(INTERPRETER),$(BIN)/python) -m bench $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(PARTS),--parts $(PARTS)) \
		$(if $(SUBJECTS),--subjects $(SUBJECTS)) $(if $(WORKLOADS),--workloads $(WORKLOADS)) \
		$(if $(RESULTS),--results $(RESULTS))

bench-report: $(STAMP) ## Write docs/explanation/performance.md and what else quotes results from the results of the last full run
	@$(BIN)/python -m bench report $(if $(RESULTS),--results $(RESULTS))

# The lock files: what the image is made of, what builds the wheel, and what checks it all.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
# All extras but `dev`: the image can do whatever a configuration asks for.
FEATURES = $(shell sed -n '/^\[project.optional-dependencies\]/,/^\[dependency-groups\]/p' pyproject.toml \
	| sed -n 's/^\([a-z0-9-]*\) = \[.*/--extra \1/p' | grep -v 'extra dev$$')
lock: ## Pin all dependencies by hash (UPGRADE=1: to their newest versions); needs uv
	$(LOCK) pyproject.toml $(FEATURES) -o requirements.lock
	$(LOCK) pyproject.toml $(FEATURES) --extra dev -o requirements-dev.lock
	python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(LOCK) - -o requirements-build.lock
	$(LOCK) --group site -o requirements-site.lock

sbom: $(STAMP) ## What the image is made of, as CycloneDX (build/bearer-gateway.cdx.json)
	rm -rf build/image
	deploy/docker/install.sh dependencies build/image
	GATEWAY_PURE=1 deploy/docker/install.sh wheel build/image/dist
	deploy/docker/install.sh gateway build/image build/image/dist
	$(BIN)/python .ci/sbom.py build/image build/bearer-gateway.cdx.json

dist: $(STAMP) ## Build an sdist, and a wheel of it for this machine, into build/dist
	rm -rf build/dist
	deploy/docker/install.sh wheel build/dist

chart: ## Package the Helm chart into build/chart (needs helm: make tools)
	PATH="$$PATH:$(CURDIR)/build/tools" helm package deploy/helm/bearer-gateway --destination build/chart

release-check: ## Compare the version in all places that name it (TAG=v1.2.3: with that of a tag, too)
	@$(PYTHON) .ci/release.py check $(TAG)

audit: $(STAMP) ## Ask PyPI for known vulnerabilities of what is locked
	$(BIN)/python .ci/audit.py $(LENIENT) requirements.lock requirements-build.lock

# In `make check`, a network that does not reach PyPI is told of, and no error.
audit-if-possible: LENIENT := --lenient
audit-if-possible: audit

SITE_ENVIRONMENT := build/site-environment
$(SITE_ENVIRONMENT)/.installed: requirements-site.lock .ci/environment.py
	@$(PYTHON) .ci/environment.py $(SITE_ENVIRONMENT) requirements-site.lock --only-binary
	@touch $@

docs: reference $(SITE_ENVIRONMENT)/.installed ## Build the documentation into a site that can be searched: build/site
	@$(SITE_ENVIRONMENT)/bin/python .ci/site.py

reference: $(STAMP) ## Write the pages that are made from the code: commands, configuration, reasons
	@$(BIN)/python .ci/cli_reference.py
	@$(BIN)/python .ci/config_reference.py
	@$(BIN)/python .ci/reasons_reference.py

tools: ## Fetch what the tests of deploy/ run: kubectl, helm, Prometheus (into build/tools)
	@.ci/tools

# One source for plain Prometheus, the operator and the Helm chart.
RULES := deploy/prometheus/rules.yaml
rules: ## Copy the Prometheus rules to where the operator and the Helm chart want them
	mkdir -p deploy/helm/bearer-gateway/files
	cp $(RULES) deploy/helm/bearer-gateway/files/rules.yaml
	{ sed '/^spec:/q' deploy/prometheus/prometheusrule.yaml; sed 's/^./  &/' $(RULES); } > build/rules
	mv build/rules deploy/prometheus/prometheusrule.yaml

attacks: $(COMPILED)/.built ## Attack a gateway, and measure what honest requests notice (ROUNDS=3 ATTACKS="slow_heads pipelines")
	@PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -P -m bench.attacks \
		$(foreach attack,$(ATTACKS),--only $(attack)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RESULTS),--results $(RESULTS))

fuzz: $(STAMP) ## Search for inputs that break a reader (SECONDS=600 for each, TARGETS="chunks jwt")
	$(BIN)/python -m fuzz $(TARGETS) --seconds $(or $(SECONDS),60)

screenshots: $(STAMP) ## Write the pictures of the console in docs/images (needs Chromium)
	@PYTHONPATH=tests:. $(BIN)/python -P tests/support/screenshots.py

soak: $(STAMP) ## Mixed traffic, reloads, revocations and faults, with an account of each request (SECONDS=600)
	$(BIN)/python -m soak --seconds $(or $(SECONDS),600) $(if $(WORKERS),--workers $(WORKERS)) \
		$(if $(STORE),--store $(STORE))

clean: ## Remove the virtual environment and what tools left behind
	rm -rf $(VENV) build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
