# The two commands: `make demo` shows the whole chain, `make test` passes the tests. Both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUPPLY := build/supply
DEMO ?= --exit --pace
WORKERS ?= 4
MEDIA ?= $(FACERELAY_MEDIA)
SECONDS ?= 1800
SEED ?= 1

.PHONY: demo test check sbom docs shots bench fleet bench-eyes soak fuzz hostile test-setup machine-setup test-containers container-setup clean

demo: $(VENV)/.demo
	$(BIN)/facerelay demo $(DEMO)

test: $(VENV)/.dev
	FACERELAY_MEDIA="$(MEDIA)" $(BIN)/pytest -n $(WORKERS) --dist loadfile $(TESTS)

# AUDIT=must fails where no advisory service answers; else that is said, loudly.
check: $(VENV)/.dev $(SUPPLY)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python supply/audit.py $(SUPPLY)/bin/pip-audit constraints.txt

# What an installation consists of, as pinned: CycloneDX 1.6 in build/sbom.json.
sbom: $(SUPPLY)/.made
	rm -rf build/sbom-environment
	$(PYTHON) -m venv --without-pip build/sbom-environment
	$(SUPPLY)/bin/python -m pip --python build/sbom-environment/bin/python install -q --disable-pip-version-check -c constraints.txt '.[all]'
	$(SUPPLY)/bin/python supply/sbom.py $(SUPPLY)/bin/cyclonedx-py build/sbom-environment/bin/python build/sbom.json

# The site, into build/site; a link that leads nowhere fails. REPO_URL says where the repository is to be read.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of the pages in docs/, as the tests see them; Debian's fonts-inter makes them look as most readers see them.
shots: $(VENV)/.dev
	GALLERY_SHOTS=docs HEALTH_SHOTS=docs $(BIN)/pytest -q tests/test_gallery_browser.py tests/test_health_page.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench.chain $(BENCH)

bench-eyes: $(VENV)/.dev
	FACERELAY_MEDIA="$(MEDIA)" $(BIN)/python -m bench.eyes $(BENCH)

# Plays SITES (1,000) sites at RATE (1) faces/s each for SECONDS (30) a phase against STORES (1) and BROKER (mosquitto, nats
# or cluster) on this machine; more words in FLEET, FLEET=--help lists them.
fleet: SECONDS := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),30)
fleet: $(VENV)/.dev
	$(BIN)/python -m bench.fleet --sites $(or $(SITES),1000) --rate $(or $(RATE),1) --seconds $(SECONDS) \
	  --stores $(or $(STORES),1) --broker $(or $(BROKER),mosquitto) $(FLEET)

# Breaks the chain by a seed for so many seconds, then audits it; as root it fills a disk, too. More words in SOAK.
soak: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m faults.soak --seconds $(SECONDS) --seed $(SEED) $(SOAK)

# Hostile bytes at each border for SECONDS (20) each, or at TARGET alone; guided by coverage after `pip install -e '.[fuzz]'`.
fuzz: SECONDS := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),20)
fuzz: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m fuzzing --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET))

# A million hostile messages to the decoder, the store, and a part of them through a broker; more words in HOSTILE.
hostile: $(VENV)/.dev
	@PYTHONPATH=tests $(BIN)/python -m fuzzing.million $(HOSTILE)

# Builds the images, runs all of it in containers, kills each one and cuts the line for WAN_SECONDS (20). BASE_IMAGES
# names a program that makes the base images where no registry answers. TEST_CONTAINERS=must fails where 1 skips.
test-containers: $(VENV)/.dev
	TEST_CONTAINERS="$${TEST_CONTAINERS:-1}" FACERELAY_MEDIA="$(MEDIA)" $(BIN)/pytest --durations=10 tests/containers $(TESTS)

# A container engine from Debian, and Compose: needs root.
container-setup:
	apt-get update
	apt-get install -y --no-install-recommends docker.io docker-compose containerd runc iptables nftables debootstrap
	sysctl -q -w net.ipv4.ip_forward=1

# What the tests of the cloud machine's file need; an SSH server among them, so it is kept apart. Needs root.
machine-setup:
	apt-get update
	apt-get install -y --no-install-recommends cloud-init openssh-server nftables iproute2 docker-compose git openssl

# What tests need and pip cannot install: needs root. Of prometheus the programs alone: its service is not to run.
# Debian 12's kubectl is too old for the manifests, whose tests then say so and skip; Debian 13's is not.
test-setup:
	apt-get update
	if command -v systemctl >/dev/null && ! command -v prometheus >/dev/null; then systemctl mask --quiet prometheus || true; fi
	apt-get install -y --no-install-recommends age mosquitto mosquitto-clients s3fs fuse openssl chromium fonts-dejavu-core zsh fish python3-gi \
	  gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly prometheus
	command -v kubectl >/dev/null || apt-get install -y --no-install-recommends kubernetes-client

$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "facerelay needs Python 3.11 or later: make PYTHON=python3.11 …")'
	@echo "Setting up $(VENV): about 400 MB, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

# axe-playwright-python carries axe-core, one file of JavaScript; the 165 MB that it asks for beside are not used.
$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps axe-playwright-python
	@touch $@

# The tools that look at what others supply, apart from what they look at.
$(SUPPLY)/.made: constraints.txt
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt cyclonedx-bom pip-audit
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
