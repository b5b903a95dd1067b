# Distributed MAML on Ray. `make` alone tells what there is.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
CLI := $(VENV)/bin/python -m jobs

.PHONY: help submit sweep status logs stop resume sync evaluate ui down doctor install test check bench format lock

help:
	@echo 'Meta-training on a Ray cluster, with its curves in MLflow and its checkpoints in S3.'
	@echo
	@echo '  make submit JOB=sinusoid                   train; starts Ray, MLflow and S3 here if none is configured'
	@echo '  make submit JOB=omniglot ARGS="tasks.shots=5 resources.workers=4"'
	@echo '                                             any field of the job by its dotted name; --dry-run shows them'
	@echo '  make submit JOB=omniglot ARGS="from_sweep=RUN"'
	@echo '                                             train the best setting a sweep found'
	@echo '  make sweep JOB=omniglot                    find alpha, beta and inner steps: many short runs, compared'
	@echo '  make sweep JOB=omniglot ARGS="space.algorithm.inner_lr=loguniform(1e-3,1) tune.trials=32 tune.search=random"'
	@echo '  make status                                all runs and sweeps'
	@echo '  make logs RUN=...                          follow a run again (Ctrl-C leaves it running)'
	@echo '  make stop RUN=...   make resume RUN=...    interrupt it; go on where it was'
	@echo '  make sync RUN=...                          deliver the metrics and checkpoints a dead driver left on this machine'
	@echo '  make evaluate RUN=...                      its test result, with the 95 % interval'
	@echo '  make ui                                    addresses of Ray, MLflow and S3'
	@echo '  make doctor                                what is wrong here, and how to set it right'
	@echo '  make down                                  stop all that was started here; results stay'
	@echo
	@echo '  make test   make check   make format       tests; lint and types; put the code in shape'
	@echo '  make bench   make bench ARGS=--quick       the speed of it, beside other libraries and the limit of this machine'
	@echo '  make install   make lock                   the virtual environment; its locked versions'
	@echo
	@echo 'RAY_ADDRESS=http://..., MLFLOW_TRACKING_URI=http://... and ARTIFACT_ROOT=s3://... (with AWS_*) use a cluster that'
	@echo 'exists; DATA_ROOT=... is the folder with the data sets. README.md tells more.'

submit: $(VENV)/.stamp
	@$(call need,JOB,sinusoid)
	@$(CLI) submit $(JOB) $(ARGS)

sweep: $(VENV)/.stamp
	@$(call need,JOB,sinusoid)
	@set -f; $(CLI) sweep $(JOB) $$ARGS

ui down doctor: $(VENV)/.stamp
	@$(CLI) $@ $(ARGS)

logs: $(VENV)/.stamp
	@$(CLI) logs $(RUN) $(ARGS)

status stop resume sync evaluate: $(VENV)/.stamp
	@$(CLI) $@ $(RUN) $(ARGS)

export ARGS  # `sweep` takes it as it is: the shell would stumble over the brackets of a range

need = test -n "$($(1))" || { echo "$(1)= was expected, for example: make $@ $(1)=$(2)" >&2; exit 2; }

install: $(VENV)/.stamp

test: $(VENV)/.stamp-dev  # DATA_ROOT=... also runs what needs the real data
	@$(VENV)/bin/python -m pytest $(ARGS)

bench: $(VENV)/.stamp .peers/.stamp  # ARGS=--help tells more
	@$(VENV)/bin/python -m benchmarks $(ARGS)

CODE := meta_service cluster jobs benchmarks
check: $(VENV)/.stamp-dev
	@$(VENV)/bin/ruff check $(CODE) tests infra
	@$(VENV)/bin/ruff format --check $(CODE) tests infra
	@$(VENV)/bin/mypy $(CODE)

format: $(VENV)/.stamp-dev
	@$(VENV)/bin/ruff check --fix $(CODE) tests infra
	@$(VENV)/bin/ruff format $(CODE) tests infra

lock:  # locks requirements.in anew; UPGRADE=1 takes the newest of what it leaves open
	@PYTHON='$(PYTHON)' infra/lock.sh

$(VENV)/.stamp: requirements.lock requirements-cpu.lock requirements-cuda.lock infra/install.sh
	@echo 'Setting up .venv (2-3 minutes, once)'
	@PYTHON='$(PYTHON)' VENV='$(VENV)' infra/install.sh
	@touch $@

.peers/.stamp: $(VENV)/.stamp requirements-bench.lock infra/peers.sh
	@echo 'Fetching the libraries to compare with, into .peers'
	@VENV='$(VENV)' infra/peers.sh

$(VENV)/.stamp-dev: $(VENV)/.stamp requirements-dev.lock
	@echo 'Adding the tools for tests and checks'
	@PYTHON='$(PYTHON)' VENV='$(VENV)' infra/install.sh dev
	@touch $@
