# `make` or `make help` lists the targets. PYTHON=python3.12 chooses the interpreter, VENV=path the environment.
PYTHON  ?= python3
VENV    ?= .venv
OUT     ?= demo-report
WORKERS ?= 2
EXPERIMENTS = $(basename $(notdir $(shell grep -l 'experiment.needs(' nbs/gallery/*.ipynb)))
NAME    ?= $(EXPERIMENTS)
NB      ?= $(sort $(shell find nbs -name '*.ipynb' -not -path '*/.*' -not -path '*/_*'))

# Threads that wait spin only for a moment, then sleep: beside another process trainings are many times faster.
export GOMP_SPINCOUNT ?= 1000

BIN   := $(VENV)/bin
MINOR  = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BORN   = $(VENV)/.python-$(MINOR)
USE    = $(VENV)/.installed
DEV    = $(VENV)/.installed-dev
HOME_OF_REQUIREMENTS = settings.ini constraints.txt pyproject.toml setup.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check nbtest pytest slow results gallery readme notebooks lint constraints hooks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Another interpreter starts afresh (only in a folder made here); changed requirements install again; else nothing happens.
$(BORN):
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Makefile: expected Python 3.10 or newer, got " + sys.version.split()[0] + ". Do: make PYTHON=python3.11 ...")'
	@if [ -e $(VENV) ] && ! ls $(VENV)/.python-* >/dev/null 2>&1; then \
	  echo "Makefile: expected $(VENV) to be absent or made here, got another folder. Do: make VENV=other, or remove it." >&2; exit 1; fi
	rm -rf $(VENV)
	mkdir -p $(VENV) && touch $(VENV)/.python-unfinished
	$(PYTHON) -m venv $(VENV)
	rm $(VENV)/.python-unfinished
	touch $@

$(USE): $(BORN) $(HOME_OF_REQUIREMENTS)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(DEV): $(BORN) $(HOME_OF_REQUIREMENTS)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $(USE) $@

setup: $(DEV) ## the environment in .venv, with everything developers need

demo: $(USE) ## set up, explain the digit hosts, write demo-report/ (OUT=folder)
	$(BIN)/iin-nb demo --out $(OUT)

test: check nbtest pytest ## set up, then everything CI runs: export in step, notebooks, tests

check: $(DEV) ## nbdev-export would change nothing, README.md is in step (touches nothing)
	$(BIN)/python tools/check_export.py
	$(BIN)/python tools/readme.py --check

# One thread for each worker: two workers with two threads each are slower on two cores than either alone.
nbtest: $(DEV) ## run every notebook without its slow cells
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) --timing

pytest: $(DEV) ## run tests/ without the slow ones
	$(BIN)/python -m pytest

slow: $(DEV) ## the slow cells of the notebooks, then the slow tests
	$(BIN)/nbdev-test --flags slow --n-workers 1 --timing
	$(BIN)/python -m pytest -m slow

results: $(DEV) ## measure the table of benchmarks/RESULTS.md (seeds, baselines; long)
	$(BIN)/python benchmarks/explorers.py all
	$(BIN)/python benchmarks/results.py

gallery: $(DEV) ## rerun experiments of nbs/gallery, rewrite their numbers and the results page (NAME=face_gan for one; long)
	$(MAKE) notebooks NB="$(NAME:%=nbs/gallery/%.ipynb) nbs/gallery/results.ipynb"

readme: $(DEV) ## README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

notebooks: $(DEV) ## run notebooks in a fresh kernel, save their outputs, clean them, export (NB="nbs/00_core.ipynb" for one)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=3600 --ExecutePreprocessor.store_widget_state=False $(NB)
	$(BIN)/python tools/still.py $(NB)
	for nb in $(NB); do $(BIN)/nbdev-clean --fname $$nb || exit 1; done
	$(BIN)/nbdev-export

lint: $(DEV) ## ruff over the exported modules, tests and tools
	$(BIN)/ruff check .

constraints: $(DEV) ## constraints.txt from the versions in .venv
	$(BIN)/python tools/constraints.py

hooks: $(DEV) ## opt in to nbdev's git and Jupyter hooks (writes .git/, .gitconfig and ~/.jupyter)
	$(BIN)/nbdev-install-hooks

clean: ## remove the environment, builds, caches and demo-report/
	rm -rf .venv build dist *.egg-info demo-report .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
