# make demo | test | check | docs | gpu-check | setup. EXTRA=cpu or gpu overrides the choice of the vLLM build.
SHELL := /bin/bash
comma := ,
EXTRA ?= $(shell if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi)
PYTHON ?= python3
# Beside the vLLM build: what the demo, every command and the tests need.
EXTRAS := embedded,data,export,audit,demo,review,tensorboard,ray,docs,dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.sspa-$(EXTRA)
# Where this variable is set, as in many containers, every process would compile torch and vLLM's sources anew.
export PYTHONDONTWRITEBYTECODE :=
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)

.PHONY: demo test tests check lint links types docs gpu-check format setup constraints clean

setup: $(STAMP)

$(VENV)-uv/bin/uv:
	$(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install -q uv

$(STAMP): pyproject.toml constraints/$(EXTRA).txt $(if $(findstring $(VENV)-uv,$(UV)),$(UV))
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -e '.[$(EXTRA),$(EXTRAS)]' -c constraints/$(EXTRA).txt
	@rm -f $(VENV)/.sspa-*; touch $@
	@echo 'ready; next: source $(BIN)/activate, then sspa-train tag PHOTOS --labels "dog,cat" (README.md)'

demo: $(STAMP)
	$(BIN)/sspa-knowledge generate --labels voc.txt
	$(BIN)/sspa-train run --knowledge artifacts/voc.parquet

# Three files of tests at a time, since some mostly wait, those of tests/integration first, which take longest; one thread
# each, since such small models gain nothing from more. mypy takes two minutes on one core when it has no cache.
test: lint
	+$(MAKE) --no-print-directory -j2 tests types

tests: $(STAMP) links
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: lint types

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# mypy and the site read the installed name `sspa` through links, since the folders are top-level in the clone.
links:
	@mkdir -p .mypy/sspa && for f in prompts shared stage1_knowledge stage2_training; do ln -sfn ../../$$f .mypy/sspa/$$f; done
	@for f in __init__.py py.typed; do ln -sfn ../../shared/sspa/$$f .mypy/sspa/$$f; done

types: $(STAMP) links
	$(BIN)/mypy
	@# They are run by hand, so that nothing else would notice what they import and is gone.
	MYPYPATH=.mypy $(BIN)/mypy benchmarks

# The documentation site, in site/; a link that leads nowhere is an error.
docs: $(STAMP) links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# What only a GPU can show, as the page gpu-check.md.
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Exact versions with their checksums, which uv holds every download to, without registry hosts: run after a change of
# dependencies.
constraints: $(STAMP)
	for e in cpu gpu; do $(UV) pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra $$e $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) --no-header --no-annotate --no-emit-index-url --generate-hashes -o constraints/$$e.txt; done

clean:
	rm -rf $(VENV) $(VENV)-uv .mypy build site *.egg-info
