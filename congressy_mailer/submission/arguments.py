"""What callers of :func:`~congressy_mailer.send_mail` give, checked one argument at a time.

Each takes what was given and returns it as it is stored. What is wrong is an
:class:`~congressy_mailer.exceptions.InvalidOption` that names the argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import django
from django.utils import timezone as django_timezone
from django.utils import translation

from ..conf import mailer_settings
from ..conf.tenants import tenants_key
from ..content.values import UNSTORABLE
from ..exceptions import InvalidOption
from ..mime.attachments import media_type
from ..models import Priority
from ..redaction import hiding_content
from ..transports.aliases import storage_alias

#: Octets of all alternatives of a mail together, in UTF-8: an invitation is smaller, and providers cut larger AMP.
MAX_ALTERNATIVES_BYTES = 200_000


def clean_text(text: object, argument: str) -> str:
    """Text, lazy text or ``None`` as the text that is stored."""
    if isinstance(text, bytes | bytearray | memoryview):
        raise InvalidOption(f"{argument} must be text, not {type(text).__name__}: decode it first.")
    content = "" if text is None else str(text)
    match = UNSTORABLE.search(content)
    if match:
        raise InvalidOption(f"{argument} holds {match.group()!r} at position {match.start()}, which no mail can carry.")
    return content


def clean_alternatives(values: object, *, sensitive: bool) -> list[list[str]]:
    """Further forms of a mail as they are stored: each its text and its media type."""
    with hiding_content(sensitive, "alternatives: one is not a pair of text and media type, or not one that may be."):
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable | None):
            raise InvalidOption(f"alternatives must be a list of (text, media type), not {type(values).__name__}.")
        cleaned = [_alternative(value, f"alternatives[{place}]") for place, value in enumerate(values or ())]
        octets = sum(len(text.encode()) for text, _ in cleaned)
        if octets > MAX_ALTERNATIVES_BYTES:
            raise InvalidOption(f"alternatives: {octets:,} bytes together; the most is {MAX_ALTERNATIVES_BYTES:,}.")
        return cleaned


def _alternative(value: object, label: str) -> list[str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidOption(f"{label} must be (text, media type), such as (invitation, 'text/calendar').")
    text, mimetype = clean_text(value[0], label), str(value[1])
    try:
        kind, parameters = media_type(mimetype)
    except ValueError as error:
        raise InvalidOption(f"{label}: {error}.") from None
    if not kind.lower().startswith("text/"):
        raise InvalidOption(f"{label}: {kind!r} is no type of text: give it as an attachment.")
    if kind.lower() in ("text/plain", "text/html"):
        raise InvalidOption(
            f"{label}: give {kind} as {'message' if kind.lower() == 'text/plain' else 'html_message'}=."
        )
    if parameters.get("charset", "utf-8").lower().replace("_", "-") not in ("utf-8", "utf8"):
        raise InvalidOption(f"{label}: it is written in UTF-8, not in {parameters['charset']}.")
    if not text.strip():
        raise InvalidOption(f"{label} is empty.")
    return [text, mimetype]


def clean_bool(value: bool, argument: str) -> bool:
    """``True`` or ``False``, and nothing that Python would take for them."""
    if not isinstance(value, bool):
        raise InvalidOption(f"{argument} must be True or False, not {value!r}.")
    return value


def clean_time(value: datetime | None, argument: str) -> datetime | None:
    """A time with its time zone, which has a name in every other one."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidOption(f"{argument} must be a datetime, not {type(value).__name__}.")
    if django_timezone.is_naive(value):
        raise InvalidOption(f"{argument} has no time zone: {value!r}. Use django.utils.timezone.make_aware().")
    try:
        # A day on either side, so that it has a name in every time zone.
        utc = value.astimezone(UTC)
        _ = utc - timedelta(days=1), utc + timedelta(days=1)
    except OverflowError:
        raise InvalidOption(f"{argument} is beyond the calendar: {value!r}.") from None
    return value


def check_times(send_at: datetime | None, expires_at: datetime | None) -> None:
    """Refuse times between which no mail could ever be sent."""
    if expires_at is None:
        return
    if expires_at <= django_timezone.now():
        raise InvalidOption(f"expires_at is in the past: {expires_at.isoformat()}.")
    if send_at is not None and expires_at <= send_at:
        raise InvalidOption("expires_at is not after send_at: the mail could never be sent.")


def clean_priority(priority: Priority | int) -> Priority:
    """One of the priorities."""
    try:
        return Priority(priority)
    except ValueError:
        known = ", ".join(f"Priority.{one.name}" for one in Priority)
        raise InvalidOption(f"priority={priority!r} is not one of {known}.") from None


def clean_idempotency_key(key: str | None) -> str | None:
    """A key as the database can keep it; that of a tenant of django-tenants is its own."""
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= 200 or UNSTORABLE.search(key):
        raise InvalidOption("idempotency_key must be a text of 1 to 200 characters.")
    stored = tenants_key(key)
    if len(stored) > 200:
        raise InvalidOption(f"idempotency_key must have at most 200 characters with its tenant's schema: {stored!r}.")
    return stored


def clean_language(language: str | None) -> str:
    """A language that Django knows; the active one where none is given."""
    if language is None or language == "":
        return translation.get_language() or ""
    if not isinstance(language, str) or not translation.check_for_language(language):
        raise InvalidOption(f"language={language!r} is not a language that Django knows, such as 'pt-br'.")
    return language


def clean_timezone(value: str | ZoneInfo | None) -> str:
    """Return the zone's IANA name; the active zone's if none is given; empty if that is a fixed offset."""
    if value is None:
        current = django_timezone.get_current_timezone()
        # A fixed offset has no name that could be looked up again.
        return str(current.key) if isinstance(current, ZoneInfo) else ""
    name = value.key if isinstance(value, ZoneInfo) else value
    try:
        return str(ZoneInfo(name).key)
    except (KeyError, ValueError, OSError, TypeError):
        raise InvalidOption(f"timezone={value!r} is not a time zone such as 'America/Sao_Paulo'.") from None


def clean_alias(using: str | None) -> str:
    """Alias of a mail backend that there is; empty for the default one."""
    if not using:
        return ""
    known = set(mailer_settings().TRANSPORTS)
    if django.VERSION >= (6, 1):
        from django.core.mail import mailers

        known |= set(mailers.settings)
    if not isinstance(using, str) or using not in known:
        raise InvalidOption(
            f"using={using!r} is not a mail backend. Known: {', '.join(sorted(known)) or 'none but the default one'}."
        )
    return storage_alias(using)
