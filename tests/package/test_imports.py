"""What the app costs a process that sends no mail: each web server, shell and command of the host imports it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

_SCRIPT = """
import json, os, sys
import celery, django
from celery import Task, shared_task
from django.conf import settings
apps = ["admin", "auth", "contenttypes", "messages", "sessions"]
settings.configure(
    INSTALLED_APPS=[*(f"django.contrib.{app}" for app in apps), *json.loads(sys.argv[1])], SECRET_KEY="x", USE_TZ=True,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
celery.Celery("host").set_default()
# A host's own tasks load this much of Celery.
import celery.app.task, celery.canvas, celery.result, celery.app.routes
django.setup()
from django.contrib import admin
from django.template import engines
# Loads the libraries of tags.
engines["django"].from_string("")
print(json.dumps(sorted(sys.modules)))
"""

#: What only making, sending or receiving mail needs: an HTTP client, limits in Redis, HTML to text, international
#: domains, the grammar of addresses.
_HEAVY = {
    "requests", "urllib3", "sparkpost", "throttled", "redis", "jinja2", "html_to_markdown", "idna", "click", "smtplib",
    "openpyxl", "cryptography",
    "congressy_mailer.mail", "congressy_mailer.bulk", "congressy_mailer.delivery", "congressy_mailer.transports",
    "congressy_mailer.content", "congressy_mailer.outbox", "congressy_mailer.tracking.processing",
    "congressy_mailer.tracking.webhook",
    "congressy_mailer.sparkpost",
    "congressy_mailer.mime.addresses",
}  # fmt: skip

#: Of the package: the tables, the admin, the checks and the tasks, and not what commands, migrations, tests or a URL
#: load.
_MOST_OF_OURS = 85
#: Of others; which modules of the standard library a package loads differs from one Python to the next.
_MOST_OF_OTHERS = 8


def _loaded(apps: str, *options: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, *options, "-c", _SCRIPT, apps],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return set(json.loads(found.stdout))


@pytest.fixture(scope="module")
def added() -> set[str]:
    """Modules that are loaded because of the app, in a project that uses Celery and the admin."""
    return _loaded('["congressy_mailer"]') - _loaded("[]")


def test_the_app_loads_nothing_heavy_in_a_process_that_sends_no_mail(added: set[str]) -> None:
    assert "congressy_mailer.tasks" in added
    assert sorted(_HEAVY & added) == []


def test_the_app_loads_few_modules(added: set[str]) -> None:
    ours = {name for name in added if name.partition(".")[0] == "congressy_mailer"}
    assert len(ours) <= _MOST_OF_OURS, sorted(ours)
    assert len(added - ours) <= _MOST_OF_OTHERS, sorted(added - ours)


def test_loading_the_app_makes_no_deprecation_warning() -> None:
    # Celery, kombu and Django may have their own, which end no process of the host.
    assert "congressy_mailer.tasks" in _loaded(
        '["congressy_mailer"]', "-W", "error::DeprecationWarning:congressy_mailer"
    )


def test_a_project_that_has_not_installed_the_app_is_told_so() -> None:
    script = (
        "import django; from django.conf import settings; settings.configure(SECRET_KEY='x'); django.setup()\n"
        "from congressy_mailer import send_mail"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 1
    assert 'ImproperlyConfigured: Add "congressy_mailer" to INSTALLED_APPS' in found.stderr
