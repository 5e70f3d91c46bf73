# One command each, the same in CI and by hand. Every target makes ready what it needs (tools/setup.sh).
.PHONY: help setup demo test lint ruff types arrows house bench soak docs deb try-deb try-services clean
PYTHON := .venv/bin/python
SOAK_S ?= 1800

help:
	@echo 'make demo    compress 1,500 real files as jobs, on this machine, and watch it'
	@echo 'make test    every test; the counts are the last line'
	@echo 'make lint    ruff, mypy, and the arrows of the house'
	@echo 'make bench   throughput and latency, side by side with the peers'
	@echo 'make soak    the fault world for SOAK_S=$(SOAK_S) seconds'
	@echo 'make docs    the generated parts of docs/'
	@echo 'make deb     the Debian package, in dist/'
	@echo 'make try-deb        the same, tried in a clean Debian: install, run, upgrade, remove (root)'
	@echo 'make try-services   the same under a real systemd, in a virtual machine (root, minutes)'
	@echo 'make setup   the virtual environment, with all that test and lint need'
	@echo 'make clean   remove what the targets made'

setup:
	@tools/setup.sh test lint

demo:
	@tools/setup.sh
	@PATH="$(CURDIR)/.venv/bin:$$PATH" examples/demo.sh

test:
	@tools/setup.sh test
	@$(PYTHON) -m pytest tests

lint:
	@tools/setup.sh lint
	@$(MAKE) --no-print-directory --keep-going ruff types arrows house

ruff:
	@$(PYTHON) -m ruff check --quiet .

types:
	@$(PYTHON) -m mypy

arrows:
	@.venv/bin/lint-imports --no-logo

house:
	@$(PYTHON) tools/lint_house.py

bench:
	@tools/setup.sh bench
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) bench/run.py

soak:
	@tools/setup.sh test
	@LANAI_SOAK_S=$(SOAK_S) $(PYTHON) -m pytest tests/sim --timeout=0

docs:
	@tools/setup.sh
	@$(PYTHON) tools/docs.py

deb:
	@tools/setup.sh
	@tools/deb

try-deb:
	@tools/setup.sh
	@tools/try-deb

try-services:
	@tools/setup.sh
	@tools/try-services

clean:
	rm -rf .venv dist .setup.log .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache demo-out bench/out
	find src tests bench tools examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
