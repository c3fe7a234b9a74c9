# Four targets: demo, test, prove, bench. Each makes .venv first, if it is not there.
# `PART=house|corpus|ingest|lake|train make prove` runs one part of the long proofs.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PART ?= all

.PHONY: demo test prove bench
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/cytolake demo

test: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not prove"

prove: $(STAMP)
	$(BIN)/python -m pytest -m prove $(if $(filter all,$(PART)),tests/prove,tests/prove/$(PART))

bench: $(STAMP)
	$(BIN)/python -m benchmarks.encode

# A machine without a GPU gets the CPU build of torch: its own index first, whatever pip knows
# otherwise; a pinned version, so that a newer build with gigabytes of CUDA does not win.
$(STAMP): pyproject.toml
	@test -d .venv || { echo "making .venv (once; two to four minutes)"; $(PYTHON) -m venv .venv; }
	@command -v nvidia-smi >/dev/null || $(BIN)/python -c "import torch" 2>/dev/null || \
	    $(BIN)/pip install -qq --disable-pip-version-check --retries 1 --timeout 20 \
	    --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0"
	$(BIN)/pip install -qq --disable-pip-version-check -e ".[all,dev]"
	@touch $(STAMP)
