# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
PORT ?= 8080
# Source of the demo: your own parquet (file, folder, glob or URL); generated if not given.
SOURCE ?=
# Training budget of the demo in minutes.
MINUTES ?= $(if $(SOURCE),10,1.75)
# Recipe of `make bench-quality`, a file of benchmarks/recipes/.
RECIPE ?= pipeline
# Set-ups of `make bench-peers`: those of scikit-rec's page, for ratings, or `implicit`.
SETUPS ?=
# Settings of `make bench-search`, each NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C, and its trials.
SPACE ?=
TRIALS ?= 20
# Stages of `make bench-speed`; all if not given.
STAGES ?=
# Interactions that `make env` shows to docker compose, and profiles of its services (celery, gpu).
DATA ?= data
PROFILES ?=
# Processes of `make test`, each with files of its own.
JOBS ?= 2
# `make test-airflow NO_SKIPS=` leaves out what the machine lacks, for instance a browser.
NO_SKIPS ?= 1
# Where it keeps pictures of the UI; those of the README are in docs/screenshots.
SCREENSHOTS ?= .screenshots
# Further options for pip, for instance an index with another build of torch.
PIP_ARGS ?=

comma := ,
# Extras that are in the image, and in .venv.
IN_IMAGE := airflow alerts stack train postgres s3
IN_VENV := airflow train dev
# torch, and what its build for GPUs needs: of the index that PIP_ARGS names, so that no lock has their hashes.
OF_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

PASSWORDS := $(CURDIR)/.airflow/passwords.json
GENERATED := $(CURDIR)/.demo/interactions.parquet
# `make test-faults` kills a step at one point in so many; every point takes three times as long.
FAULTS_EVERY ?= 3
# Where it counts, before the figures of a whole run replace those of an earlier one.
FAULTS := $(CURDIR)/.demo/faults.json

# `airflow standalone` starts its parts by name.
export PATH := $(BIN):$(PATH)

# An Airflow of the project's own: never ~/airflow.
export AIRFLOW_HOME := $(CURDIR)/.airflow
export AIRFLOW__CORE__DAGS_FOLDER := $(CURDIR)/dags
export AIRFLOW__CORE__PLUGINS_FOLDER := $(CURDIR)/plugins
export AIRFLOW__CORE__LOAD_EXAMPLES := False
export AIRFLOW__CORE__PARALLELISM := 4
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN := sqlite:///$(CURDIR)/.airflow/airflow.db
# Where the demo's runs read and write.
export SASREC_SOURCE := $(or $(SOURCE),$(GENERATED))
# (each source has a table of its own: a model of other data is no champion to be held against)
DEMO := .demo$(if $(SOURCE),/$(basename $(notdir $(SOURCE)))-$(firstword $(shell printf '%s' '$(SOURCE)' | cksum)))
export SASREC_STORE := $(CURDIR)/$(DEMO)/runs
export SASREC_TABLE := $(CURDIR)/$(DEMO)/recommendations

# Where the figures of `make test-scale` are kept until all of it has passed.
SCALE := $(CURDIR)/.demo/scale.json

.PHONY: help setup demo test test-airflow test-faults test-scale lint lock sbom audit simulate bench-quality bench-ablation bench-peers bench-search bench-speed bench-gpu bench-profile bench-scaling bench-scale-out bench-warm-starts bench-eligible bench-lookup bench-new-items docs env up clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: .venv/.done ## Make .venv with pinned dependencies and the embedded Airflow database

.venv/.done: pyproject.toml constraints.txt locks/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing pinned dependencies into .venv (a minute or three) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --require-hashes --no-deps --requirement locks/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) --no-build-isolation --editable '.[airflow,train,dev]'
	@mkdir -p $(AIRFLOW_HOME)
	@$(BIN)/airflow db migrate > $(AIRFLOW_HOME)/migrate.log 2>&1 || { tail -20 $(AIRFLOW_HOME)/migrate.log; exit 1; }
	@touch $@

demo: setup ## Run the whole DAG through Airflow and show the result (SOURCE=your.parquet MINUTES=10)
	@mkdir -p $(DEMO)
ifeq ($(SOURCE),)
	@test -e $(GENERATED) || $(BIN)/sasrec-tasks generate --out $(GENERATED)
endif
	@echo "Running the DAG sasrec_nightly on $(SASREC_SOURCE), training for at most $(MINUTES) minutes …"
	@set -o pipefail; \
	AIRFLOW__LOGGING__LOGGING_LEVEL=INFO PYTHONWARNINGS=ignore \
	AIRFLOW__LOGGING__NAMESPACE_LEVELS="airflow=WARNING airflow.sdk.definitions.dag=WARNING task=WARNING" \
	$(BIN)/airflow dags test sasrec_nightly --conf '{"train.max_minutes": $(MINUTES)}' 2>&1 \
	| tee $(DEMO)/airflow.log | sed -unE 's#$(CURDIR)/##g; s#; $(DEMO)/runs/[^/]+/#; …/#; s/^[^ ]+T([0-9:]{8})[^ ]* \[(info|warning|error) *\] (.*) \[sasrec_tasks.*/\1 \3/p' \
	|| { grep -E '^sasrec_tasks\.errors\.' $(DEMO)/airflow.log | tail -1 | grep . \
	     || grep Error $(DEMO)/airflow.log | tail -1; \
	     echo "The run failed. The whole log: $(DEMO)/airflow.log"; exit 1; }
	@echo
	@$(BIN)/sasrec-tasks show
ifeq ($(SOURCE),)
	@$(BIN)/python benchmarks/generated.py --figures $(GENERATED:.parquet=.json) --store $(SASREC_STORE)
endif
	@echo "One user's rows: .venv/bin/sasrec-tasks recommend --table $(DEMO)/recommendations --user USER_ID"
	@echo "The same in Airflow's UI: make up"

test: setup ## All tests but those of test-airflow, test-faults and test-scale
	@$(BIN)/python -m pytest -m "not stack and not faults and not scale" -n $(JOBS) --dist loadfile

test-airflow: setup ## The services of docker-compose.yml as processes of this machine, the UI in Chromium, the image's steps
	@SASREC_NO_SKIPS=$(NO_SKIPS) SCREENSHOTS="$(abspath $(SCREENSHOTS))" $(BIN)/python -m pytest -m stack

test-faults: setup ## Kill, starve, cut off, damage and race every step of a night, all hostile input, planted secrets; figures in benchmarks/results/faults.json
	@seed=$${FAULTS_SEED:-$$RANDOM}; echo "Seed of the random moments: $$seed (FAULTS_SEED=$$seed makes them the same)"; \
	mkdir -p $(dir $(FAULTS)) && rm -f $(FAULTS) && export FAULTS_SEED=$$seed FAULTS_RESULTS="$(FAULTS)" FAULTS_EVERY=$(FAULTS_EVERY); \
	$(BIN)/python -m pytest -m faults --ignore=tests/hostile -n $(JOBS) --dist loadfile && $(BIN)/python -m pytest tests/hostile \
	&& $(BIN)/python tests/helpers/fault_figures.py $(FAULTS) benchmarks/results/faults.json

test-scale: setup ## The pipeline on a Ray cluster of several nodes on this machine, which lose some; figures in benchmarks/results/scale.json
	@mkdir -p $(dir $(SCALE)) && rm -f "$(SCALE)"
	@SCALE_RESULTS="$(SCALE)" $(BIN)/python -m pytest -m scale && cp "$(SCALE)" benchmarks/results/scale.json

lint: setup ## ruff (with bandit's rules), mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench-quality: setup ## Quality of a recipe on a parquet (SOURCE=your.parquet RECIPE=pipeline)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-quality SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/quality.py --source $(SOURCE) --recipe $(RECIPE)

bench-ablation: setup ## What each part of the recipe gives (SOURCE=your.parquet)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-ablation SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/ablation.py --source $(SOURCE) --recipe $(RECIPE)

bench-peers: setup .peers/scikit-rec/.done .peers/rectools/.done ## Beside scikit-rec and RecTools (SOURCE=your.parquet)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-peers SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/peers_quality.py --source $(SOURCE) --recipes $(RECIPE) $(if $(SETUPS),--setups $(SETUPS)) \
		--scikit-rec .peers/scikit-rec/bin/python --rectools .peers/rectools/bin/python

bench-search: setup ## Search for settings by validation items (SOURCE=your.parquet SPACE='train.dropout_rate=0.1:0.4' TRIALS=20)
	@test -n "$(SOURCE)" -a -n "$(SPACE)" || { echo "Name data and settings: make bench-search SOURCE=your.parquet SPACE='train.dropout_rate=0.1:0.4'"; exit 2; }
	@$(BIN)/python benchmarks/search.py --source $(SOURCE) --recipe $(RECIPE) --space $(SPACE) --trials $(TRIALS)

bench-speed: setup .peers/scikit-rec/.done .peers/rectools/.done ## How fast each stage is, beside others (SOURCE=your.parquet)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-speed SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/speed.py --source $(SOURCE) $(if $(STAGES),--stages $(STAGES)) \
		--scikit-rec .peers/scikit-rec/bin/python --rectools .peers/rectools/bin/python

bench-gpu: setup .peers/rectools/.done ## Training and serving on a GPU, beside RecTools (SOURCE=your.parquet)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-gpu SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/gpu.py --source $(SOURCE) --rectools .peers/rectools/bin/python

bench-profile: setup ## Where the time of training and of top k goes (SOURCE=your.parquet)
	@test -n "$(SOURCE)" || { echo "Name the data: make bench-profile SOURCE=your.parquet"; exit 2; }
	@$(BIN)/python benchmarks/profiles.py --source $(SOURCE)

bench-scaling: setup ## How tasks grow with events, users, items and max_len, on made-up data
	@$(BIN)/python benchmarks/scaling.py

bench-scale-out: setup ## What a Ray cluster costs and gives, with several workers on this machine
	@$(BIN)/python benchmarks/scale_out.py

simulate: setup ## A fortnight of nights through the DAG, good and bad, with a consumer reading all the while
	@$(BIN)/python benchmarks/simulate.py

bench-warm-starts: setup ## How much sooner a warm start is as good as a cold one, over a fortnight of nights
	@$(BIN)/python benchmarks/warm_starts.py

bench-eligible: setup ## What narrowing an export costs (SOURCE=ml-1m.parquet)
	@$(BIN)/python benchmarks/eligible.py --source "$(SOURCE)"

bench-lookup: setup ## How long the rows of one user take, in tables of ten million rows
	@$(BIN)/python benchmarks/lookup.py

bench-new-items: setup ## What places for new items change, on made-up data
	@$(BIN)/python benchmarks/new_items.py

# uv, cyclonedx-py and pip-audit, in an environment of their own.
.tools/.done: locks/tools.txt
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --require-hashes --no-deps --requirement $<
	@touch $@

LOCK := .tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(foreach name,$(OF_TORCH),--no-emit-package $(name))

lock: .tools/.done ## Write locks/ anew: every package with its hashes, in the versions of constraints.txt
	@$(LOCK) --group tools --output-file locks/tools.txt
	@$(LOCK) --constraint constraints.txt $(foreach name,$(IN_IMAGE),--extra $(name)) pyproject.toml --output-file locks/image.txt
	@$(LOCK) --constraint constraints.txt $(foreach name,$(IN_VENV),--extra $(name)) pyproject.toml --output-file locks/dev.txt

sbom: setup .tools/.done ## What is in .venv, as CycloneDX: sbom.json
	@.tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
		--output-file sbom.json $(BIN)/python
	@echo "sbom.json is written."

audit: setup .tools/.done ## Known vulnerabilities of what is in .venv; asks the OSV database, so it needs internet
	@.tools/bin/pip-audit --vulnerability-service osv --skip-editable --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Each peer in an environment of its own: they pin other versions.
.peers/scikit-rec/.done: PEER := scikit-rec==0.4.2
.peers/rectools/.done: PEER := rectools[torch]==0.19.0
.peers/%/.done:
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) '$(PEER)' torch==2.13.0
	@touch $@

docs: setup ## Draw the README's picture of the DAG and table of settings from the code
	@$(BIN)/python docs/render.py

env: ## .env for docker compose, with random secrets; one that is there stays (DATA=folder PROFILES=celery,gpu)
	@test ! -e .env || { echo ".env is there already, and stays as it is."; exit 0; }; \
	case '$(PROFILES)' in ''|celery|celery,gpu) ;; *) echo "PROFILES=$(PROFILES): celery, or celery,gpu, or nothing"; exit 2;; esac; \
	mkdir -p '$(DATA)' && umask 077 && new=$$(mktemp .env.XXXXXX) && trap 'rm -f "$$new"' EXIT && \
	while IFS= read -r line; do \
	  case "$$line" in \
	    SASREC_DATA=) line="$$line'$(abspath $(DATA))'";; \
	    *_PASSWORD=|*_SECRET=|*_SECRET_KEY=) line=$$line$$(head -c 64 /dev/urandom | od -An -v -tx1 | tr -d ' \n');; \
	    *_FERNET_KEY=) line=$$line$$(head -c 32 /dev/urandom | base64 | tr +/ -_);; \
	    '#SASREC_UID='*) if test "$$(id -u)" != 0; then line=SASREC_UID=$$(id -u); fi;; \
	    '#COMPOSE_PROFILES='*) if test -n '$(PROFILES)'; then line='COMPOSE_PROFILES=$(PROFILES)'; fi;; \
	    '#AIRFLOW_EXECUTOR='*) if test -n '$(PROFILES)'; then line=AIRFLOW_EXECUTOR=CeleryExecutor; fi;; \
	    '#SASREC_RESOURCES='*) line="SASREC_RESOURCES='{\"train\": {$(if $(filter celery$(comma)gpu,$(PROFILES)),\"queue\": \"gpu\"$(comma) )\"pool\": \"sasrec_training\"}}'";; \
	  esac; \
	  printf '%s\n' "$$line"; \
	done < .env.example > "$$new" && ln "$$new" .env && \
	echo ".env is written; the interactions are those of $(abspath $(DATA))." && \
	echo "Columns of other names than USER_ID, ITEM_ID, OUTCOME, TIMESTAMP: set SASREC_SETTINGS in it first." && \
	echo "Then: docker compose up --build --detach --wait"

up: setup ## Airflow with its UI on localhost, without docker (PORT=8080)
	@umask 077; test -s $(PASSWORDS) || $(BIN)/python -c 'import secrets; print("{\"admin\": \"" + secrets.token_urlsafe(12) + "\"}")' > $(PASSWORDS)
	@echo "Airflow: http://localhost:$(PORT)   user: admin   password: $$(cut -d'"' -f4 $(PASSWORDS))"
	@echo "Stop it with Ctrl-C."
	@AIRFLOW__API__PORT=$(PORT) AIRFLOW__API__HOST=127.0.0.1 \
	AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://localhost:$(PORT)/execution/ \
	AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin \
	AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=$(PASSWORDS) \
	AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING \
	$(BIN)/airflow standalone

clean: ## Remove what the demo and Airflow have written; .venv stays
	rm -rf .demo .airflow .venv/.done
