"""Reading ``CONGRESSY_MAILER`` and checking each of its values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import lru_cache
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from .settings import BACKEND_OPTIONS, LIST_ID, SUPPRESSION_RULES, MailerSettings

_NULLABLE = {
    "CELERY_APP", "RATE_LIMIT", "MAX_CONNECTIONS", "KEEP_CONTENT", "KEEP_MESSAGES", "SPARKPOST_API_KEY",
    "SUPPRESSION_SYNC", "SITE_URL", "REDIRECT", "THROTTLING_GROUP", "JOURNAL_DIRECTORY",
    "METRICS_TOKEN",
}  # fmt: skip
_CHOICES = {"ON_CRASH": ("resend", "hold"), "SPARKPOST_HEADER": ("auto", "always", "never")}
_SUPPRESSION_SCOPES = ("all", "transactional", "non_transactional", None)
_SECRET = re.compile(r"basic [^\s:]+:\S.*|bearer \S+|token \S+")
# A label of a domain (RFC 1035 §2.3.1).
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_KEYS = [setting.name for setting in fields(MailerSettings)]
# What an alias or a key looks like; SparkPost's API keys are longer, and a URL with a password has other signs.
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,29}", re.ASCII)
_PATH = re.compile(r"[^\W\d]\w*(?:[.:][^\W\d]\w*)+")


def describe_type(value: object) -> str:
    """What a wrong value of a setting is, without the value: it may be or hold a password that is in a wrong place."""
    return repr(value) if value is None or value is True or value is False or value == "" else type(value).__name__


def describe_number(value: object) -> str:
    """The same of a setting that is a number or a duration: numbers and durations are shown."""
    return repr(value) if isinstance(value, int | float | timedelta) else describe_type(value)


def quote_name(name: object) -> str:
    """A key or alias from the settings, in quotation marks; only its type if it does not look like one."""
    return repr(name) if isinstance(name, str) and _NAME.fullmatch(name) else f"({describe_type(name)})"


def quote_path(path: object) -> str:
    """A dotted path that cannot be imported, in quotation marks; only its type where it is none."""
    return repr(path) if isinstance(path, str) and _PATH.fullmatch(path) else f"({describe_type(path)})"


def import_problem(path: object, words: str) -> str:
    """Why it cannot be; without the error's words, which repeat the path, where the path is not to be shown."""
    return words if repr(path) == quote_path(path) else "it is not a dotted path"


def read_settings(configured: object) -> MailerSettings:
    if not isinstance(configured, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER must be a dict, not {describe_type(configured)}.")
    for key in configured:
        if key not in _KEYS:
            from difflib import get_close_matches

            near = get_close_matches(str(key).upper(), _KEYS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(_KEYS)}."
            raise ImproperlyConfigured(f"CONGRESSY_MAILER has an unknown key {quote_name(key)}.{hint}")
    for key, value in configured.items():
        _check_value(key, value)
    return MailerSettings(**configured)


def _check_value(key: str, value: object) -> None:
    default = getattr(_DEFAULTS, key)
    if value is None and key in _NULLABLE:
        return
    if isinstance(default, timedelta):
        if not isinstance(value, timedelta) or value <= timedelta(0):
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER[{key!r}] must be a timedelta above zero, not {describe_number(value)}."
            )
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be True or False, not {describe_type(value)}.")
    elif isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER[{key!r}] must be a whole number from 1, not {describe_number(value)}."
            )
    elif key in _CHOICES:
        if value not in _CHOICES[key]:
            choices = " or ".join(map(repr, _CHOICES[key]))
            raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be {choices}.")
    elif key in _CHECKS:
        _CHECKS[key](value)
    elif key == "SPARKPOST_API_KEY":
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
            raise ImproperlyConfigured(
                "CONGRESSY_MAILER['SPARKPOST_API_KEY'] must be an API key, as SparkPost shows it."
            )
    elif key == "METRICS_TOKEN":
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable() and " " not in value):
            raise ImproperlyConfigured("CONGRESSY_MAILER['METRICS_TOKEN'] must be ASCII characters without a space.")
    elif not (isinstance(value, str) and value):
        raise ImproperlyConfigured(
            f"CONGRESSY_MAILER[{key!r}] must be a text that is not empty, not {describe_type(value)}."
        )


def _check_rate(value: object) -> None:
    try:
        parse_rate(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ImproperlyConfigured(
            f"CONGRESSY_MAILER['RATE_LIMIT'] must be {error}, not {describe_number(value)}."
        ) from None


def _check_journal_directory(value: object) -> None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if path != "auto" and not (isinstance(path, str) and os.path.isabs(path) and "\0" not in path):
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['JOURNAL_DIRECTORY'] must be an absolute path, 'auto' or None, not "
            f"{describe_type(value)}."
        )


def _check_transports(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['TRANSPORTS'] must be a dict, not {describe_type(value)}.")
    for alias, transport in value.items():
        if not isinstance(transport, Mapping) or not isinstance(transport.get("BACKEND"), str):
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER['TRANSPORTS'][{quote_name(alias)}] must be a dict with BACKEND (a dotted path) and, "
                "where the backend needs them, OPTIONS."
            )
        unknown = set(transport) - {"BACKEND", "OPTIONS"}
        if unknown:
            key = min(map(quote_name, unknown))
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER['TRANSPORTS'][{quote_name(alias)}] has an unknown key {key}: only BACKEND and "
                "OPTIONS are known."
            )


def _check_backend_options(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['BACKEND_OPTIONS'] must be a dict, not {describe_type(value)}.")
    for name in value:
        if name not in BACKEND_OPTIONS:
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER['BACKEND_OPTIONS'] has an unknown key {quote_name(name)}: known are "
                f"{', '.join(BACKEND_OPTIONS)}."
            )


def _check_redirect(value: object) -> None:
    known = value if isinstance(value, Mapping) and set(value) <= {"to", "allow", "subject"} else {}
    lists = (known.get("to"), known.get("allow", ()))
    prefix = known.get("subject", "")
    valid = bool(lists[0]) and isinstance(prefix, str) and prefix.isprintable()
    if not valid or not all(_is_list_of_text(some) and all("@" in one for one in some or ()) for some in lists):
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['REDIRECT'] must be a dict with 'to', a list of addresses. It may have 'allow', a list "
            "of addresses and of domains such as '@congressy.com', and 'subject', a text."
        )


def _check_interceptors(value: object) -> None:
    if not _is_list_of_text(value):
        raise ImproperlyConfigured(
            f"CONGRESSY_MAILER['INTERCEPTORS'] must be a list of dotted paths, not {describe_type(value)}."
        )


def _check_failover(value: object) -> None:
    if not _is_list_of_text(value):
        raise ImproperlyConfigured(
            f"CONGRESSY_MAILER['FAILOVER'] must be a list of aliases, not {describe_type(value)}."
        )


def _check_secrets(value: object) -> None:
    # The value is not repeated in the error: it may be a secret.
    if not _is_list_of_text(value) or not all(_SECRET.fullmatch(secret) for secret in value):  # type: ignore[attr-defined]
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['WEBHOOK_SECRETS'] must be a list of 'basic user:password', 'bearer TOKEN' or "
            "'token SECRET'."
        )


def _check_suppression(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['SUPPRESSION'] must be a dict, not {describe_type(value)}.")
    for rule, scope in value.items():
        name = f"CONGRESSY_MAILER['SUPPRESSION'][{quote_name(rule)}]"
        if rule not in SUPPRESSION_RULES:
            raise ImproperlyConfigured(f"{name} is not a rule: known are {', '.join(SUPPRESSION_RULES)}.")
        if rule == "soft":
            if scope is not None and (not isinstance(scope, int) or isinstance(scope, bool) or scope < 1):
                raise ImproperlyConfigured(
                    f"{name} must be a whole number from 1, or None, not {describe_number(scope)}."
                )
        elif scope not in _SUPPRESSION_SCOPES:
            raise ImproperlyConfigured(f"{name} must be 'all', 'transactional', 'non_transactional' or None.")


def _check_site(value: object) -> None:
    try:
        site = urlsplit(value if isinstance(value, str) else "")
        valid = site.scheme in ("http", "https") and bool(site.hostname) and not (site.query or site.fragment)
        # A domain of other letters is written in punycode.
        valid = valid and str(value).isascii() and str(value).isprintable() and " " not in str(value)
    except ValueError:
        valid = False
    if not valid:
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['SITE_URL'] must be a URL such as 'https://www.congressy.com', in ASCII and "
            "without '?' and '#'."
        )


def _check_lists(value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and LIST_ID.fullmatch(key) for key in value):
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['LISTS'] must be a dict of names by ids, and an id at most 255 letters, digits, - and "
            "_, with single dots between them."
        )
    if len({key.lower() for key in value}) < len(value):
        # Some databases take them for the same.
        raise ImproperlyConfigured("CONGRESSY_MAILER['LISTS'] has two ids that differ only in case.")


def _check_intranet_hosts(value: object) -> None:
    if not _is_list_of_text(value) or not all(one == "*" or _HOST.fullmatch(one) for one in value):  # type: ignore[attr-defined]
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['INTRANET_HOSTS'] must be a list of names without a dot, of letters, digits and hyphens, "
            "or ['*'] for all such names."
        )


def _check_operators(value: object) -> None:
    if not _is_list_of_text(value) or not all("@" in str(address) for address in value):  # type: ignore[attr-defined]
        raise ImproperlyConfigured("CONGRESSY_MAILER['FAILURE_SUMMARY_TO'] must be a list of addresses.")


def _is_list_of_text(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(item, str) and item for item in value)


_CHECKS: Mapping[str, Callable[[object], None]] = {
    "RATE_LIMIT": _check_rate,
    "JOURNAL_DIRECTORY": _check_journal_directory,
    "TRANSPORTS": _check_transports,
    "BACKEND_OPTIONS": _check_backend_options,
    "INTERCEPTORS": _check_interceptors,
    "REDIRECT": _check_redirect,
    "FAILOVER": _check_failover,
    "FAILURE_SUMMARY_TO": _check_operators,
    "WEBHOOK_SECRETS": _check_secrets,
    "SUPPRESSION": _check_suppression,
    "SITE_URL": _check_site,
    "LISTS": _check_lists,
    "INTRANET_HOSTS": _check_intranet_hosts,
}

_DEFAULTS = MailerSettings()

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"\s*([1-9][0-9]{0,8})\s*/\s*([smh])\s*", re.ASCII)


@lru_cache(maxsize=16)
def parse_rate(text: str) -> float:
    """Mails per second of a text such as ``"100/s"``, ``"1000/m"`` or ``"20000/h"``.

    Raises:
        ValueError: it is no such text; the message says what it must be.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError('a whole number for each second, minute or hour, such as "100/s", "1000/m" or "20000/h"')
    return int(match[1]) / _SECONDS[match[2]]
