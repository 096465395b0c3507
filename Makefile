# make demo    set up what is missing, then run the main job on a small data set made on the spot
# make test    set up what is missing, then lint, type-check and test
# make lint    the first two alone
# make setup   only set up
# make soak    kill and interrupt small trainings and watch their memory for half an hour
# make clean   remove the environments and what was built for them
#
# PYTHON=python    use an environment of your own as it is, if it satisfies setup.cfg
# STACK=onedl      the maintained forks of the OpenMMLab packages, in .venv-onedl
# TORCH_INDEX=URL  where to take torch from, e.g. https://download.pytorch.org/whl/cpu

STACK ?= openmmlab
ifeq ($(filter openmmlab onedl,$(STACK)),)
  $(error STACK=$(STACK) is unknown: give STACK=openmmlab (the default) or STACK=onedl)
endif
VENV := .venv$(if $(filter onedl,$(STACK)),-onedl)

ifdef PYTHON
  PY := $(PYTHON)
  SETUP = $(PY) tools/setup_env.py --check
  # This clone's package, whether or not some clone is installed in that environment.
  export PYTHONPATH := $(CURDIR)/projects$(if $(PYTHONPATH),:$(PYTHONPATH))
  BIN := $(if $(findstring /,$(PY)),$(abspath $(dir $(PY))))
else
  PY := $(VENV)/bin/python
  # Run, not only looked up: version managers leave commands that are found and don't work. From 3.8 the script itself
  # says what is wrong with a Python.
  BASE := $(shell for p in python3.11 python3.12 python3.10 python3; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && echo $$p && break; done)
  SETUP = $(or $(BASE),$(error There is no Python: install Python 3.11 so that python3.11 is found)) tools/setup_env.py \
    --stack $(STACK) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
  BIN := $(CURDIR)/$(VENV)/bin
endif
# mim starts `python` by its name.
export PATH := $(if $(BIN),$(BIN):)$(PATH)

.PHONY: demo test lint soak setup setup-test clean

demo: setup
	$(PY) tools/demo.py

soak: setup
	$(PY) tests/soak

test: lint
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --cov=centermask --cov-report=term

lint: setup-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

setup:
	@$(SETUP)

setup-test:
	@$(SETUP) $(if $(PYTHON),--extra test)

clean:
	rm -rf .venv .venv-onedl build
