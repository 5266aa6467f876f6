# Everything a newcomer runs. `make` alone lists it. Nothing outside this folder is touched, and its name may hold spaces:
# targets are relative and every tool is called as a module of .venv's Python.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PHOTO ?=
OUT ?= outputs
ARGS ?=
WORKERS ?= 2
TORCH_INDEX ?=
PYTHON ?=
READY := .venv/.ready
PY := .venv/bin/python

.PHONY: help setup venv app restore test axe soak audit lock lint types bench notebooks docs clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-18s %s\n' "$$name" "$$what"; done
	@printf '\n%s\n%s\n' 'Options: PHOTO=my.jpg OUT=outputs ARGS="-k view" WORKERS=2 PYTHON=python3.12' \
	  'TORCH_INDEX=https://download.pytorch.org/whl/cpu  a small CPU build of torch instead of the one on PyPI'

venv: setup
setup: $(READY)  ## make .venv and install the package with the pinned versions

# torch comes first and alone, so that its build can come from another index. Then everything else, each file by its sha256 and
# without looking further (--no-deps): what is not in the lock is not installed. Last, what torch's build for GPUs needs beside it.
TORCH := $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") torch==2.13.0
$(READY): pyproject.toml requirements.lock
	@fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if ! { [ -x $(PY) ] && $(PY) -c "$$fits"; } 2>/dev/null; then \
	  found=; \
	  for p in $(if $(PYTHON),"$(PYTHON)",python3.11 python3 python3.12 python3.13 python); do \
	    if "$$p" -c "$$fits" 2>/dev/null; then found=$$p; break; fi; \
	  done; \
	  [ -n "$$found" ] || { echo 'make: needs Python 3.11, 3.12 or 3.13 and found none; install one, or say make PYTHON=/path/to/python3.11' >&2; exit 1; }; \
	  echo "making .venv with $$found"; \
	  "$$found" -m venv --clear .venv || { echo 'make: no .venv; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }; \
	fi
	$(PY) -m pip install --no-deps $(TORCH)
	$(PY) -m pip install --require-hashes --no-deps -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	$(PY) -m pip install $(TORCH)
	$(PY) -c "from mtrestore.fast import upsampler; upsampler.warm()"
	@touch $(READY)

app: $(READY)  ## restore photos on a page in the browser; they stay on this machine (ARGS="--out outputs")
	$(PY) -m mtrestore app $(ARGS)

restore: $(READY)  ## restore a sample portrait, or PHOTO=my.jpg, into outputs/
	@if [ -n "$$PHOTO" ]; then $(PY) -m mtrestore restore "$$PHOTO" -o "$$OUT" --html --overwrite; \
	else $(PY) -m mtrestore demo -o "$$OUT"; fi

test: $(READY)  ## run the tests (ARGS="-k crop" for some of them)
	$(PY) -m pytest -n $(WORKERS) $(ARGS)

axe: $(READY)  ## fetch axe-core and look for barriers in the app, gallery, report and compare pages
	$(PY) .ci/axe.py
	$(PY) -m pytest tests/test_browser_axe.py $(ARGS)

# Tools go beside the environment, not into it: its versions stay those of the lock.
soak: $(READY)  ## hours: the whole corpus of bad files, the fuzzer, kills and double starts, the audit
	$(PY) tests/long/corpus.py
	$(PY) -m pip install -q --no-deps --only-binary :all: --target .venv/fuzz atheris==3.0.0 \
	  || echo 'atheris: cannot be installed here, the fuzzer goes on without coverage'
	$(PY) tests/long/fuzz.py --seed "$$(date +%j)" $(ARGS)
	for trial in kills folder doubles throughput training-kills; do $(PY) tests/long/soak.py $$trial --full; done
	$(PY) .ci/audit.py || [ $$? = 3 ]

audit: $(READY)  ## known faults in our code (bandit) and in the pinned packages (pip-audit, needs the network)
	$(PY) .ci/audit.py

lock: $(READY)  ## write requirements.lock and constraints.txt anew (ARGS=--upgrade moves the versions)
	$(PY) -m pip install -q --no-deps --target .venv/lock uv==0.13.9
	PYTHONPATH=.venv/lock $(PY) .ci/lock.py $(ARGS)

lint: $(READY)  ## check the style with ruff, and the types
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m basedpyright

types: $(READY)  ## check the types alone, with basedpyright
	$(PY) -m basedpyright

bench: $(READY)  ## seconds and peak memory of a 12-megapixel photo
	$(PY) benchmarks/restore.py $(ARGS)

docs: $(READY)  ## run the notebooks that changed and write their pages, docs/notebooks/ (ARGS=--all)
	$(PY) docs/render.py $(ARGS)

notebooks: $(READY)  ## open the notebooks in JupyterLab
	$(PY) -m mtrestore lab

clean:  ## remove .venv and everything that was made (outputs/ and runs/ stay)
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Recipes read these two as shell variables and unexpanded: a quote or a dollar in a file's name stays a character.
override PHOTO := $(value PHOTO)
override OUT := $(value OUT)
export PHOTO OUT
