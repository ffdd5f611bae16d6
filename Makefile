# The developer interface: make demo, test, lint, bench, up. Each builds .venv by itself.
PYTHON ?= python3.11
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint style bench up lock clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 && $(PYTHON) -m venv .venv || python3 -m venv .venv

.venv/.demo: requirements/demo.txt requirements/install.py pyproject.toml | $(BIN)/python
	@echo "Installing what the demo needs into .venv …"
	@$(BIN)/python requirements/install.py requirements/demo.txt
	@touch $@

.venv/.test: requirements/test.txt requirements/install.py pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need into .venv …"
	@$(BIN)/python requirements/install.py requirements/test.txt
	@touch $@ .venv/.demo

.venv/.browser:
	@command -v chromium >/dev/null 2>&1 || { echo "Installing chromium …"; \
	  S=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$S apt-get update -qq && $$S apt-get install -y -qq chromium >/dev/null; }
	@mkdir -p .venv && touch $@

demo: .venv/.demo ## watch a year of a model in production
	@$(BIN)/holdtrue demo

up: .venv/.demo ## serve what the demo left, at the moment where it ended
	@test -d .demo/home || { echo "There is nothing to serve yet. Run the demo first: make demo"; exit 1; }
	@FLIGHTS_DELIVERIES=.demo/inbox $(BIN)/holdtrue up --home .demo/home --clock .demo/clock \
	  --file examples/flights/flights.py

lint: style ## style, import contracts, types
	$(BIN)/basedpyright

style: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# The types are checked among the tests (tests/house/test_types.py), beside others.
test: .venv/.test .venv/.browser style ## everything CI holds
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not long"

.venv/.torch: .venv/.test
	@echo "Installing PyTorch …"
	@$(BIN)/python -m pip install -q torch==2.13.0
	@touch $@

test-long: .venv/.test .venv/.torch .venv/.browser style ## the slow crash and soak suites too
	$(BIN)/python -m pytest -n 3 --dist worksteal

bench: .venv/.test ## measure (TOPIC=name for one)
	$(BIN)/python -m bench $(TOPIC)

lock: .venv/.test ## resolve the lock files anew
	@bash requirements/lock.sh

clean: ## remove the demo's state (keeps .venv)
	rm -rf .demo
