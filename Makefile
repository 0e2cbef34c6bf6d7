STACK ?= onedl
VENV := $(if $(filter openmmlab,$(STACK)),.venv-openmmlab,.venv)
PY := $(VENV)/bin/python
export STACK PYTHON

CONFIG := configs/mask_rcnn_rope_mixed_vit_tiny_digits.py
WORK_DIR := work_dirs/quickstart

.PHONY: help setup quickstart test test-all lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "STACK=onedl (default) or STACK=openmmlab chooses the packages; PYTHON=python3.x the interpreter for setup."

setup: ## make the virtual environment: .venv, or .venv-openmmlab with STACK=openmmlab
	@bash tools/setup.sh

# `trained` is written when the training has ended; before that, training goes on from its last checkpoint.
quickstart: setup ## train, test and plot a small detector on a small data set; remove work_dirs/quickstart to start over
	$(PY) tools/make_digits.py --out data/digits
	[ -e $(WORK_DIR)/trained ] || \
		$(PY) tools/train.py $(CONFIG) --work-dir $(WORK_DIR) $(if $(wildcard $(WORK_DIR)/last_checkpoint),--resume)
	@touch $(WORK_DIR)/trained
	$(PY) tools/test.py $(CONFIG) "$$(cat $(WORK_DIR)/last_checkpoint)" --work-dir $(WORK_DIR)/test --show-dir predictions
	$(PY) tools/plot_training.py $(WORK_DIR) --predictions "$$(ls -td $(WORK_DIR)/test/*/predictions | head -1)"

test: setup ## run the tests, without the slow ones
	$(PY) -m pytest tests/ -q -m "not slow"

test-all: setup ## run all tests
	$(PY) -m pytest tests/ -q

lint: setup ## check the code's style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean: ## remove caches and build leftovers; environments, data and work_dirs stay
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -print | xargs rm -rf
