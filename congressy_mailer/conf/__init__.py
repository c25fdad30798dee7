"""Every setting of ``CONGRESSY_MAILER``: its name, default and meaning, in one dataclass.

``CONGRESSY_EMAIL_SENDER`` and ``CONGRESSY_REPLY_TO`` keep the names they have always had and stand beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerSettings:
    """The values of ``CONGRESSY_MAILER``, checked, with defaults for what the host leaves out."""

    #: Dotted path to the host's Celery app (``"project.celery:app"``). ``None``: ``app`` in the ``celery``
    #: module beside the settings, else the app that Celery takes for the default or current one.
    CELERY_APP: str | None = None
    #: Celery queue of transactional mail and of the sweep.
    QUEUE: str = "mailer"
    #: Celery queue of bulk mail.
    BULK_QUEUE: str = "mailer.bulk"
    #: Longest time that publishing may keep the caller of ``send_mail()`` when the broker does not answer.
    PUBLISH_TIMEOUT: timedelta = timedelta(milliseconds=500)
    #: How long publishing is left alone after the broker failed; doubles with each further failure, up to
    #: a minute. Meanwhile ``send_mail()`` only stores, and the sweep publishes afterwards.
    BREAKER_TIME: timedelta = timedelta(seconds=5)
    #: Most messages in one ``deliver`` task.
    SLICE_SIZE: int = 100
    #: After this time a ``deliver`` task puts what it has not begun back on the queue, so that a worker stops
    #: quickly and one batch does not hold up the rest.
    TIME_SLICE: timedelta = timedelta(seconds=1)
    #: How long a worker may hold a message before another may take it. It must be longer than ``TIME_LIMIT``, and
    #: longer than the longest exchange with the mail server; check ``congressy_mailer.E012`` says how long that is.
    LEASE: timedelta = timedelta(minutes=15)
    #: What becomes of a message whose worker died while holding it: ``"resend"`` sends it (perhaps a second
    #: time), ``"hold"`` sets it aside for a person to decide (never a second time).
    ON_CRASH: Literal["resend", "hold"] = "resend"
    #: A message whose worker died this often while holding it is set aside as ``held``, so that one which makes
    #: workers crash or hang does not stop the others. So is one whose mail server took the content this often and
    #: did not say in time what became of it: it may have arrived each time.
    MAX_CRASHES: int = 3
    #: A ``deliver`` task that takes longer is interrupted, and killed when its ``LEASE`` is over (both under Celery's
    #: prefork pool): a template that never ends holds a worker no longer than this.
    TIME_LIMIT: timedelta = timedelta(minutes=5)
    #: A published message counts as lost by the broker, and is published again, when this time is over and a sweep
    #: that was published later has come through the queue. It leaves room for the tasks that a worker has fetched
    #: and not begun.
    LOST_AFTER: timedelta = timedelta(minutes=1)
    #: How often each worker publishes a sweep, which dispatches whatever is due and not moving.
    SWEEP_INTERVAL: timedelta = timedelta(seconds=15)
    #: How long a message that is refused temporarily is tried again, from the moment it was queued.
    RETRY_FOR: timedelta = timedelta(hours=48)
    #: First step of the exponential backoff between the attempts of one message; never less than 5 seconds
    #: pass (SparkPost, "SMTP and REST API Injection Best Practices").
    RETRY_BACKOFF: timedelta = timedelta(seconds=30)
    #: Longest wait between two attempts of one message.
    RETRY_BACKOFF_MAX: timedelta = timedelta(hours=2)
    #: First step of the backoff while the mail server cannot be used, and the least that is ever waited.
    UNAVAILABLE_BACKOFF: timedelta = timedelta(seconds=5)
    #: Longest time until a mail server that cannot be used is tried again.
    UNAVAILABLE_BACKOFF_MAX: timedelta = timedelta(minutes=10)
    #: Most mails that all workers together hand to one mail backend, spread evenly: ``"100/s"``, ``"1000/m"`` or
    #: ``"20000/h"``. Each alias has a count of its own. ``None``: as fast as it goes. They are counted in the Redis
    #: that is Celery's broker; with another broker each process counts for itself.
    RATE_LIMIT: str | None = None
    #: Most SMTP connections that all workers together have open for one mail backend, each alias for itself, counted
    #: where ``RATE_LIMIT`` is. SparkPost allows 10 ("SMTP and REST API Injection Best Practices"). ``None``: as many as
    #: there are worker processes and threads.
    MAX_CONNECTIONS: int | None = 10
    #: How long the subject, text, context and attachments of a message are kept after its end; ``None``: as long
    #: as the message. What is ``sensitive`` goes as soon as it is sent.
    KEEP_CONTENT: timedelta | None = timedelta(days=30)
    #: How long a message is kept after its end, with its recipients, state and events; ``None``: for ever.
    #: Its ``idempotency_key`` is known for as long.
    KEEP_MESSAGES: timedelta | None = timedelta(days=365)
    #: Most bytes of all attachments of one message together, before encoding. The default leaves room for
    #: Base64 below the 20 MB that SparkPost asks to stay under.
    MAX_ATTACHMENT_BYTES: int = 14_000_000
    #: Alias in ``STORAGES`` where attachments wait for the worker. It must be the same place for the web
    #: processes and the workers, and should not be served to the public.
    ATTACHMENT_STORAGE: str = "default"
    #: Mail backends for ``using=`` on Django before 6.1, in the shape of Django 6.1's ``MAILERS``:
    #: ``{"alias": {"BACKEND": "dotted.path", "OPTIONS": {…}}}``.
    TRANSPORTS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Aliases of mail backends that take over, the first that can be used, while the default one is unavailable, for
    #: mail that names none with ``using=``.
    FAILOVER: Sequence[str] = ()
    #: Whether mail carries SparkPost's ``X-MSYS-API`` header, which its own servers take away again: ``"auto"`` where
    #: the SMTP host is one of SparkPost's, ``"always"`` with every SMTP backend, or ``"never"``.
    SPARKPOST_HEADER: Literal["auto", "always", "never"] = "auto"
    #: SparkPost's API key for what is not sent by SMTP: the HTTP backend, the suppression list, the webhook. ``None``:
    #: none of that is used.
    SPARKPOST_API_KEY: str | None = field(default=None, repr=False)
    #: Host of SparkPost's HTTP API, with its port where it is not 443; ``"api.eu.sparkpost.com"`` for EU accounts.
    SPARKPOST_API_HOST: str = "api.sparkpost.com"
    #: How long SparkPost's HTTP API may take to connect, and may be silent.
    SPARKPOST_API_TIMEOUT: timedelta = timedelta(seconds=30)
    #: What a caller of the webhook has to show, any of these: ``"basic user:password"``, ``"bearer TOKEN"``, or
    #: ``"token SECRET"`` for the old ``X-MessageSystems-Webhook-Token`` header. Several at once while one is replaced
    #: by another. Without any, everybody is refused.
    WEBHOOK_SECRETS: Sequence[str] = field(default=(), repr=False)
    #: Most bytes of one batch of events. SparkPost's have a few hundred kilobytes.
    WEBHOOK_MAX_BYTES: int = 20_000_000
    #: How long it is known which batches of events have come, so that none is processed twice.
    KEEP_WEBHOOKS: timedelta = timedelta(days=7)
    #: What puts an address on the suppression list, and for which mail: ``"hard"``, ``"admin"``, ``"complaint"`` and
    #: ``"unsubscribe"`` each with ``"all"``, ``"transactional"``, ``"non_transactional"`` or ``None``; and ``"soft"``
    #: with a number of soft bounces within 30 days, after which the address counts as a hard bounce, or ``None``. What
    #: is left out stays as it is by default. What a recipient unsubscribes from is that list alone, where it is one.
    SUPPRESSION: Mapping[str, Any] = field(default_factory=dict)
    #: How often the suppression list is brought together with SparkPost's, where there is a ``SPARKPOST_API_KEY``;
    #: ``None``: by command only.
    SUPPRESSION_SYNC: timedelta | None = timedelta(hours=1)
    #: Where the host's site is, such as ``"https://www.congressy.com"``: for links in mails, which workers write.
    #: ``None``: mail has no link to unsubscribe.
    SITE_URL: str | None = None
    #: Lists that a recipient may leave one by one: their ids for ``list_id=`` (letters, digits, - and _), and their
    #: names for people.
    LISTS: Mapping[str, Any] = field(default_factory=dict)


_MAY_BE_NONE = {
    "CELERY_APP", "RATE_LIMIT", "MAX_CONNECTIONS", "KEEP_CONTENT", "KEEP_MESSAGES", "SPARKPOST_API_KEY",
    "SUPPRESSION_SYNC", "SITE_URL",
}  # fmt: skip
_CHOICES = {"ON_CRASH": ("resend", "hold"), "SPARKPOST_HEADER": ("auto", "always", "never")}

#: What puts an address on the suppression list, and for which mail, unless ``SUPPRESSION`` says otherwise.
SUPPRESSION_RULES: Mapping[str, Any] = {
    "hard": "all",
    "admin": "all",
    "complaint": "non_transactional",
    "unsubscribe": "non_transactional",
    "soft": None,
}
_SUPPRESSED_MAIL = ("all", "transactional", "non_transactional", None)
_SECRET = re.compile(r"basic [^\s:]+:\S.*|bearer \S+|token \S+")
#: Those of SparkPost's suppression list (API reference, "Suppression List").
ID_OF_LIST = re.compile(r"[\w-]{1,64}", re.ASCII)
_names = [setting.name for setting in fields(MailerSettings)]
_cached: MailerSettings | None = None


def mailer_settings() -> MailerSettings:
    """The settings in force.

    Raises:
        django.core.exceptions.ImproperlyConfigured: ``CONGRESSY_MAILER`` has an unknown key or a value of
            the wrong type; the message names it and, for a key, the nearest known one.
    """
    global _cached
    if _cached is None:
        _cached = _read(getattr(django_settings, "CONGRESSY_MAILER", {}))
    return _cached


def settings_if_valid() -> MailerSettings | None:
    """The settings in force; ``None`` where they cannot be read, which has a check of its own."""
    try:
        return mailer_settings()
    except ImproperlyConfigured:
        return None


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
    # The rest of that package imports the settings.
    from ..throttling.rates import parse_rate

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


def default_sender() -> str:
    """The sender of mail that names none: ``CONGRESSY_EMAIL_SENDER``, then Django's ``DEFAULT_FROM_EMAIL``."""
    return getattr(django_settings, "CONGRESSY_EMAIL_SENDER", None) or django_settings.DEFAULT_FROM_EMAIL


def default_reply_to() -> list[str]:
    """Where answers go unless the caller says otherwise: ``CONGRESSY_REPLY_TO``, one address or a list of them."""
    configured = getattr(django_settings, "CONGRESSY_REPLY_TO", None)
    if not configured:
        return []
    return [configured] if isinstance(configured, str) else list(configured)


def _forget(*, setting: str, **kwargs: Any) -> None:
    global _cached
    if setting == "CONGRESSY_MAILER":
        _cached = None


setting_changed.connect(_forget, dispatch_uid="congressy_mailer.conf")
