# make demo [CORPUS=DIR]   the whole pipeline on this machine, in minutes, with stand-in models
# make test                all tests
# make lint                style, types and the import rule
# make compile             the pipeline's IR YAML into build/pipelines [IMAGES=lock file]
# make setup               the environment alone, from the lock file; the others do it when it is needed

UV_VERSION := 0.13.9
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint compile setup

demo: $(INSTALLED)
	@$(PYTHON) -m pipelines demo $(if $(CORPUS),--corpus "$(CORPUS)")

test: $(INSTALLED)
	$(PYTHON) -m pytest $(TESTS)

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

compile: $(INSTALLED)
	$(PYTHON) -m pipelines compile --output build/pipelines $(if $(IMAGES),--images "$(IMAGES)")

setup: $(INSTALLED)

# uv if it is there; otherwise a copy of its own in build/uv. The interpreter is the first usable one of 3.11 and 3.12.
$(INSTALLED): pyproject.toml uv.lock
	@interpreter=; \
	for candidate in $(VENV)/bin/python python3 python3.12 python3.11; do \
		if $$candidate -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then \
			interpreter=$$($$candidate -c 'import sys; print(sys.executable)'); break; \
		fi; \
	done; \
	uv=$$(command -v uv); \
	if [ -z "$$uv" ]; then \
		if [ -z "$$interpreter" ]; then \
			echo "make: Python 3.11 or 3.12 with its venv module is needed" >&2; exit 1; \
		fi; \
		uv=build/uv/bin/uv; \
		if [ ! -x $$uv ]; then \
			"$$interpreter" -m venv build/uv && build/uv/bin/python -m pip install --quiet uv==$(UV_VERSION) || exit 1; \
		fi; \
	fi; \
	echo "Installing from uv.lock into $(VENV)"; \
	"$$uv" sync --frozen --quiet --extra demo --python "$${interpreter:-3.12}" && touch $(INSTALLED)
