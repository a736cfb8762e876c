# The commands that people, the README and CI use. Each makes its own .venv if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench bench-long clean

demo: $(VENV)/.installed
	$(BIN)/manyeyes demo $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

bench-long: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks latency-long capacity rivals recovery soak training $(ARGS)

$(VENV)/bin/python:
	@echo "making $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "manyeyes needs Python 3.11 or newer; call: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing manyeyes into $(VENV) (PyTorch is large: some minutes) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[onnx,track,alarms]'
	@$(BIN)/python -c 'import cv2' || \
		{ echo "OpenCV misses a system library; on Debian and Ubuntu: apt install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	@echo "installing what tests and training need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[onnx,openvino,track,alarms,apprise,train,detr,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
