# Names for what playbooks/ and tests/run.py do. Everything that is made stays in this folder (.tools .cache .ansible).
.DEFAULT_GOAL := help
PYTHON ?= python3
EXTRA ?=
S ?= default
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible refuses to run without a UTF-8 locale, and a bare machine or container often has none set.
ifeq ($(findstring utf,$(subst UTF,utf,$(or $(LC_ALL),$(LC_CTYPE),$(LANG)))),)
export LC_ALL := C.UTF-8
endif

PLAYBOOK := .tools/deploy/bin/ansible-playbook
CHECK := .tools/test/bin/python tests/run.py

.PHONY: help deploy demo status credentials remove test lint unit sanity e2e scenario bench lock clean deploy-tools test-tools

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deploy: deploy-tools ## Bring up a grid on this machine (EXTRA="-e name=value" reaches ansible-playbook)
	@$(PLAYBOOK) playbooks/deploy.yml $(EXTRA)

demo: deploy-tools ## Train a model over the private data of both Domains
	@$(PLAYBOOK) playbooks/demo.yml $(EXTRA)

status: deploy-tools ## Show every node, its health and what its Workers do
	@$(PLAYBOOK) playbooks/status.yml $(EXTRA)

credentials: deploy-tools ## Show the root accounts: EXTRA="-e pygrid_show_credentials=true"
	@$(PLAYBOOK) playbooks/credentials.yml $(EXTRA)

remove: deploy-tools ## Take the grid away (its data too: EXTRA="-e pygrid_remove_data=true")
	@$(PLAYBOOK) playbooks/remove.yml $(EXTRA)

test: test-tools ## Run every check: lint, unit, sanity, e2e, molecule
	@$(CHECK)

lint unit sanity e2e: test-tools ## Run one part of the checks
	@$(CHECK) $@

scenario: test-tools ## Run one molecule scenario: make scenario S=name
	@$(CHECK) molecule --scenario "$(S)"

bench: test-tools ## Measure deploys against a bare shell script
	@.tools/test/bin/python tests/benchmarks/run.py $(EXTRA)

lock: deploy-tools ## Renew the lock files of the tool environments (requirements/lock.py: of the releases)
	@for name in deploy test; do .tools/deploy/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-header --cache-dir .cache/uv --output-file requirements/$$name.txt requirements/$$name.in || exit 1; done

clean: ## Remove the tool environments and caches (not the grid)
	@rm -rf .tools .cache .ansible

deploy-tools:
	@$(PYTHON) -I -S requirements/environment.py .tools/deploy requirements/deploy.txt

test-tools: deploy-tools
	@$(PYTHON) -I -S requirements/environment.py .tools/test requirements/test.txt
