# Names for what playbooks/ and tests/run.py do. Everything that is made stays in this folder (.tools .cache .ansible).
.DEFAULT_GOAL := help
PYTHON ?= python3
EXTRA ?=
I ?=
S ?= default
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible refuses to run without a UTF-8 locale, and a bare machine or container often has none set.
ifeq ($(findstring utf,$(subst UTF,utf,$(or $(LC_ALL),$(LC_CTYPE),$(LANG)))),)
export LC_ALL := C.UTF-8
endif

# An inventory of one's own (make deploy I=inventories/mine) may be about servers, which needs more on the controller.
TOOLS := $(if $(I),server,deploy)
PLAYBOOK := .tools/$(TOOLS)/bin/ansible-playbook $(if $(I),-i "$(I)")
CHECK := .tools/test/bin/python tests/run.py

.PHONY: help provision image deprovision deploy preflight demo scale resize status credentials upgrade rollback backup restore remove test lint unit sanity clouds e2e scenario bench bench-backups bench-servers bench-life bench-clouds bench-inventories lock clean deploy-tools server-tools test-tools

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

provision: $(TOOLS)-tools ## Make the machines of a grid in a cloud: I=inventories/mine (EXTRA=--check shows them)
	@$(PLAYBOOK) playbooks/provision.yml $(EXTRA)

image: $(TOOLS)-tools ## Make an image from which new machines of a cloud are there sooner
	@$(PLAYBOOK) playbooks/image.yml $(EXTRA)

deprovision: $(TOOLS)-tools ## Remove everything of a grid from a cloud, but for its data (EXTRA=--check lists it)
	@$(PLAYBOOK) playbooks/deprovision.yml $(EXTRA)

deploy: $(TOOLS)-tools ## Bring up a grid on this machine, or that of an inventory: I=inventories/mine (EXTRA="-e name=value")
	@$(PLAYBOOK) playbooks/deploy.yml $(EXTRA)

preflight: $(TOOLS)-tools ## Say what has to be mended before a deploy to servers: I=inventories/mine
	@$(PLAYBOOK) playbooks/preflight.yml $(EXTRA)

scale: $(TOOLS)-tools ## More or fewer Workers: EXTRA="-e pygrid_domain_workers=alice=2,bob=1"
	@$(PLAYBOOK) playbooks/scale.yml $(EXTRA)

resize: $(TOOLS)-tools ## Other processes and limits of nodes (EXTRA="-e @limits.yml"), in a cloud other sizes of machines
	@$(PLAYBOOK) playbooks/resize.yml $(EXTRA)

demo: $(TOOLS)-tools ## Train a model over the private data of both Domains
	@$(PLAYBOOK) playbooks/demo.yml $(EXTRA)

status: $(TOOLS)-tools ## Show every node, its health and what its Workers do
	@$(PLAYBOOK) playbooks/status.yml $(EXTRA)

credentials: $(TOOLS)-tools ## Show the root accounts: EXTRA="-e pygrid_show_credentials=true"
	@$(PLAYBOOK) playbooks/credentials.yml $(EXTRA)

upgrade: $(TOOLS)-tools ## Another version of syft while people work: EXTRA="-e pygrid_version=0.9.5" (--check shows the plan)
	@$(PLAYBOOK) playbooks/upgrade.yml $(EXTRA)

rollback: $(TOOLS)-tools ## Back to what ran before the last upgrade (EXTRA=--check says what it would cost)
	@$(PLAYBOOK) playbooks/rollback.yml $(EXTRA)

backup: $(TOOLS)-tools ## Back up every node (EXTRA="-e pygrid_backup_repository=/mnt/backups" unless the inventory says where)
	@$(PLAYBOOK) playbooks/backup.yml $(EXTRA)

restore: $(TOOLS)-tools ## Give nodes back what a backup knew: EXTRA="--limit alice,alice-w1"
	@$(PLAYBOOK) playbooks/restore.yml $(EXTRA)

remove: $(TOOLS)-tools ## Take the grid away (its data too: EXTRA="-e pygrid_remove_data=true")
	@$(PLAYBOOK) playbooks/remove.yml $(EXTRA)

test: test-tools ## Run every check: lint, unit, sanity, clouds, e2e, molecule
	@$(CHECK)

lint unit sanity clouds e2e: test-tools ## Run one part of the checks
	@$(CHECK) $@

scenario: test-tools ## Run one molecule scenario: make scenario S=name
	@$(CHECK) molecule --scenario "$(S)"

bench: test-tools ## Measure deploys against a bare shell script, then the AWS inventory
	@.tools/test/bin/python tests/benchmarks/run.py $(EXTRA)
	@$(MAKE) --no-print-directory bench-inventories EXTRA="--runs 1"

bench-backups: test-tools ## Measure backup and restore of a Domain beside restic alone
	@.tools/test/bin/python tests/benchmarks/backups.py $(EXTRA)

bench-servers: test-tools ## Measure deploys to 1, 4 and 8 hosts of a lab
	@.tools/test/bin/python tests/benchmarks/servers.py $(EXTRA)

bench-life: test-tools ## Measure what upgrades cost those who use a grid, and scaling, on a host of a lab
	@.tools/test/bin/python tests/benchmarks/life.py

bench-clouds: test-tools ## Measure more and fewer Workers in a cloud of the lab
	@.tools/test/bin/python tests/benchmarks/clouds.py

bench-inventories: test-tools ## Measure the AWS inventory beside amazon.aws.aws_ec2
	@PATH="$(CURDIR)/.tools/test/bin:$$PATH" .tools/test/bin/python tests/benchmarks/inventories.py $(EXTRA)

lock: deploy-tools ## Renew the lock files of the tool environments (requirements/lock.py: of the releases)
	@for name in deploy server test; do .tools/deploy/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-header --cache-dir .cache/uv --output-file requirements/$$name.txt requirements/$$name.in || exit 1; done

clean: ## Remove the tool environments and caches (not the grid)
	@rm -rf .tools .cache .ansible

deploy-tools:
	@$(PYTHON) -I -S requirements/environment.py .tools/deploy requirements/deploy.txt

server-tools: deploy-tools
	@$(PYTHON) -I -S requirements/environment.py .tools/server requirements/server.txt

test-tools: deploy-tools
	@$(PYTHON) -I -S requirements/environment.py .tools/test requirements/test.txt
