PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-gpu lint format clean

demo: $(VENV)/run.txt  ## search, retrain and compare on drawn data; results in demo/
	$(RUN) -m tools.demo

test: $(VENV)/dev.txt  ## all tests, one process per core
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist worksteal

test-gpu: $(VENV)/dev.txt  ## what needs a GPU
	$(RUN) -m pytest tests/gpu -rs

lint: $(VENV)/dev.txt  ## style, types, spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/codespell

format: $(VENV)/dev.txt
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/run.txt: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/dev.txt: requirements-dev.txt $(VENV)/run.txt
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
