# `make demo` and `make test` work on a fresh machine with Python 3.11+ and make: they set up .venv first.

PYTHON ?= python3
BIN := .venv/bin
OLDEST ?= .venv-oldest
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-oldest lint format docs package

demo: .venv/installed  ## train ResNet-20 in ResNet-32 on the bundled digits, evaluate, export and report both
	$(BIN)/nestnet train --config configs/digits_resnet20_32.yaml --run_dir $(RUN)
	$(BIN)/nestnet evaluate $(RUN) --mode base
	$(BIN)/nestnet evaluate $(RUN) --mode motivated
	$(BIN)/nestnet export $(RUN) --mode base --output $(RUN)/resnet20.safetensors
	$(BIN)/nestnet export $(RUN) --mode motivated --output $(RUN)/resnet32.safetensors
	$(BIN)/nestnet report $(RUN)

test: .venv/installed  ## all tests, the slow ones included
	$(BIN)/pytest -n 2 --dist worksteal

test-oldest: $(OLDEST)/installed  ## all tests with the oldest releases of the dependencies that pyproject.toml admits
	$(OLDEST)/bin/pytest -n 2 --dist worksteal

lint: .venv/installed  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed  ## what `lint` can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

REFERENCE := nestnet nestnet.config.schema nestnet.conditions.base nestnet.verification.comparison \
	nestnet.verification.reference \
	nestnet.distributed.process_group nestnet.nn.layers nestnet.nn.batch_norm nestnet.nn.stage nestnet.nn.parameter \
	nestnet.nn.mode nestnet.models.architecture nestnet.models.registry

docs: .venv/installed  ## the reference of the API from its docstrings, build/docs/index.html; the guide is docs/README.md
	PYTHONWARNINGS="ignore:Cannot determine where" $(BIN)/pdoc --docformat google --template-directory docs/reference \
		--output-directory build/docs $(REFERENCE)

package: .venv/installed  ## dist/: a source distribution, and from it a wheel
	$(BIN)/python -m build

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nestnet needs Python 3.11 or newer, and $(PYTHON) is older: run make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,executorch]"
	@touch $@

$(OLDEST)/installed: pyproject.toml tests/oldest.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python tests/oldest.py > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@
