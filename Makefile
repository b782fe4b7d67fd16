# Everything runs from a virtual environment in .venv, made with the newest of Python 3.11 to 3.13 that is found.

VENV := .venv
PY := $(VENV)/bin/python
WORKDIR ?= runs/quickstart
MODEL ?= data/voice
TEST_PROCESSES ?= 2
TESTS ?= tests

# Of all interpreters on the PATH the one with the highest supported version, if it can make virtual environments.
FIND_PYTHON = for p in python3.13 python3.12 python3.11 python3 python; do command -v $$p >/dev/null 2>&1 && $$p -c \
	'import sys; v = sys.version_info; v >= (3, 11) and v < (3, 14) or sys.exit(1); import ensurepip, venv; print(v[1], sys.executable)' \
	2>/dev/null; done | sort -n | tail -n 1 | cut -d " " -f 2-

.PHONY: help quickstart tiny demo test test-faults lint format corpus lock clean

help:
	@echo "make quickstart   train codec, pretrain, perceive, align and duplex at size tiny, evaluate, write $(WORKDIR)/report.html"
	@echo "make demo         show MODEL ($(MODEL)) held-out pictures, ask, interrupt; prints what happens, keeps the sound"
	@echo "make tiny         the same stages at size voice: fewer parameters, 2.5 hours on two cores (runs/voice); resumable"
	@echo "make test         run the tests"
	@echo "make test-faults  kill, freeze, damage and preempt small runs (some minutes)"
	@echo "make lint         check style (make format mends it)"
	@echo "make corpus       where to read how the sample corpus is built (it is shipped in data/corpus)"
	@echo "make lock         write requirements*.txt again from requirements*.in (needs uv)"

quickstart: $(VENV)/.installed
	$(PY) -m omni_jax.quickstart --workdir=$(WORKDIR)

tiny: $(VENV)/.installed
	$(PY) -m omni_jax.quickstart --workdir=runs/voice --size=voice

demo: $(VENV)/.installed
	$(PY) -m omni_jax.demo --model=$(MODEL)

test: $(VENV)/.installed-dev
	$(PY) -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --ignore=tests/faults $(TESTS)

test-faults: $(VENV)/.installed-dev
	$(PY) -m pytest -q -n $(TEST_PROCESSES) --dist loadfile tests/faults

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.installed-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

corpus:
	@echo "the steps, with the packages that they need, are in data/picture_book/README.md"

lock:
	uv pip compile --quiet --universal --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 requirements-min.in -c requirements.txt -o requirements-min.txt
	uv pip compile --quiet --universal --python-version 3.11 requirements-dev.in -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
		echo "error: no Python 3.11, 3.12 or 3.13 with the venv module on the PATH." >&2; \
		echo "Install one, for example: apt install python3 python3-venv (Debian 12 or newer, Ubuntu 24.04)," >&2; \
		echo "brew install python@3.13 (macOS), or: uv python install 3.13 --default" >&2; \
		exit 1; \
	fi; \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.installed
