# The first of these that is new enough, and can make virtual environments if one of them can; PYTHON names another.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for needed in 'import ensurepip, venv; ' ''; do for name in $(PYTHONS); do \
	$$name -c "$${needed}$(NEW_ENOUGH)" 2>/dev/null && echo $$name && exit; done; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What was made by an interpreter that is gone, or in another folder, is made anew.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell $(BIN)/lightmeter --version >/dev/null 2>&1 && echo works),works)
$(shell rm -f $(READY))
endif
endif
FAST := tests/cli tests/domain tests/settings tests/telemetry tests/upstream tests/web

.PHONY: help run test test-fast check bench bench-check bench-peers soak soak-memory draw format lock dist release clean
.DEFAULT_GOAL := help

help:
	@echo "make run     an image through the gateway, metered, on this machine"
	@echo "make test    the whole test suite"
	@echo "make test-fast   the quick tests that need no store, in under a minute"
	@echo "make check   linters, types and layers"
	@echo "make bench   speed beside a bare forwarder and nginx"
	@echo "make bench-check   whether a request takes more of the processor than in the last release"
	@echo "make bench-peers   the same beside LiteLLM, Portkey and nginx with Lua, installed into .bench"
	@echo "make soak    faults by chance on real processes, for SECONDS=60 from SEED=1"
	@echo "make soak-memory   whether a gateway under full load grows, in MINUTES=30"
	@echo "make draw    the dashboards as pictures, from SECONDS=300 of real traffic, and the console"
	@echo "make format  put the code in its standard form"
	@echo "make lock    choose new versions for development"
	@echo "make dist    sdist, wheel, SBOM and checksums, each tried on every Python that is here"
	@echo "make release VERSION=1.2.3   whether this commit may be that version; then make dist"

$(READY): requirements.lock pyproject.toml
	@python="$(PYTHON)"; "$${python:-no-python}" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "Lightmeter needs Python 3.11 or newer, and none was found; $${python:=python3} is" \
			"$$("$$python" --version 2>&1 || echo not here)." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/of/python3.12" >&2; exit 1; }
	@# One that is whole is kept, and brought up to date.
	@"$(BIN)/python" -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || "$(PYTHON)" -m venv --clear "$(VENV)" || { \
		echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu, install python3-venv, or the" \
			"-venv package of that version; then say make $(MAKECMDGOALS) again." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

run: $(READY)
	$(BIN)/lightmeter demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(READY)
	LIGHTMETER_TESTS=fast $(BIN)/python -m pytest -m "not slow" -n 2 $(FAST) $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.compare $(ARGS)

bench-check: $(READY)
	$(BIN)/python -m tests.benchmarks.check $(if $(BESIDE),--beside "$(BESIDE)") $(ARGS)

bench-peers: $(READY)
	$(BIN)/python -m tests.benchmarks.peers $(ARGS)

soak: $(READY)
	$(BIN)/python -m tests.faults.soak --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

soak-memory: $(READY)
	$(BIN)/python -m tests.benchmarks.memory --minutes $(or $(MINUTES),30) $(ARGS)

draw: $(READY)
	$(BIN)/python -m tests.deploy.pictures --seconds $(or $(SECONDS),300)
	$(BIN)/python -m tests.console.pictures

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --extra demo --extra dev --extra embedded --extra traces --extra azure --extra google --extra aws --extra postgres --extra oidc --output-file requirements.lock $(ARGS) pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-annotate --no-header --constraint requirements.lock --extra demo --extra embedded \
		--extra traces --extra azure --extra google --extra aws --extra postgres --extra oidc --output-file deploy/docker/requirements.lock $(ARGS) pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-annotate --no-header --output-file tests/clients/requirements.lock $(ARGS) \
		tests/clients/requirements.in

dist: $(READY)
	$(BIN)/python -m tests.release.dist $(ARGS)

release: $(READY)
	$(BIN)/python -m tests.release.ready $(VERSION)

clean:
	rm -rf $(VENV) .bench dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
