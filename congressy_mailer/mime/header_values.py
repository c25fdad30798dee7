"""Header values as callers give them, checked and brought into the form in which they are stored.

What is accepted here can be written: :mod:`.headers` is asked, so that no mail fails later for a header of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from django.utils import timezone as django_timezone

from ..exceptions import InvalidAddress, InvalidHeader
from .addresses import listed_addresses
from .headers import ONE_ADDRESS_FIELDS, Grammar, further_field, grammar_of
from .phrases import decoded_phrase
from .syntax import BOM, CONTROL, HEADER_NAME, MAX_LINE, MESSAGE_ID, shown

# Headers that come from an argument of their own.
_HEADER_ARGUMENTS = {
    "from": "from_email",
    "to": "to",
    "cc": "cc",
    "bcc": "bcc",
    "reply-to": "reply_to",
    "subject": "subject",
    "x-msys-api": "sparkpost",
}
# Headers that say how the content is built (RFC 2045).
_MIME_HEADERS = {"mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id"}

# What stays together when a header is folded (RFC 5322 §2.2.3): a word with the spaces before it, and the last one with
# those behind it.
_UNFOLDABLE = re.compile(" *[^ ]+(?: *$)?|^ *$")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# RFC 5322 §3.3 and §4.3; the comment names the zone once more.
_DATE_TEXT = re.compile(
    rf"(?:({'|'.join(_DAYS)}),? )?(\d{{1,2}}) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d)(?::(\d\d))? "
    r"([+-]\d{4}|GMT|UTC|UT|[ECMP][SD]T)(?: \([^()]*\))?",
    re.IGNORECASE | re.ASCII,
)
_ZONES = {"GMT": "+0000", "UTC": "+0000", "UT": "+0000"} | {
    f"{name}{kind}T": f"-{hours + (kind == 'S'):02}00"
    for name, hours in (("E", 4), ("C", 5), ("M", 6), ("P", 7))
    for kind in "SD"
}
# RFC 5322 §3.3.
_FIRST_YEAR = 1900


def check_header_text(value: object, label: str, name: str) -> str:
    """A header's value as one line of text, which may be lazy; ``None`` is empty. Byte order marks are left out.

    Args:
        value: what the caller gave.
        label: how to call it in an error.
        name: the header's name.

    Raises:
        InvalidHeader: it is bytes, holds a line break or another control character, or cannot be folded into lines
            that a server takes.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidHeader(f"{label} must be text, not {type(value).__name__}: decode it first.")
    # RFC 5322 §2.2.2: a tab separates words as a blank does.
    text = "" if value is None else str(value).replace("\t", " ").replace(BOM, "")
    if CONTROL.search(text):
        raise InvalidHeader(f"{label} must not hold line breaks or control characters: {shown(text)}.")
    # Anything but ASCII is encoded (RFC 2047), which can be folded everywhere.
    if text.isascii() and len(name) + 2 + max(map(len, _UNFOLDABLE.findall(text)), default=0) > MAX_LINE:
        raise InvalidHeader(
            f"{label} has a word that is too long for a line of a mail, "
            f"which may have {MAX_LINE} characters (RFC 5322)."
        )
    return text


def check_subject(value: object) -> str:
    """A subject, also one that a template has rendered. Blanks at its ends are left out: readers do not show them.

    Raises:
        InvalidHeader: as :func:`check_header_text`.
    """
    return check_header_text(value, "The subject", "Subject").strip()


def normalise_headers(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """Further headers, checked.

    Raises:
        InvalidAddress: a header of addresses, such as ``Sender``, holds something else.
        InvalidHeader: ``headers`` is not a mapping; a name is not a header name (RFC 5322 §3.6.8), belongs to an
            argument of its own, says how the content is built, is the last server's, or is given twice; a value is
            empty, not what its field may hold, or not one that :func:`check_header_text` accepts.
    """
    if headers and not isinstance(headers, Mapping):
        raise InvalidHeader(f"headers must be a dict of values by name, not {type(headers).__name__}.")
    normalised: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            raise InvalidHeader(f"headers: {name!r} is not the name of a mail header.")
        lower = name.lower()
        if lower in _HEADER_ARGUMENTS:
            raise InvalidHeader(f"headers: give {name} as {_HEADER_ARGUMENTS[lower]}=, not as a header.")
        if lower in _MIME_HEADERS:
            raise InvalidHeader(f"headers: {name} follows from the content and cannot be set.")
        if lower == "return-path":
            raise InvalidHeader(f"headers: {name} is written by the last server (RFC 5321 §4.4); give from_email=.")
        if lower in seen:
            raise InvalidHeader(f"headers: {name} is given twice.")
        seen.add(lower)
        normalised[name] = _normalise(name, value)
    return normalised


def _normalise(name: str, value: object) -> str:
    label = f"headers[{name!r}]"
    grammar = grammar_of(name)
    if isinstance(value, datetime):
        value = _date_of(value, label)
    text = check_header_text(value, label, name).strip()
    if not text:
        raise InvalidHeader(f"{label} is empty.")
    if grammar is Grammar.DATE:
        text = _read_date(text, label)
    if grammar is Grammar.MESSAGE_ID and not (MESSAGE_ID.fullmatch(text) and len(text) <= 255):
        raise InvalidHeader(f"{label} must look like <unique@example.com>: {shown(text)}.")
    if grammar is Grammar.ADDRESSES:
        listed = listed_addresses(text, label)
        if len(listed) > 1 and name.lower() in ONE_ADDRESS_FIELDS:
            raise InvalidAddress(f"{label} must be one address: {shown(text)}.")
        text = ", ".join(listed)
    try:
        if grammar is Grammar.PHRASES:
            text = decoded_phrase(text, label)
        further_field(name, text)
    except InvalidAddress as error:
        raise InvalidHeader(str(error)) from None
    except ValueError as error:
        raise InvalidHeader(f"{label} cannot be written: {error}.") from None
    return text


def _date_of(moment: datetime, label: str) -> str:
    """A date as RFC 5322 §3.3 writes it; one without a time zone is in the current one."""
    try:
        aware = django_timezone.make_aware(moment) if django_timezone.is_naive(moment) else moment
        offset = aware.utcoffset() or timedelta(0)
        if offset % timedelta(minutes=1):
            # Local mean time, before there were time zones.
            aware, offset = aware.astimezone(UTC), timedelta(0)
    except (OverflowError, ValueError):
        raise InvalidHeader(f"{label} is beyond the calendar: {moment!r}.") from None
    if aware.year < _FIRST_YEAR:
        raise InvalidHeader(f"{label}: no mail is older than {_FIRST_YEAR} (RFC 5322): {moment!r}.")
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return _written_date(aware, f"{'-' if offset < timedelta(0) else '+'}{hours:02}{minutes:02}")


def _read_date(text: str, label: str) -> str:
    problem = InvalidHeader(
        f"{label} must be a datetime, or a date such as 'Mon, 02 Jan 2006 15:04:05 +0000' (RFC 5322): {shown(text)}."
    )
    found = _DATE_TEXT.fullmatch(" ".join(text.split()))
    if found is None:
        raise problem
    day_name, day, month, year, hour, minute, second, zone = found.groups()
    zone = _ZONES.get(zone.upper(), zone)
    try:
        offset = timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:]))
        moment = datetime(
            int(year), _MONTHS.index(month.title()) + 1, int(day), int(hour), int(minute), int(second or 0),
            tzinfo=timezone(offset),
        )  # fmt: skip
    except ValueError:
        raise problem from None
    if moment.year < _FIRST_YEAR or int(zone[3:]) > 59 or day_name and day_name.title() != _DAYS[moment.weekday()]:
        raise problem
    return _written_date(moment, zone)


def _written_date(moment: datetime, zone: str) -> str:
    # Without strftime(), which may write names in the language of the process.
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} {zone}"
    )
