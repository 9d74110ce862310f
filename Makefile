# make demo [CORPUS=DIR] [RECIPE=cosyvoice.tiny]
#                          the whole pipeline on this machine, in minutes, with stand-in models
# make test-fast           tests of every package, in less than a minute
# make test [TESTS=...]    the tests, or those named
# make test-long           the longest tests, and further cases of slow ones
# make lint types imports  style, strict types, and the rule of which package may import which
# make compile             the pipeline's IR YAML into build/pipelines [IMAGES=lock file]
# make images              container images, their sizes, and build/images/images.lock.yaml (docs/kubernetes.md)
#                          [IMAGE="base extract"] [BASE_IMAGE=...] [BUILDER=docker|buildah] [REGISTRY=... PUSH=1] [MEASURE=base]
# make k8s                 renders every overlay of k8s/ and checks it against the API's schemas
# make kfp                 the pipeline's tests on a Kubeflow Pipelines server (docs/kubernetes.md) [KFP_HOST=...]
# make soak                every stage begun by several processes at random times, over and over [SOAK_ROUNDS=10], and a
#                          training killed over and over, three ways, a hundred times in all [SOAK_KILLS=34]
# make fuzz                damaged files for every reader, ten minutes each [FUZZ_SECONDS=600]
# make faults              every operation of a store with every fault: storage functions and whole stages
# make judges              planted candidates get the right verdicts by real judges, in minutes
# make setup               the environment alone, from the lock file; the others do it when it is needed

UV_VERSION := 0.13.9
VENV := .venv
VENV_312 := build/venv-3.12
DEMO_ROOT := exp/demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_312 := $(VENV_312)/.installed

.PHONY: demo test test-fast test-long lint types imports test-fast-312 compile images k8s kfp soak fuzz faults setup judges

demo: $(INSTALLED)
	@$(BIN)/python -m pipelines demo --work-dir "$(DEMO_ROOT)" $(if $(CORPUS),--corpus "$(CORPUS)") \
		$(if $(RECIPE),--recipe "$(RECIPE)")

# Two workers with one thread each: the models of the tests are too small to gain from more.
# The files' own order: by their number of tests, as xdist would have it, the longest trainings come last, and one of the
# two processes waits for the other.
PYTEST = OMP_NUM_THREADS=1 $(1) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(call PYTEST,$(BIN)/python) $(TESTS)

test-long: $(INSTALLED)
	$(call PYTEST,$(BIN)/python) --long -m long tests/golden tests/local tests/outside

# conftest.py has what --fast selects, and tests/unit/core/test_fast_selection.py holds it to every package.
FAST := --fast tests/unit components
test-fast: $(INSTALLED)
	$(call PYTEST,$(BIN)/python) $(FAST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

test-fast-312: $(INSTALLED_312)
	$(call PYTEST,$(VENV_312)/bin/python) $(FAST)

compile: $(INSTALLED)
	$(BIN)/python -m pipelines compile --output build/pipelines $(if $(IMAGES),--images "$(IMAGES)")

images: $(INSTALLED)
	@interpreter=$(BIN)/python; $(find_uv); \
	$(BIN)/python -m images $(IMAGE) --uv "$$uv" $(if $(BASE_IMAGE),--base-image "$(BASE_IMAGE)") \
		$(if $(BUILDER),--builder "$(BUILDER)") $(if $(REGISTRY),--registry "$(REGISTRY)") $(if $(PUSH),--push) $(if $(MEASURE),--measure $(MEASURE))

k8s: $(INSTALLED)
	@command -v kubectl >/dev/null || { echo "make: kubectl is needed, which renders the overlays" >&2; exit 1; }
	$(BIN)/python -m pytest tests/unit/k8s

# Without a server, or a cluster that may be broken on purpose, every test would be skipped, which looks like success.
KFP_HOST ?= http://127.0.0.1:30088
kfp: $(INSTALLED)
	@$(BIN)/python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/apis/v2beta1/healthz", timeout=10)' \
		"$(KFP_HOST)" 2>/dev/null || { echo "make: no Kubeflow Pipelines API answers at $(KFP_HOST); start one as" \
		"docs/kubernetes.md tells, or name another: make kfp KFP_HOST=http://..." >&2; exit 1; }
	@[ "$$(kubectl get namespace kubeflow --output 'jsonpath={.metadata.labels.cosyflow\.dev/test}' 2>/dev/null)" = true ] || \
		{ echo "make: KUBECONFIG must lead to that server's cluster, whose namespace kubeflow has the label" \
		"cosyflow.dev/test=true" >&2; exit 1; }
	KFP_HOST="$(KFP_HOST)" $(BIN)/python -m pytest --numprocesses 0 --long tests/cluster/kfp tests/cluster/test_speed.py \
		tests/cluster/test_pytorchjob.py::test_a_training_ends_within_30_s_of_the_stop_of_its_workflow \
		tests/cluster/test_pytorchjob.py::test_a_job_that_nobody_follows_ends_within_two_minutes --durations=15

soak: $(INSTALLED)
	OMP_NUM_THREADS=1 SOAK_KILLS="$(or $(SOAK_KILLS),34)" SOAK_KILL_SECONDS=15 $(BIN)/python -m pytest --numprocesses 0 \
		--long tests/local/test_kills.py
	OMP_NUM_THREADS=1 SOAK_ROUNDS="$(or $(SOAK_ROUNDS),10)" $(BIN)/python -m pytest --numprocesses 0 tests/soak --durations=10

# Each time other damage: the seed is the time.
fuzz: $(INSTALLED)
	FUZZ_SECONDS="$(or $(FUZZ_SECONDS),600)" FUZZ_SEED="$$(date +%s)" $(call PYTEST,$(BIN)/python) tests/fuzz

faults: $(INSTALLED)
	COSYFLOW_TEST_FAULTS=all $(call PYTEST,$(BIN)/python) tests/unit/storage/test_faults.py tests/unit/storage/test_stage_faults.py

# The judges' processes take every core by themselves.
judges: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 0 tests/judges --durations=10

setup: $(INSTALLED)

# The first usable interpreter of the machine; nothing where there is none, then uv fetches one.
find_python = for candidate in $(1); do \
		if $$candidate -c 'import sys, venv; sys.exit(sys.version_info[:2] not in $(2))' 2>/dev/null; then \
			interpreter=$$($$candidate -c 'import sys; print(sys.executable)'); break; \
		fi; \
	done

# uv of the machine; without one a copy of its own in build/uv, for which the interpreter is needed.
find_uv = uv=$$(command -v uv); \
	if [ -z "$$uv" ]; then \
		uv=build/uv/bin/uv; \
		if [ -z "$$interpreter" ]; then \
			echo "make: Python 3.11 or 3.12 with its venv module is needed, or uv" >&2; exit 1; \
		fi; \
		if [ ! -x $$uv ]; then \
			"$$interpreter" -m venv build/uv && \
			build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) || exit 1; \
		fi; \
	fi

$(INSTALLED): pyproject.toml uv.lock
	@interpreter=; $(call find_python,$(BIN)/python python3 python3.12 python3.11,((3, 11), (3, 12))); \
	$(find_uv); \
	echo "Installs from uv.lock into $(VENV)"; \
	UV_PROJECT_ENVIRONMENT=$(VENV) "$$uv" sync --frozen --quiet --extra all --extra demo --extra evaluation --python "$${interpreter:-3.12}" && \
	touch $@

$(INSTALLED_312): pyproject.toml uv.lock
	@interpreter=; $(call find_python,$(VENV_312)/bin/python python3.12 python3,((3, 12),)); \
	$(find_uv); \
	echo "Installs from uv.lock into $(VENV_312)"; \
	UV_PROJECT_ENVIRONMENT=$(VENV_312) "$$uv" sync --frozen --quiet --extra all --extra demo --extra evaluation --python "$${interpreter:-3.12}" && \
	touch $@
