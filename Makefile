# kube-nginx-agent: `make help` lists the targets.

PYTHON := /usr/bin/python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kube-nginx-agent
VENV := $(CACHE)/venv-$(shell cksum <tests/requirements.txt | cut -d' ' -f1)
NGINX := $(CACHE)/nginx/nginx
export PYTHONPATH := agent:tests
export KUBE_NGINX_TEST_NGINX := $(NGINX)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: run
run: ## run the agent and its nginx here, with three stand-in apiservers (or BACKENDS=your/backends.yaml)
	@packaging/setup run
	@$(MAKE) -s --no-print-directory $(NGINX)
	@exec $(PYTHON) -m support.demo --nginx $(NGINX) $(if $(BACKENDS),--backends $(BACKENDS))

.PHONY: test
test: ## every check of the project; the system tests need root
	@packaging/setup test
	@$(MAKE) -s --no-print-directory $(NGINX) $(VENV)
	@tests/all $(VENV)

.PHONY: lint
lint: $(VENV) ## format, lint and type checks
	@$(VENV)/bin/ruff format --check -q . && $(VENV)/bin/ruff check -q . && $(VENV)/bin/mypy

.PHONY: bench
bench: $(NGINX) ## how fast an edit goes live, and what 100 edits under load cost
	@packaging/setup run
	@$(PYTHON) benchmarks/edits.py --nginx $(NGINX)

.PHONY: bench-idle
bench-idle: $(NGINX) ## what the agent costs while it waits, in each state in which it does; root
	@packaging/setup run
	@$(PYTHON) benchmarks/idle.py --nginx $(NGINX) $(ARGS)

.PHONY: bench-faults
bench-faults: $(NGINX) ## what clients notice when apiservers fail, here and with peers; root, half an hour (ARGS="--only agent": 6)
	@packaging/setup run bench
	@$(PYTHON) benchmarks/faults.py --nginx $(NGINX) $(ARGS)

.PHONY: bench-fleet
bench-fleet: ## what the probes of a whole cluster's nodes cost an apiserver; root
	@packaging/setup run bench
	@$(PYTHON) benchmarks/fleet.py $(ARGS)

.PHONY: soak
soak: $(VENV) ## 3,000 swaps of a ConfigMap: none missed, nothing left behind
	@packaging/setup run
	@$(VENV)/bin/python -m pytest -q -m soak tests/component

.PHONY: deb
deb: ## build the Debian package, into dist/ (ARCH=arm64: for that architecture)
	@packaging/setup package $(if $(filter-out $(shell dpkg --print-architecture),$(ARCH)),cross-$(ARCH))
	@ARCH="$(ARCH)" packaging/deb/build

.PHONY: rpm
rpm: ## build the rpm for EL 9, EL 10 and Fedora, into dist/
	@packaging/setup package
	@packaging/rpm/build

.PHONY: apt-repo
apt-repo: deb ## make a signed apt repository of it, in dist/apt; KEY= is your GnuPG key
	@packaging/apt/build "$(KEY)"

.PHONY: test-system
test-system: $(VENV) ## install, upgrade and remove the packages on booted Debian systems; needs root
	@packaging/setup test
	@$(VENV)/bin/python -m pytest -q -n 2 tests/documents tests/system

.PHONY: test-versions
test-versions: $(NGINX) ## the tests of watching and probing with old and new watchdog and requests
	@packaging/setup run test
	@tests/versions

.PHONY: fuzz
fuzz: $(VENV) ## fuzz all that reads what strangers send (SECONDS=600 for each reader)
	@packaging/setup run test
	@$(VENV)/bin/python -m fuzz.campaign $(or $(SECONDS),600) $(CACHE)/fuzz

.PHONY: audit
audit: $(VENV) ## look for known weaknesses in our source and in the packages of the checks
	@packaging/audit $(VENV)

.PHONY: mutation
mutation: ## change the pure core bit by bit: do its tests notice? (SECONDS=3600 EACH=60 ONLY="desired intake/settle")
	@packaging/setup run test
	@tests/mutation $(CACHE) $(or $(SECONDS),3600) $(or $(EACH),60) $(ONLY)

.PHONY: simulate
simulate: $(VENV) ## the real loop in a simulated world: HOURS=100 of a node, or SEED=7 again (SHRINK=1: its shortest form)
	@packaging/setup run test
	@$(VENV)/bin/python -m simulation --jobs $$(nproc) \
		$(if $(SEED),--seed $(SEED) $(if $(SHRINK),--shrink),--hours $(or $(HOURS),100) --first $(or $(FIRST),1))

.PHONY: nginx
nginx: $(NGINX) ## build the stream-only nginx

.PHONY: nginx-outdated
nginx-outdated: ## does Debian's source pool list a newer nginx than is built here?
	@packaging/nginx/outdated

$(NGINX): $(addprefix packaging/nginx/,source pool fetch build mend) $(wildcard packaging/nginx/patches/*)
	@packaging/setup run
	@echo "building the stream-only nginx ..."
	@packaging/nginx/build "$$(packaging/nginx/fetch $(CACHE))" $(@D)
	@strip $@
	@touch $@

# New requirements make a new environment; what the daemon imports is the distribution's.
$(VENV): tests/requirements.txt
	@packaging/setup test
	@rm -rf $@ && $(PYTHON) -m venv --system-site-packages $@ && \
		$@/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt || \
		{ rm -rf $@; exit 1; }
