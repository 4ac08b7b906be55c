# The one door to the project. Each target first makes sure that this machine has what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup system demo test check bench soak lock clean

VENV := .venv
BIN := $(VENV)/bin
PRODUCTS := gateway central shared provisioning
# Everything that decides what is installed; another content is another stamp.
STAMP := $(VENV)/.installed-$(shell cat requirements-dev.lock pyproject.toml | sha256sum | cut -c1-16)
# Debian keeps some of the programs where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# program:package, or /file:package for what is no program
PROGRAMS := mosquitto:mosquitto softhsm2-util:softhsm2 pkcs11-tool:opensc openssl:openssl \
	cfssl:golang-cfssl chromium:chromium setpriv:util-linux \
	curl:curl pki:strongswan-pki faketime:faketime \
	/usr/lib/ipsec/plugins/libstrongswan-curl.so:libstrongswan-extra-plugins \
	/usr/lib/ipsec/plugins/libstrongswan-openssl.so:libstrongswan-standard-plugins \
	psql:postgresql-client pg_ctlcluster:postgresql
# The first Python that is new enough and can make virtual environments.
PYTHON = $$(for python in python3 /usr/bin/python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done; true)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## A line enrolls, the link is cut and returns (ARGS="--exit --devices 500 --port-base 21000")
	@exec $(BIN)/python -m tests.demo $(ARGS)

test: check ## Everything: check, integration, end to end, faults (under 40 minutes)
	@$(BIN)/pytest -n 2 --dist loadfile -m "not soak" tests/integration tests/e2e tests/faults

check: setup ## Lint, types, layers, unit tests, architecture, simulator (under 4 minutes)
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not soak" tests/unit tests/architecture tests/sim
	$(BIN)/python -m tests.sim --first 1000 --seconds 60 --jobs 2

bench: setup ## Measure against peers and physical limits in the same run; writes var/bench/
	@for bench in tests/bench/[a-z]*.py; do $(BIN)/python -m "tests.bench.$$(basename "$$bench" .py)"; done

soak: setup ## What takes longer than `make test` may; writes var/soak/
	@mkdir -p var/soak
	$(BIN)/pytest -m soak --timeout 0 --junit-xml var/soak/report.xml tests
	$(BIN)/python -m tests.sim --seeds 100000 --jobs 2 --resume var/soak/simulator.json

lock: ## Pin the dependencies again, with hashes and without index addresses
	@test -x var/lock/bin/uv || { $(PYTHON) -m venv var/lock && var/lock/bin/pip install -q uv; }
	compile="var/lock/bin/uv pip compile -q --upgrade pyproject.toml --extra gateway --extra central"
	compile+=" --generate-hashes --no-emit-index-url --python-version 3.11"
	$$compile -o requirements.lock
	$$compile --extra dev -o requirements-dev.lock

clean: ## Remove what was built and measured; keeps the virtual environment
	@rm -rf var .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PRODUCTS) tests -name __pycache__ -prune -exec rm -rf {} +

setup: system $(STAMP)

# A service that cannot start (no systemd, port in use) is no reason to fail: the demo and the tests
# start their own processes on their own ports. Only a program that is still missing is.
system:
	@missing() {
	  for need in $(PROGRAMS); do
	    command -v "$${need%%:*}" >/dev/null || test -f "$${need%%:*}" || echo "$${need##*:}"
	  done
	  test -n "$(PYTHON)" || echo python3-venv
	}
	needed=$$(missing | xargs)
	test -n "$$needed" || exit 0
	echo "Installing from Debian: $$needed"
	root=(env DEBIAN_FRONTEND=noninteractive)
	test "$$(id -u)" = 0 || root=(sudo -n "$${root[@]}")
	"$${root[@]}" apt-get update -q || true
	"$${root[@]}" apt-get install -q -y --no-install-recommends $$needed || true
	needed=$$(missing | xargs)
	test -z "$$needed" || { echo "Please install as root: apt-get install $$needed" >&2; exit 1; }

$(STAMP): | system
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	rm -f $(VENV)/.installed-*
	touch $@
