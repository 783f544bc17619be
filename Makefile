# What a person types, and what CI runs. Everything lives in .venv; nothing is installed outside this folder.
#
#   PYTHON=python3.12          another interpreter (3.11 or newer)
#   TORCH_INDEX=https://...    where torch comes from (default: PyPI, whose Linux wheel carries CUDA)
#   PRESET=cartpole-ppo        what `make demo` trains;  ARGS='--set a.b=c' are handed on to `headrace train`
#   TESTS='tests/common -x'    what `make test` runs

PYTHON ?= python3
TORCH_INDEX ?=
PRESET ?= lunarlander-ppo
ARGS ?=
TESTS ?=

EXTRAS := dev,docs,envpool
BIN := .venv/bin
OLDEST := .venv/kafka-oldest
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -b constraints.txt
# Every top-level folder that is a package (tests are not shipped).
PACKAGES := $(patsubst %/__init__.py,%,$(filter-out tests/%,$(wildcard */__init__.py)))

.DELETE_ON_ERROR:
.PHONY: help demo test test-runs test-rest test-faults test-cluster test-hosts test-kubernetes test-dashboards dashboards manifests docs docs-serve pages kafka-oldest check lint types format proto bench constraints clean

help:  ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.run  ## train LunarLander on this machine: live table, learning curve, GIF
	$(BIN)/headrace train $(PRESET) $(ARGS)

# Whole lines only: two commands write at once.
by_line = bash -o pipefail -c '$(1) 2>&1 | sed -u ""'

# Two halves side by side, as long as each other: tests of runs wait more than they compute.
RUNS := tests/faults tests/launch tests/observe tests/learner tests/learning tests/algorithms tests/dashboards
DRAWN := tests/dashboards/test_render.py tests/dashboards/test_report_page.py

test: .venv/.dev  ## every test
ifeq ($(TESTS),)
	+@$(MAKE) --no-print-directory --jobs=2 test-runs test-rest
else
	$(BIN)/pytest $(TESTS)
endif

test-runs: .venv/.dev
	@$(call by_line,$(BIN)/pytest $(RUNS) $(addprefix --ignore=,$(DRAWN)))

# A cluster is started by `make test-cluster`, hosts by `make test-hosts`, panels are drawn by `make test-dashboards`.
test-rest: .venv/.dev
	@$(call by_line,$(BIN)/pytest tests $(addprefix --ignore=,$(RUNS) tests/cluster tests/hosts tests/kubernetes))

# Where the tests of docs/faults.md are, the clusters' aside. The marker faults_full is of those that take their time.
FAULTS := tests/faults tests/common tests/paramserver tests/learner tests/algorithms/test_nan.py \
    tests/dashboards/test_alerts.py

# HEADRACE_SOAK_MINUTES=5 shortens the last one.
test-faults: .venv/.dev  ## every fault of docs/faults.md, storms of several seeds and half an hour's soak included
	$(BIN)/pytest -m '' $(FAULTS)

test-cluster: .venv/.dev  ## docker compose for real, on an engine of its own where none answers
	$(BIN)/pytest tests/cluster -s

test-hosts: .venv/.dev  ## several hosts, as network namespaces: slow and dead lines, machines that vanish (as root)
	$(BIN)/pytest tests/hosts -s

# PICTURE=docs/images/dashboard.png trains LunarLander for some minutes and leaves the docs' picture there.
test-dashboards: .venv/.dev  ## every panel of the dashboard and the page of a report, drawn in headless Chromium
	$(BIN)/pytest $(DRAWN)

test-kubernetes: .venv/.dev  ## k8s/ for real, on a Kubernetes of one node, built from its Go modules
	$(BIN)/pytest tests/kubernetes tests/launch/test_manifests.py -s

kafka-oldest: $(UV)  ## the Kafka contract with the lowest kafka-python that pyproject.toml allows
	@rm -rf $(OLDEST) && $(UV) venv --quiet --python $(BIN)/python $(OLDEST)
	grep -v '^kafka-python==' constraints.txt > $(OLDEST)/constraints.txt
	$(UV) pip install --quiet --python $(OLDEST)/bin/python -c $(OLDEST)/constraints.txt \
	    "$$(sed -n 's/.*"\(kafka-python.*\)>=\([0-9.]*\),.*/\1==\2/p' pyproject.toml)" \
	    annotated-types confluent-kafka hypothesis lz4 numpy prometheus-client protobuf psutil pytest pytest-timeout
	$(UV) pip install --quiet --python $(OLDEST)/bin/python --no-deps -e .
	$(OLDEST)/bin/python -m pytest tests/common/test_transport_contract.py -k 'kafka and not confluent'

check: lint types  ## lint, format and types

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.dev .typing/.made
	$(BIN)/mypy -p headrace

format: .venv/.dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

manifests: .venv/.dev  ## what of k8s/ is made from other files
	$(BIN)/python k8s/build.py

docs: .venv/.dev  ## the docs as a site, in build/site; what leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "the docs: build/site/index.html"

docs-serve: .venv/.dev  ## the same at http://127.0.0.1:8000, as one writes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

pages: .venv/.dev  ## what of docs/ is made from code and results
	$(BIN)/python docs/site/generate.py

proto: .venv/.dev  ## common/wire/ from proto/
	$(BIN)/python proto/generate.py

dashboards: .venv/.dev  ## deploy/grafana/dashboards/ from deploy/grafana/*.py
	$(BIN)/python deploy/grafana/generate.py

bench: .venv/.dev  ## the ladder, on this machine
	$(BIN)/python bench/ladder.py $(ARGS)

constraints: $(UV)  ## newest versions that fit pyproject.toml, pinned for every platform
	{ echo '# Every version we are built and tested with. Made by `make constraints`.'; \
	  echo uv | $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	      --no-header --no-annotate pyproject.toml - ; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean:  ## remove what make made (runs/ stays)
	rm -rf .venv .typing build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(UV): constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; give one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: $$($(PYTHON) --version) is too old; give Python 3.11 or newer with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@touch $@

# torch alone comes from TORCH_INDEX; the later install finds its pinned version there already and keeps it.
.venv/.torch: $(UV)
	$(if $(TORCH_INDEX),$(INSTALL) --default-index $(TORCH_INDEX) --no-deps torch)
	@touch $@

.venv/.run: .venv/.torch pyproject.toml
	@echo "installing headrace into .venv"
	$(INSTALL) -e .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml
	@echo "installing headrace and its tools into .venv"
	$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@ .venv/.run

# The packages by their import names, for type checkers and editors: headrace/ itself, and a link to each of the others.
.typing/.made: Makefile $(addsuffix /__init__.py,$(PACKAGES))
	@rm -rf .typing && mkdir -p .typing/headrace
	@ln -s $(addprefix ../../,$(wildcard headrace/*.*) $(filter-out headrace,$(PACKAGES))) .typing/headrace/
	@touch $@
