# make demo: the main job, seen · make test: everything tested · make site: the demo's site until Ctrl-C
# make chaos: thousands of mails while everything around them is killed, ten minutes at the most; SEED=… repeats a run
# make fuzz: the property tests with fifty times as many examples, or FUZZ=… times; not in the suite's five minutes
# make bench: how fast it is beside its peers, ten minutes at the most; ONLY="caller bulk" QUICK=1 for less of it
# make lint · make types · make docs · make migrations: none is missing · make wheel: into dist/ · make clean
.PHONY: demo test site chaos fuzz bench lint types docs migrations wheel clean
VENV := .venv
STAMP := $(VENV)/.installed

# The newest Python that has what is needed: without a redis-server, the embedded one has wheels up to 3.12.
PYTHON ?= $(shell for v in $$(command -v redis-server >/dev/null 2>&1 && echo 3.13) 3.12 3.11 ''; do \
	p=$$(command -v python$${v:-3}) && "$$p" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)

demo: $(STAMP)
	@$(VENV)/bin/python -m demo

site: $(STAMP)
	@$(VENV)/bin/python -m demo site

test: $(STAMP)
	@$(VENV)/bin/python -m tests.run

chaos: $(STAMP)
	@$(VENV)/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED))

FUZZ ?= 50

fuzz: $(STAMP)
	@MAILER_FUZZ=$(FUZZ) $(VENV)/bin/python -m tests.run --on sqlite -m fuzz

# What is compared is installed apart from what is needed to develop: with Django 5.2, and with 6.1 where there is a
# Python for it. Not 3.13 first: the package with a Redis inside has wheels up to 3.12.
BENCH_PYTHON ?= $(shell for v in 3.12 3.13 3.11 3; do \
	for p in "$$(command -v python$$v)" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v.*/bin/python; do \
	[ -x "$$p" ] && "$$p" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { echo "$$p"; exit; }; done; done)
BENCH_DJANGO = 5.2 $(shell "$(BENCH_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 12))' && echo 6.1)

bench:
	@$(MAKE) --silent --no-print-directory $(BENCH_DJANGO:%=.venv-bench-%/.installed)
	@.venv-bench-5.2/bin/python -m benchmarks $(ONLY:%=--only %) $(if $(QUICK),--quick) \
		$(patsubst %,--python .venv-bench-%/bin/python,$(filter-out 5.2,$(BENCH_DJANGO)))

.venv-bench-%/.installed: setup.py
	@test -n "$(BENCH_PYTHON)" || { echo "Python 3.11 or newer is needed; set BENCH_PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up .venv-bench-$* with $(BENCH_PYTHON) …"
	@"$(BENCH_PYTHON)" -m venv --clear .venv-bench-$*
	@.venv-bench-$*/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' 'django==$*.*'
	@touch $@

lint: $(STAMP)
	@$(VENV)/bin/python -m ruff check
	@$(VENV)/bin/python -m ruff format --check
	@$(VENV)/bin/lint-imports --no-cache --no-logo

# The tests' settings make a folder for their files, unless there is one.
types: $(STAMP)
	@mkdir -p build/scratch
	@MAILER_TEST_DIRECTORY='$(CURDIR)/build/scratch' $(VENV)/bin/python -m mypy

docs: $(STAMP)
	@$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs

migrations: $(STAMP)
	@mkdir -p build/scratch
	@MAILER_TEST_DIRECTORY='$(CURDIR)/build/scratch' $(VENV)/bin/python -m django makemigrations \
		--check --dry-run --skip-checks --settings tests.settings

wheel: $(STAMP)
	@rm -rf dist
	@$(VENV)/bin/python -m build --outdir dist

$(STAMP): setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) …"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint,docs,wheel]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-bench-* .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
