"""A site with the apps of others, all of which send their mail over the queue."""

from __future__ import annotations

from typing import Any

from tests import settings as of_the_tests
from tests.settings import *  # noqa: F403

_QUEUE = "congressy_mailer.backends.EmailBackend"
if smtp := getattr(of_the_tests, "MAILERS", None):
    MAILERS: dict[str, Any] = {"default": {"BACKEND": _QUEUE, "OPTIONS": {"using": "smtp"}}, "smtp": smtp["default"]}
else:
    EMAIL_BACKEND = _QUEUE
ROOT_URLCONF = "tests.third_parties.urls"
LANGUAGE_CODE = "en"

INSTALLED_APPS = [
    *of_the_tests.INSTALLED_APPS,
    "allauth",
    "allauth.account",
    "djoser",
    "rest_framework",
    "rest_framework.authtoken",
    "wagtail.admin",
    "wagtail.users",
    "wagtail.images",
    "wagtail.documents",
    "wagtail.search",
    "wagtail.contrib.forms",
    "wagtail",
    "modelcluster",
    "taggit",
    "treebeard",
    "mailer",
    "post_office",
    "django.contrib.sites",
    "sorl.thumbnail",
    "newsletter",
    "helpdesk",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_email",
    "two_factor",
    "two_factor.plugins.email",
]
MIDDLEWARE = [
    *of_the_tests.MIDDLEWARE, "allauth.account.middleware.AccountMiddleware", "django_otp.middleware.OTPMiddleware",
]  # fmt: skip
SITE_ID = 1
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DEFAULT_FROM_EMAIL = "site@example.com"
SERVER_EMAIL = "server@example.com"

ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_RATE_LIMITS = False

DJOSER = {
    "SEND_ACTIVATION_EMAIL": True,
    "ACTIVATION_URL": "activate/{uid}/{token}",
    "PASSWORD_RESET_CONFIRM_URL": "reset/{uid}/{token}",
    "EMAIL_FRONTEND_DOMAIN": "example.com",
}

WAGTAIL_SITE_NAME = "A site"
WAGTAILADMIN_BASE_URL = "https://example.com"
WAGTAILDOCS_EXTENSIONS = ["pdf"]
# No table of words is needed to send mail.
WAGTAILSEARCH_BACKENDS: dict[str, Any] = {}
# Their tables are made from their models, which takes a tenth of the time. SQLite, on which alone these tests run, has
# nothing against references to tables that are made later.
MIGRATION_MODULES: dict[str, None] = dict.fromkeys([
    "account", "authtoken", "mailer", "post_office", "taggit", "wagtailadmin", "wagtailcore", "wagtaildocs",
    "wagtailforms", "wagtailimages", "wagtailsearch", "wagtailusers", "sites", "thumbnail", "newsletter", "helpdesk",
    "otp_static", "otp_totp", "otp_email",
])  # fmt: skip

# The code in the subject, as many sites have it.
OTP_EMAIL_SUBJECT = "{token} is your code"
HELPDESK_TEAMS_MODE_ENABLED = False
HELPDESK_ACTIVATE_API_ENDPOINT = False
HELPDESK_PUBLIC_TICKET_QUEUE = "help"

NEWSLETTER_THUMBNAIL = "sorl-thumbnail"
NEWSLETTER_USE_HTTPS = True

# Its lock lies in the folder that a process happens to be in.
MAILER_LOCK_PATH = str(of_the_tests.SCRATCH / "django-mailer")

SILENCED_SYSTEM_CHECKS = ["wagtailadmin.W001"]
