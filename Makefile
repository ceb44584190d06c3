# The same commands for developers and for CI. Each makes the environment it needs in .venv, from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := pip==26.3# half the time of the pip that Python 3.11 brings
UV := uv==0.13.9# resolves the lock; installs nothing, because it does not read pip's own configuration
# Without --no-compile pip compiles all of torch, for longer than the demo runs.
INSTALL := $(BIN)/python -m pip install -qq --no-compile --constraint requirements.lock

# Tests share the machine with Ray's workers: one thread each.
TESTING := env OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0
CI_SIZED := $(TESTING) $(BIN)/python -m pytest -m "not nightly and not gpu"
# Ray takes all cores; what does without it shares them.
FAST := tests/imgtx tests/pipeline tests/jobs tests/conformance tests/storage tests/test_*.py
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile $(FAST)
ONE_BY_ONE := tests/end_to_end
# A failed install leaves no stamp, so that the next make tries again.
.DELETE_ON_ERROR:
.PHONY: help demo spandrel test test-nightly check docs bench lock clean

help: ## show these targets (what bare `make` does)
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## */\1|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: $(VENV)/.run ## upscale the photos in examples/ twofold into demo-out/, on this machine
	@$(BIN)/imgtx upscale examples/ demo-out/ --scale 2 --exclude "*.md"
	@echo
	@echo "Look at demo-out/images/. Run make demo again: everything is current, nothing is read."

spandrel: $(VENV)/.spandrel ## add what runs other people's models (docs/guides/your-models.md)

test: $(VENV)/.develop ## run the tests (CI-sized); ARGS=tests/imgtx for some of them
ifdef ARGS
	$(CI_SIZED) $(ARGS)
else
	$(CI_SIZED) $(SIDE_BY_SIDE)
	$(CI_SIZED) $(ONE_BY_ONE)
endif

test-nightly: $(VENV)/.develop ## run every test, also those that take many minutes
	$(TESTING) $(BIN)/python -m pytest --timeout 3600 --hypothesis-profile=random $(ARGS)

check: $(VENV)/.develop ## lint, formatting, types, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m docs.generate --check

docs: $(VENV)/.run ## write docs/reference/ and the tables of docs/files.md from the code
	$(BIN)/python -m docs.generate

bench: $(VENV)/.bench ## measure; tables on the screen, JSON under bench/results/
	$(BIN)/python -m bench.run_all $(ARGS)

lock: ## resolve the dependencies of pyproject.toml anew into requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -qq "$(UV)"
	build/lock/bin/uv pip compile --quiet --universal --upgrade --all-extras --no-annotate --no-config \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	rm -rf build/lock

clean: ## remove the environment, caches and the demo's output
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/.run: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"imgtx needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@echo "installing imgtx into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq "$(PIP)"
	@$(INSTALL) --editable .
	@touch $@

# Without --no-deps pip brings torchvision, and with it, where that is the platform's default, a CUDA torch.
$(VENV)/.spandrel: $(VENV)/.run
	@$(INSTALL) --no-deps spandrel einops
	@$(BIN)/python -c "from imgtx.models.adapters.spandrel import import_spandrel; import_spandrel()"
	@touch $@

$(VENV)/.develop: $(VENV)/.run $(VENV)/.spandrel
	@echo "installing the tools of make test and make check"
	@$(INSTALL) --editable ".[test,check,controls,diffusion]"
	@touch $@

$(VENV)/.bench: $(VENV)/.run $(VENV)/.spandrel
	@echo "installing the tools of make bench"
	@$(INSTALL) --editable ".[bench]"
	@touch $@
