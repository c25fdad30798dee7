"""Settings of the demo. What differs from run to run (ports, passwords, folder) comes from the environment."""

import os
from datetime import timedelta
from pathlib import Path

#: Everything that a run stores: database, attachments that wait, received mail.
RUN_DIRECTORY = Path(os.environ.get("DEMO_DIRECTORY", "demo-run")).absolute()

SECRET_KEY = os.environ.get("DEMO_SECRET_KEY", "for looking at the demo on one's own machine only")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "demo.events",
    "demo.inbox",
]

# --- Congressy Mailer -------------------------------------------------------------------------------------------

INSTALLED_APPS += ["django.contrib.humanize", "congressy_mailer"]

CELERY_BROKER_URL = os.environ.get("DEMO_REDIS_URL", "redis://localhost:6379/0")
CELERY_RESULT_BACKEND = CELERY_BROKER_URL

EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = os.environ.get("DEMO_EMAIL_HOST", "smtp.sparkpostmail.com")
EMAIL_PORT = int(os.environ.get("DEMO_EMAIL_PORT", "587"))
EMAIL_HOST_USER = "SMTP_Injection"
EMAIL_HOST_PASSWORD = os.environ.get("DEMO_EMAIL_PASSWORD", "<SparkPost API key>")
EMAIL_USE_TLS = True
CONGRESSY_EMAIL_SENDER = "mail@congressy.net"
CONGRESSY_REPLY_TO = "congressy@congressy.com"

CONGRESSY_MAILER = {
    # Vouchers wait here for the worker, not in a folder that the public can see.
    "ATTACHMENT_STORAGE": "mail",
    # A project in earnest leaves the 30 seconds that are the default; people who watch a demo are not to wait so long.
    "RETRY_BACKOFF": timedelta(seconds=5),
    # Links in mails lead here.
    "SITE_URL": os.environ.get("DEMO_SITE_URL"),
    "LISTS": {"novidades": "Novidades do congresso"},
    "SPARKPOST_API_KEY": EMAIL_HOST_PASSWORD,
    "SPARKPOST_API_HOST": os.environ.get("DEMO_API_HOST", "api.sparkpost.com"),
    # The host is this machine; with SparkPost's own, the header goes along by itself.
    "SPARKPOST_HEADER": "always",
    # A reader who leaves in one click is seen at once.
    "SPARKPOST_UNSUBSCRIBE": "own",
    "WEBHOOK_SECRETS": [f"basic sparkpost:{os.environ.get('DEMO_WEBHOOK_PASSWORD', SECRET_KEY)}"],
}

STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": RUN_DIRECTORY / "media"},
    },
    "mail": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": RUN_DIRECTORY / "attachments"},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# --- The rest of an ordinary project ----------------------------------------------------------------------------

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": RUN_DIRECTORY / "demo.sqlite3",
        "OPTIONS": {
            # The site and the worker write at the same time: wait for each other instead of failing.
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "pt-br"
TIME_ZONE = "America/Sao_Paulo"
USE_TZ = True
CELERY_TIMEZONE = TIME_ZONE

ROOT_URLCONF = "demo.project.urls"
WSGI_APPLICATION = "demo.project.wsgi.application"
STATIC_URL = "static/"
LOGIN_URL = "admin:login"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
