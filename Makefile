# make demo: the main job, seen · make test: everything tested · make site: the demo's site until Ctrl-C
.PHONY: demo test site clean
VENV := .venv
STAMP := $(VENV)/.installed

# The newest Python that has what is needed: without a redis-server, the embedded one has wheels up to 3.12.
PYTHON ?= $(shell for v in $$(command -v redis-server >/dev/null 2>&1 && echo 3.13) 3.12 3.11 ''; do \
	p=$$(command -v python$${v:-3}) && "$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)

demo: $(STAMP)
	@$(VENV)/bin/python -m demo

site: $(STAMP)
	@$(VENV)/bin/python -m demo site

test: $(STAMP)
	@$(VENV)/bin/python -m pytest

$(STAMP): setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) …"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint,docs]'
	@touch $@

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
