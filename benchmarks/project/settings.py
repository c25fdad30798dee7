"""Settings of the host project; which system is installed, and where the servers are, comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.systems import ALL, system
from benchmarks.systems.base import OverHttp

SECRET_KEY = "only for measurements"
USE_TZ = True
TIME_ZONE = "America/Sao_Paulo"
LANGUAGE_CODE = "pt-br"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

#: One of the systems; none while the tables of all of them are made.
_system = os.environ.get("BENCH_SYSTEM")
_installed = [system(_system)] if _system else [one for one in map(system, ALL) if one.is_installed()]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    *(name for one in _installed for name in one.apps),
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
    }
]

_parts = urlsplit(os.environ["DATABASE_URL"])
DATABASES: dict[str, dict[str, object]]
if _parts.scheme == "sqlite":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(_parts.path),
            # As the documentation tells whoever runs workers on SQLite.
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": f"django.db.backends.{_parts.scheme}",
            "NAME": _parts.path.lstrip("/"),
            "USER": _parts.username,
            "HOST": _parts.hostname,
            "PORT": _parts.port,
        }
    }
if _parts.scheme == "mysql":
    import pymysql

    # The oldest version of mysqlclient that Django takes.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    DATABASES["default"]["OPTIONS"] = {"charset": "utf8mb4"}

CELERY_BROKER_URL = os.environ["BROKER_URL"]
CELERY_TASK_IGNORE_RESULT = True

EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
# By number: looking the name up is no part of what is measured.
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["BENCH_SMTP_PORT"])
EMAIL_TIMEOUT = 60
if _password := os.environ.get("BENCH_SMTP_PASSWORD"):
    EMAIL_HOST_USER = "SMTP_Injection"
    EMAIL_HOST_PASSWORD = _password
    EMAIL_USE_TLS = True

if _system:
    globals().update(_installed[0].settings(_parts.scheme, int(os.environ.get("BENCH_CONNECTIONS", "5"))))
    if _host := os.environ.get("BENCH_API_HOST"):
        assert isinstance(_installed[0], OverHttp)
        globals().update(_installed[0].settings_over_http(_host, os.environ["BENCH_API_KEY"]))
