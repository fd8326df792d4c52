# make demo   install and run the whole job    make test   every test CI runs
# make lint   ruff, mypy, layers of imports    make bench  slow comparisons with peers
# make arm    artifacts for Arm, run by QEMU  (Debian, Ubuntu; may ask for sudo)
# make web    artifacts in a real Chromium  (npm install onnxruntime-web: docs/browser.md)
# make audit  known holes of the pins (needs pypi.org's advisories)
# make gate   export digits and shapes, and gate them: .ci/vitedge.toml   make accept  accept them
# make docs   build the manual as a site, into site/   make manual write the pages that are read from the code
# make action write the limits of `vitedge gate` into the GitHub action
# make frozen write tests/frozen/VERSION, at a release: see CONTRIBUTING.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install demo test lint docs manual bench arm web audit gate accept own action frozen reference clean

install: $(VENV)/installed

demo: install
	$(BIN)/vitedge demo

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

manual: $(VENV)/installed-dev
	$(BIN)/python -m docs.tools

bench: $(VENV)/installed-dev
	$(PIP) -e '.[bench]'
	for name in help_time validate_throughput saturation recipes outliers ordinary export_cost qat_step \
		latency rare_tokens signing roofline lineage hybrids vt_vs_resnet bench_clock bench_repeat bench_start; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done

arm: $(VENV)/installed-dev
	command -v qemu-aarch64-static >/dev/null || apt-get install -y -qq qemu-user-static || sudo apt-get install -y -qq qemu-user-static
	$(BIN)/pytest -n 0 -m heavy -rs tests/e2e/test_arm.py

web: $(VENV)/installed-dev
	$(PIP) -e '.[browser]'
	$(BIN)/pytest -n 0 -m 'heavy or not heavy' -rs -k 'onnxruntime-web or browser or web' \
		tests/contract/test_runtimes.py tests/e2e/test_browser.py \
		tests/e2e/test_web_page.py tests/unit/runtimes/test_onnxruntime_web.py tests/unit/ship/test_web_package.py

gate: own
	$(BIN)/vitedge gate --config .ci/vitedge.toml

accept: own
	rm -f .ci/baseline.npz
	$(BIN)/vitedge gate --config .ci/vitedge.toml --baseline .ci/baseline.npz --accept

own: $(VENV)/installed-dev
	for model in digits shapes; do \
		$(BIN)/vitedge export $$model --target onnxruntime-cpu --int8 --duration 0 --force \
			--output artifacts/gate >/dev/null || exit 1; \
	done

audit: $(VENV)/installed-dev
	$(PIP) pip-audit
	$(BIN)/pip-audit --disable-pip --no-deps -r constraints.txt

action: $(VENV)/installed
	$(BIN)/python .github/actions/gate/limits.py

frozen: $(VENV)/installed-dev
	$(BIN)/python -m tests.support.freeze

reference: $(VENV)/installed
	for name in digits shapes shapes-setr shapes-detr; do \
		$(BIN)/python -m examples.references.$$(echo $$name | tr - _) \
			--output vitedge/models/zoo/$$name.safetensors || exit 1; \
	done

clean:
	rm -rf $(VENV) artifacts dist

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[all]'
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[all,dev]'
	touch $(VENV)/installed $@
