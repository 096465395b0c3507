# make setup     the environment; all other targets set it up first
# make demo      train, test and report on a small synthetic data set
# make test      lint, type-check and run the tests that are not slow (10 minutes); test-all: the slow ones too
# make soak      kill and interrupt small trainings for half an hour
# PYTHON=python    use this interpreter's environment as it is
# STACK=onedl      the maintained forks of the OpenMMLab packages, in .venv-onedl
# TORCH_INDEX=URL  where torch comes from on the first set-up, e.g. https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
export PIP_USER := 0
STACK ?= openmmlab
ifeq ($(filter openmmlab onedl,$(STACK)),)
  $(error STACK=$(STACK) is unknown: give STACK=openmmlab (the default) or STACK=onedl)
endif
VENV := $(CURDIR)/.venv$(if $(filter onedl,$(STACK)),-onedl)
MMCV := $(if $(filter onedl,$(STACK)),onedl-mmcv,mmcv)
PINS := requirements/$(STACK).txt
BUILD := build/$(STACK)
PY := $(or $(PYTHON),$(VENV)/bin/python)
PIP := $(VENV)/bin/python -m pip
PYTEST := $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0
# mim and pip's build back end start programs of the environment by their names.
export PATH := $(if $(PYTHON),$(abspath $(dir $(shell command -v $(PYTHON)))),$(VENV)/bin):$(PATH)
ifdef PYTHON
  export PYTHONPATH := $(CURDIR)/projects$(if $(PYTHONPATH),:$(PYTHONPATH))
endif
.PHONY: demo test test-all test-slow lint soak setup programs clean
demo: setup
	$(PY) tools/demo.py
test: programs lint
	$(PYTEST) -m "not slow"
test-slow: programs
	$(PYTEST) -m slow
test-all: test test-slow
lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
soak: setup
	cd tests && $(PY) -m soak
clean:
	rm -rf .venv .venv-onedl build

ifdef PYTHON
setup:
	@$(PY) -c 'import centermask, mmcv.ops, pytest' || { echo 'Error: PYTHON=$(PYTHON) lacks what the line above names: \
	install it, or leave PYTHON away so that an environment is made.' >&2; exit 2; }
programs: setup
else
setup: $(VENV)/project.done
programs: $(VENV)/programs.done
endif

$(VENV)/venv.done:
	@for p in python3.11 python3.12 python3.10; do $$p -m venv $(VENV) 2>/dev/null && break; done; \
	$(PIP) --version >/dev/null || { echo 'Error: no Python 3.10 to 3.12 with venv: apt install python3.11-venv.' >&2; exit 2; }
	touch $@
# One command: torch alone pulls a setuptools without pkg_resources, which mmcv and mim import.
$(VENV)/torch.done: $(VENV)/venv.done requirements/torch.txt
	$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/torch.txt
	touch $@
# Takes a wheel where pip finds one (PIP_FIND_LINKS). Else compiles; an interrupted compile resumes: the source stays.
$(VENV)/mmcv.done: $(VENV)/torch.done $(PINS)
	$(PIP) install --no-deps --force-reinstall --only-binary :all: -c $(PINS) $(MMCV) 2>/dev/null || $(MAKE) $(VENV)/mmcv.built
	touch $@
$(VENV)/mmcv.built: | $(BUILD)/source/setup.py
	@printf '#include <optional>\n#include <Python.h>\n' | $${CXX:-c++} -std=c++17 -fsyntax-only -x c++ - \
	-I $$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["include"])') || { \
	echo 'Error: MMCV needs a C++17 compiler and Python.h: apt install g++ python3.11-dev.' >&2; exit 2; }
	@echo 'Compiling MMCV, 5 to 8 minutes on two cores:'
	MMCV_WITH_OPS=1 CFLAGS="-O2 -g0 $$CFLAGS" $(PIP) wheel -v --no-deps --no-build-isolation -w $(BUILD) $(BUILD)/source \
	2>&1 | tee $(BUILD)/mmcv.log | { grep --line-buffered -oE '\[[0-9]+/[0-9]+\]|error: .*' || true; } || { tail -n 20 $(BUILD)/mmcv.log; exit 1; }
	$(PIP) install --no-deps --force-reinstall $(BUILD)/*mmcv*.whl
$(BUILD)/source/setup.py:
	rm -rf $(BUILD) && mkdir -p $(BUILD)/source
	$(PIP) download --no-deps --no-build-isolation --no-binary :all: -d $(BUILD) -c $(PINS) $(MMCV)
	tar -xzf $(BUILD)/*mmcv*.tar.gz -C $(BUILD)/source --strip-components=1
# The pins are complete. Headless OpenCV last: the other one needs the libraries of a desktop to be imported.
$(VENV)/rest.done: $(VENV)/mmcv.done requirements/common.txt
	$(PIP) install --no-deps -r requirements/torch.txt -r requirements/common.txt -r $(PINS)
	$(PIP) install --no-deps --force-reinstall -c $(PINS) opencv-python-headless
	touch $@
$(VENV)/project.done: $(VENV)/rest.done setup.cfg pyproject.toml
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@
# Of videos, loggers and other programs, without which their tests are skipped; none of the pins changes.
$(VENV)/programs.done: $(VENV)/project.done requirements/programs.txt
	$(PIP) install --no-deps -r requirements/programs.txt
	touch $@
