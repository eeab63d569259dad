# The two commands: `make demo` shows the whole chain, `make test` passes the tests. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= --exit --pace
WORKERS ?= 2
MEDIA ?= $(FACERELAY_MEDIA)
SECONDS ?= 1800
SEED ?= 1

.PHONY: demo test check bench bench-eyes soak test-setup clean

demo: $(VENV)/.demo
	$(BIN)/facerelay demo $(DEMO)

test: $(VENV)/.dev
	FACERELAY_MEDIA="$(MEDIA)" $(BIN)/pytest -n $(WORKERS) --dist loadfile $(TESTS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench.chain $(BENCH)

bench-eyes: $(VENV)/.dev
	FACERELAY_MEDIA="$(MEDIA)" $(BIN)/python -m bench.eyes $(BENCH)

# Breaks the chain by a seed for so many seconds, then audits it; as root it fills a disk, too. More words in SOAK.
soak: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m faults.soak --seconds $(SECONDS) --seed $(SEED) $(SOAK)

# What tests need and pip cannot install: needs root.
test-setup:
	apt-get update
	apt-get install -y --no-install-recommends mosquitto mosquitto-clients python3-gi \
	  gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly

$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "facerelay needs Python 3.11 or later: make PYTHON=python3.11 …")'
	@echo "Setting up $(VENV): about 400 MB, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
