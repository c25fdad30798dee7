"""Settings of the host project that the tests run in; what differs from run to run comes from the environment."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django

# A project that is set up has its Celery app, whichever of its modules and checks comes first.
import tests.project  # noqa: F401

SCRATCH = Path(os.environ.get("MAILER_TEST_DIRECTORY") or tempfile.mkdtemp(prefix="congressy-mailer-"))

SECRET_KEY = os.environ.get("MAILER_TEST_SECRET_KEY", "only for tests")
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "America/Sao_Paulo"
LANGUAGE_CODE = "pt-br"
USE_I18N = True
ROOT_URLCONF = "tests.urls"
MEDIA_ROOT = SCRATCH / "media"
# For live_server.
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "congressy_mailer",
]
# No test is about how slowly a password is looked at.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "libraries": {"poison": "tests.project.poison"},
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]


# For a worker of a host that commits by hand.
AUTOCOMMIT = os.environ.get("MAILER_TEST_AUTOCOMMIT") != "0"


def _database(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        # Worker processes of the tests share the file. It need not survive the machine, as it does them.
        options = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous = OFF"}
        return {
            "AUTOCOMMIT": AUTOCOMMIT,
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path),
            "OPTIONS": options,
            "TEST": {"NAME": unquote(parts.path)},
        }
    if parts.scheme == "mysql":
        import pymysql

        pymysql.version_info = (2, 2, 7, "final", 0)
        pymysql.install_as_MySQLdb()
    name = unquote(parts.path).lstrip("/")
    return {
        "AUTOCOMMIT": AUTOCOMMIT,
        "ENGINE": {
            "postgresql": "django.db.backends.postgresql",
            "mysql": "django.db.backends.mysql",
        }[parts.scheme],
        "NAME": name,
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        "TEST": {"NAME": name if os.environ.get("MAILER_TEST_WORKER") else f"test_{name}"},
    }


DATABASES = {"default": _database(os.environ.get("DATABASE_URL") or f"sqlite://{SCRATCH}/db.sqlite3")}

CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://127.0.0.1:1/0")
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ.get("BROKER_TRANSPORT_OPTIONS", "{}"))
CELERY_RESULT_BACKEND = None
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Further settings of Celery, as JSON: MAILER_TEST_CELERY={"task_create_missing_queues": false}.
globals().update(
    {f"CELERY_{name.upper()}": value for name, value in json.loads(os.environ.get("MAILER_TEST_CELERY", "{}")).items()}
)

CONGRESSY_EMAIL_SENDER = "mail@congressy.net"
CONGRESSY_REPLY_TO = "congressy@congressy.com"

_smtp = {
    "host": os.environ.get("MAILER_TEST_SMTP_HOST", "localhost"),
    "port": int(os.environ.get("MAILER_TEST_SMTP_PORT", "1")),
    "username": "SMTP_Injection",
    "password": os.environ.get("MAILER_TEST_SMTP_PASSWORD", "key"),
    "use_tls": True,
}
if django.VERSION >= (6, 1) and os.environ.get("MAILER_TEST_MAILERS"):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": _smtp}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST = _smtp["host"]
    EMAIL_PORT = _smtp["port"]
    EMAIL_HOST_USER = _smtp["username"]
    EMAIL_HOST_PASSWORD = _smtp["password"]
    EMAIL_USE_TLS = True

# Shorter times for tests that wait for them: MAILER_TEST_LEASE_SECONDS=3.
_times = {
    name: os.environ.get(f"MAILER_TEST_{name}_SECONDS")
    for name in ("BREAKER_TIME", "LEASE", "LOST_AFTER", "SWEEP_INTERVAL", "TIME_LIMIT")
}
CONGRESSY_MAILER = {
    "RETRY_BACKOFF": timedelta(seconds=5),
    **{name: timedelta(seconds=float(seconds)) for name, seconds in _times.items() if seconds},
    # What a worker of one test is to know beside that, as JSON.
    **json.loads(os.environ.get("MAILER_TEST_OPTIONS", "{}")),
}
