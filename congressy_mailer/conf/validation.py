"""Reading ``CONGRESSY_MAILER`` and checking each of its values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from .settings import ID_OF_LIST, SUPPRESSION_RULES, MailerSettings

_MAY_BE_NONE = {
    "CELERY_APP", "RATE_LIMIT", "MAX_CONNECTIONS", "KEEP_CONTENT", "KEEP_MESSAGES", "SPARKPOST_API_KEY",
    "SUPPRESSION_SYNC", "SITE_URL",
}  # fmt: skip
_CHOICES = {"ON_CRASH": ("resend", "hold"), "SPARKPOST_HEADER": ("auto", "always", "never")}
_SUPPRESSED_MAIL = ("all", "transactional", "non_transactional", None)
_SECRET = re.compile(r"basic [^\s:]+:\S.*|bearer \S+|token \S+")
_names = [setting.name for setting in fields(MailerSettings)]


def _read(given: object) -> MailerSettings:
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER must be a dict, not {type(given).__name__}.")
    for key in given:
        if key not in _names:
            near = get_close_matches(str(key).upper(), _names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(_names)}."
            raise ImproperlyConfigured(f"CONGRESSY_MAILER has an unknown key {key!r}.{hint}")
    for key, value in given.items():
        _check_value(key, value)
    return MailerSettings(**given)


def _check_value(key: str, value: object) -> None:
    default = getattr(_defaults, key)
    if value is None and key in _MAY_BE_NONE:
        return
    if isinstance(default, timedelta):
        if not isinstance(value, timedelta) or value <= timedelta(0):
            raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be a timedelta above zero, not {value!r}.")
    elif isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be a whole number from 1, not {value!r}.")
    elif key in _CHOICES:
        if value not in _CHOICES[key]:
            choices = " or ".join(map(repr, _CHOICES[key]))
            raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be {choices}, not {value!r}.")
    elif key in _CHECKS:
        _CHECKS[key](value)
    elif key == "SPARKPOST_API_KEY":
        if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
            raise ImproperlyConfigured(
                "CONGRESSY_MAILER['SPARKPOST_API_KEY'] must be an API key, as SparkPost shows it."
            )
    elif not (isinstance(value, str) and value):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER[{key!r}] must be a text that is not empty, not {value!r}.")


def _check_rate(value: object) -> None:
    try:
        parse_rate(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['RATE_LIMIT'] must be {error}, not {value!r}.") from None


def _check_transports(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['TRANSPORTS'] must be a dict, not {value!r}.")
    for alias, transport in value.items():
        if not isinstance(transport, Mapping) or not isinstance(transport.get("BACKEND"), str):
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER['TRANSPORTS'][{alias!r}] must be a dict with BACKEND (a dotted path) and, "
                "where the backend needs them, OPTIONS."
            )
        unknown = set(transport) - {"BACKEND", "OPTIONS"}
        if unknown:
            raise ImproperlyConfigured(
                f"CONGRESSY_MAILER['TRANSPORTS'][{alias!r}] has an unknown key {sorted(unknown)[0]!r}: "
                "only BACKEND and OPTIONS are known."
            )


def _check_failover(value: object) -> None:
    if not _is_list_of_text(value):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['FAILOVER'] must be a list of aliases, not {value!r}.")


def _check_secrets(value: object) -> None:
    # Whatever is wrong with it is not repeated.
    if not _is_list_of_text(value) or not all(_SECRET.fullmatch(one) for one in value):  # type: ignore[attr-defined]
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['WEBHOOK_SECRETS'] must be a list of 'basic user:password', 'bearer TOKEN' or "
            "'token SECRET'."
        )


def _check_suppression(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"CONGRESSY_MAILER['SUPPRESSION'] must be a dict, not {value!r}.")
    for rule, what in value.items():
        name = f"CONGRESSY_MAILER['SUPPRESSION'][{rule!r}]"
        if rule not in SUPPRESSION_RULES:
            raise ImproperlyConfigured(f"{name} is not a rule: known are {', '.join(SUPPRESSION_RULES)}.")
        if rule == "soft":
            if what is not None and (not isinstance(what, int) or isinstance(what, bool) or what < 1):
                raise ImproperlyConfigured(f"{name} must be a whole number from 1, or None, not {what!r}.")
        elif what not in _SUPPRESSED_MAIL:
            raise ImproperlyConfigured(
                f"{name} must be 'all', 'transactional', 'non_transactional' or None, not {what!r}."
            )


def _check_site(value: object) -> None:
    try:
        site = urlsplit(value if isinstance(value, str) else "")
        right = site.scheme in ("http", "https") and bool(site.hostname) and not (site.query or site.fragment)
        # A domain of other letters is written in punycode.
        right = right and str(value).isascii() and str(value).isprintable() and " " not in str(value)
    except ValueError:
        right = False
    if not right:
        raise ImproperlyConfigured(
            f"CONGRESSY_MAILER['SITE_URL'] must be a URL such as 'https://www.congressy.com', not {value!r}."
        )


def _check_lists(value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(one, str) and ID_OF_LIST.fullmatch(one) for one in value):
        raise ImproperlyConfigured(
            "CONGRESSY_MAILER['LISTS'] must be a dict of names by ids, and an id at most 64 letters, digits, - and _."
        )
    if len({one.lower() for one in value}) < len(value):
        # Some databases take them for the same.
        raise ImproperlyConfigured("CONGRESSY_MAILER['LISTS'] has two ids that differ only in case.")


def _is_list_of_text(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(one, str) and one for one in value)


_CHECKS: Mapping[str, Callable[[object], None]] = {
    "RATE_LIMIT": _check_rate,
    "TRANSPORTS": _check_transports,
    "FAILOVER": _check_failover,
    "WEBHOOK_SECRETS": _check_secrets,
    "SUPPRESSION": _check_suppression,
    "SITE_URL": _check_site,
    "LISTS": _check_lists,
}

_defaults = MailerSettings()

_PERIODS = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"\s*([1-9][0-9]{0,8})\s*/\s*([smh])\s*", re.ASCII)


@lru_cache(maxsize=16)
def parse_rate(text: str) -> float:
    """Mails per second of a text such as ``"100/s"``, ``"1000/m"`` or ``"20000/h"``.

    Raises:
        ValueError: it is no such text; the message says what it must be.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError('a whole number for each second, minute or hour, such as "100/s", "1000/m" or "20000/h"')
    return int(found[1]) / _PERIODS[found[2]]
