# Every target has a line of help behind ##; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

SOURCES := contract/src storage/src gpu/src search/src operator/src serving-image/src serving-image/engine/src data/src evaluation/src trainer-image/src e2e/checks/src e2e/cluster/src e2e/images/src e2e/demo/src docs/generate/src tests/support e2e/tests/support
empty :=
space := $(empty) $(empty)
export PYTHONPATH := $(subst $(space),:,$(addprefix $(CURDIR)/,$(SOURCES)))

RESULTS := build/test-results
# Looked up when a target needs them: the environments live in the cache, by the hash of their pins.
dev = $$(python3 -m tunesmith_images venv dev)/bin
trainer = $$(python3 -m tunesmith_images venv trainer)/bin
# Tests that need no process but their own; those with a stage of their own; and all others, so that none is left out.
pure := tests/contract tests/api tests/decide tests/manifests tests/checks
staged := $(addprefix tests/,data evaluation trainer engine_start storage harness control_plane image)
unit := $(filter-out $(pure) $(staged) tests/support, $(patsubst %/,%,$(wildcard tests/*/)))
# Tests with the agent's compiled modules; in short those whose code differs most from what is interpreted, and which
# each byte of a client goes through.
compiled := -p tunesmith_images.compiled_agent_plugin
compiled_http := client_limits compiled_agent fuzz http_differential http_faults known_head peers protocol rough_requests usage
# What mypy checks in the environment of the trainer: that of development lacks torch.
torch := data/src evaluation/src gpu/src serving-image/engine/src trainer-image/src tests/data tests/evaluation \
	tests/engine_start tests/trainer \
	$(addprefix tests/support/,argilla_server browser.py models rows stages training_memory)
# The cache lies in the environment, so that all checkouts share it; its database serves one process at a time.
mypy = environment=$$(python3 -m tunesmith_images venv $(1)) && \
	flock "$$environment/mypy.lock" "$$environment/bin/mypy" --cache-dir "$$environment/mypy-cache"
long := --long --timeout=0 -m "many_cases or long"
# Two processes share the files of a stage; each has fixtures of its own, such as a control plane.
two := -n 2 --dist loadfile

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo demo-down
demo: bootstrap ## Bring a cluster up, train, evaluate and serve the quickstart (root; with Docker by kind: untried)
	@$(dev)/python -m tunesmith_demo up

demo-down: bootstrap ## Remove all that `make demo` made (build caches stay; `make clean-cache` removes them)
	@$(dev)/python -m tunesmith_demo down

.PHONY: test test-long test-unit test-storage test-data test-evaluation test-trainer test-control-plane test-engine test-compiled test-image test-e2e coverage-check coverage-raise
test: bootstrap ## Everything: install what is needed, checks, all tests side by side; prints times and coverage
	@python3 -m tunesmith_checks

test-long: ## The long form of property tests, fuzzing and simulations, seeded anew each time (hours)
	@$(dev)/pytest -q $(long) $(pure) --junitxml=$(RESULTS)/pure-long.xml
	@$(dev)/pytest -q $(long) $(unit) --junitxml=$(RESULTS)/unit-long.xml
	@$(dev)/pytest -q --long --timeout=0 $(compiled) -m "not engine" tests/agent --junitxml=$(RESULTS)/compiled-long.xml
	@$(trainer)/pytest -q $(long) tests/data tests/evaluation tests/trainer --junitxml=$(RESULTS)/trainer-long.xml
	@$(dev)/pytest -q $(long) -p tunesmith_cluster.pytest_plugin tests/control_plane --junitxml=$(RESULTS)/control-plane-long.xml
	@TUNESMITH_ENGINE_PYTHON=$$(python3 -m tunesmith_images venv engine)/bin/python \
		$(dev)/pytest -q --long --timeout=0 -m "engine and long" tests/agent --junitxml=$(RESULTS)/engine-long.xml
	@$(dev)/pytest -q --long --timeout=0 -m long tests/image --junitxml=$(RESULTS)/image-long.xml
	@$(dev)/pytest -q $(long) -p tunesmith_cluster.pytest_plugin e2e/tests --junitxml=$(RESULTS)/e2e-long.xml
	@$(dev)/pytest -q tests/image --trainer-image trainer-cuda12 --junitxml=$(RESULTS)/image-cuda12.xml

test-unit: ## Contract, operator, agent, checks, image builder, chart, docs: no cluster
	@$(dev)/pytest -q $(pure) --junitxml=$(RESULTS)/pure.xml
	@$(dev)/pytest -q -m "not engine" $(unit) --junitxml=$(RESULTS)/unit.xml

test-storage: ## Buckets and registries: a real S3 server and OCI registry, emulators of Google's and Azure's storage
	@$(dev)/pytest -q tests/storage --junitxml=$(RESULTS)/storage.xml

test-data: ## Data preparation: reading, cleaning, quality, labels, generation, the command
	@OMP_NUM_THREADS=1 $(trainer)/pytest -q tests/data --junitxml=$(RESULTS)/data.xml

test-evaluation: ## Evaluation: items, metrics, statistics, answers of tiny models, reports, the command
	@OMP_NUM_THREADS=1 $(trainer)/pytest -q -m "not engine" tests/evaluation --junitxml=$(RESULTS)/evaluation.xml

test-trainer: ## Trainer: training and checkpoints, on tiny models
	@OMP_NUM_THREADS=1 $(trainer)/pytest -q tests/trainer tests/engine_start --junitxml=$(RESULTS)/trainer.xml

test-control-plane: ## Operator, CRDs and cluster tools against a real API server, controller-manager and kwok
	@$(dev)/pytest -q $(two) -p tunesmith_cluster.pytest_plugin tests/harness tests/control_plane --junitxml=$(RESULTS)/control-plane.xml

test-engine: ## Agent and evaluation against the real serving engine, on tiny models
	@TUNESMITH_ENGINE_PYTHON=$$(python3 -m tunesmith_images venv engine)/bin/python \
		$(dev)/pytest -q -m engine tests/agent --junitxml=$(RESULTS)/engine.xml
	@TUNESMITH_ENGINE_PYTHON=$$(python3 -m tunesmith_images venv engine)/bin/python \
		$(trainer)/pytest -q -m engine tests/evaluation/answering --junitxml=$(RESULTS)/evaluation-engine.xml

test-compiled: ## The agent's HTTP with compiled modules, as in its image
	@$(dev)/pytest -q $(compiled) $(addprefix tests/agent/test_,$(addsuffix .py,$(compiled_http))) \
		--junitxml=$(RESULTS)/compiled.xml

test-image: ## Trainer image as pods run it: each method, adapter, format, store and metric, without a cluster (root)
	@$(dev)/pytest -q tests/image --junitxml=$(RESULTS)/image.xml

test-e2e: ## Real pods: the quickstart's way on a tiny model (root, or TUNESMITH_KUBECONFIG)
	@$(dev)/pytest -q -p tunesmith_cluster.pytest_plugin e2e/tests --junitxml=$(RESULTS)/e2e.xml

coverage-check: ## Print what the last `make test` covered, by folder; fails where one is below its floor
	@$(dev)/python -m tunesmith_checks.coverage_floors check

coverage-raise: ## Lift the floors of coverage to what the last `make test` covered
	@$(dev)/python -m tunesmith_checks.coverage_floors raise

.PHONY: lint format crds docs
lint: ## Formatting, ruff, mypy, import-linter; the chart with helm lint and helm template
	@$(dev)/ruff format --check .
	@$(dev)/ruff check .
	@$(call mypy,dev) contract/src storage/src search/src operator/src serving-image/src serving-image/hatch_build.py docs/generate/src $(wildcard e2e/*/src) e2e/tests tests \
		$(addprefix --exclude=,$(torch))
	@$(call mypy,trainer) $(torch)
	@$(dev)/lint-imports
	@helm=$$($(dev)/python -m tunesmith_cluster path helm); \
		exec 2> >(grep -v 'found symbolic link' >&2 || true); \
		$$helm lint --strict --quiet helm/tunesmith; \
		$$helm template tunesmith helm/tunesmith --kube-version=1.35.0 >/dev/null

format: ## Format and mend what ruff can mend
	@$(dev)/ruff format . && $(dev)/ruff check --fix .

crds: ## Generate crds/*.yaml from the API models, and the field reference from them
	@$(dev)/python -m tunesmith.crdgen
	@$(dev)/python -m tunesmith_docs

docs: ## Generate the field reference, the chart's values and the troubleshooting page
	@$(dev)/python -m tunesmith_docs

.PHONY: bootstrap setup setup-tools setup-cluster setup-trainer images images-cpu pins cluster-up cluster-down control-plane-up control-plane-down
bootstrap: ## Make sure of a Python that can make virtual environments
	@./e2e/bootstrap.sh

setup: bootstrap setup-tools setup-cluster setup-trainer ## Install system packages, build the cluster's binaries and the virtual environments

setup-tools: ## The virtual environment of development and its tests
	@python3 -m tunesmith_images venv dev

setup-cluster: ## System packages, and the cluster's programs built from their sources
	@$(dev)/python -m tunesmith_cluster install
	@python3 -m tunesmith_images browser
	@python3 -m tunesmith_images azurite >/dev/null
	@$(dev)/python -m tunesmith_cluster build

setup-trainer: ## The virtual environments of the trainer's tests and of data preparation
	@python3 -m tunesmith_images venv trainer
	@python3 -m tunesmith_images venv data

images: ## Build the images from the project's Dockerfiles: serving for CPUs and for GPUs (cached by content)
	@$(dev)/python -m tunesmith_images build all

images-cpu: ## Build those that the tests and the demo run: all but serving for GPUs
	@$(dev)/python -m tunesmith_images build cpu

pins: ## Resolve requirements*.in again into requirements*.txt with hashes
	@./e2e/images/pins.sh

cluster-up: ## A cluster with a node: real pods (root; with Docker by kind: untried)
	@$(dev)/python -m tunesmith_cluster up --shape node

cluster-down: ## End that cluster
	@$(dev)/python -m tunesmith_cluster down --shape node

control-plane-up: ## A control plane with fake GPU nodes (any user)
	@$(dev)/python -m tunesmith_cluster up --shape control-plane

control-plane-down: ## End that control plane
	@$(dev)/python -m tunesmith_cluster down --shape control-plane

.PHONY: bench bench-many-jobs clean-cache
bench: ## Measure the operator, the agent, rollouts, the trainer, evaluation and cleaning; writes bench/results/*.json and docs/benchmarks.md
	@command -v wrk >/dev/null || apt-get install -qy --no-install-recommends wrk
	@$(dev)/python bench/operator_speed.py --output bench/results/operator.json
	@$(dev)/python bench/agent/measure.py
	@$(dev)/python bench/rollout_speed.py
	@$(trainer)/python bench/trainer/measure.py
	@$(trainer)/python bench/evaluation/measure.py
	@$(trainer)/python bench/near.py
	@$(trainer)/python bench/data/measure.py
	@$(dev)/python bench/report.py

bench-many-jobs: ## Measure ten thousand kept jobs, which takes long; writes bench/results/many-jobs.json and docs/benchmarks.md
	@$(dev)/python bench/many_jobs.py --output bench/results/many-jobs.json
	@$(dev)/python bench/report.py

clean-cache: ## Remove build caches (images, binaries, virtual environments)
	@rm -rf "$${TUNESMITH_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/tunesmith}"
