STACK ?= onedl
OPS ?= torchvision
VENV := .venv$(if $(filter openmmlab,$(STACK)),-openmmlab)$(if $(filter compiled,$(OPS)),-compiled)
PY := $(VENV)/bin/python
export STACK OPS PYTHON

.PHONY: help setup quickstart quickstart-seg reproduce-resolution bench test test-all test-oldest lint docs wheel clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "STACK=onedl (default) or STACK=openmmlab chooses the packages; PYTHON=python3.x, the interpreter for setup;"
	@echo "OPS=torchvision (default) or OPS=compiled, MMCV's operators; the latter builds them with a C++ compiler."

setup: ## create the virtual environment .venv; STACK=openmmlab: .venv-openmmlab; OPS=compiled: .venv-compiled
	@bash tools/setup.sh

# $(1): config, $(2): work dir.
# `trained` is written when the training has ended; until then, a call resumes from the last checkpoint.
define train-and-test
	$(PY) tools/make_digits.py --out-dir data/digits
	[ -e $(2)/trained ] || $(PY) tools/train.py $(1) --work-dir $(2) $(if $(wildcard $(2)/last_checkpoint),--resume)
	@touch $(2)/trained
	$(PY) tools/test.py $(1) "$(2)/$$(basename "$$(cat $(2)/last_checkpoint)")" --work-dir $(2)/test --show-dir $(2)/predictions
endef

quickstart: setup ## train, test and plot a small detector on a small data set; remove work_dirs/quickstart to start over
	$(call train-and-test,configs/mask_rcnn_rope_mixed_vit_tiny_digits.py,work_dirs/quickstart)
	$(PY) tools/plot_training.py work_dirs/quickstart --predictions work_dirs/quickstart/predictions

quickstart-seg: setup ## the same for semantic segmentation, in work_dirs/quickstart_seg
	$(call train-and-test,configs/upernet_rope_mixed_vit_tiny_digits.py,work_dirs/quickstart_seg)
	$(PY) tools/plot_training.py work_dirs/quickstart_seg --predictions work_dirs/quickstart_seg/predictions

reproduce-resolution: setup ## repeat the paper's experiment with image sizes on digits, into docs/resolution.md; resumes if interrupted
	$(PY) experiments/resolution/run.py

bench: setup ## compare time and memory with other packages' backbones in about an hour; the figures are in docs/benchmarks.md
	$(PY) tools/benchmark.py --suite benchmarks/cpu.py --overwrite

test: setup ## run the tests, without the slow ones, in two processes
	$(PY) -m pytest tests/ -q -m "not slow" -n 2 --dist worksteal

test-all: setup ## run all tests, in two processes, and `make test` with MMCV's compiled operators
	$(PY) -m pytest tests/ -q -n 2 --dist worksteal
	$(if $(filter torchvision,$(OPS)),$(MAKE) test OPS=compiled)

test-oldest: ## test layers, models and weights with the oldest versions that setup.cfg promises, in .venv-oldest
	@bash .ci/oldest

lint: setup ## check style, types and spelling
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/codespell

docs: .venv-docs/ready ## build the documentation into build/docs; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

# Without --quiet, which would hide the warnings that strict mode counts.
# Griffe reads docstrings from the sources, so this environment needs neither torch nor a host.
.venv-docs/ready: requirements/docs.txt
	$(or $(PYTHON),python3) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

wheel: ## build the source distribution and the wheel into dist/, and try the wheel in a fresh environment
	@bash .ci/wheel

clean: ## remove caches and build leftovers; environments, data and work_dirs stay
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -print | xargs rm -rf
