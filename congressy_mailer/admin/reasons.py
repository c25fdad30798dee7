"""Reasons in the reader's language. They are stored in English, since logs, APIs and whoever searches want one wording.

What a server or a person wrote stays as it is.
"""

from __future__ import annotations

import re

from django.utils.translation import ngettext

from ..models import Suppression
from .left_out import CALL_CAUSES, CALL_ERRORS, CALL_PLACES, find_begun_cause
from .mail_error_texts import MAIL_ERRORS, REWRITTEN
from .reason_texts import CAUSES, COUNTED, ERROR_PLACE, ERROR_WORDS, PROBLEMS, REASONS, REPLIES
from .stored_texts import Finds, Found, Texts

# Of what stands within a reason only as much as a server's words may have is looked through: theirs, and a person's,
# may hold our own a thousand times.
_LONGEST_WITHIN = 1200
# Longer ones are stored without their end.
_LONGEST_KEPT = 990

_CODE = re.compile(r"\d{3} ")
_RECIPIENT = r'(?:[^\s@"]+|"[^"]*")@[^\s@]+: '
_FIRST_RECIPIENT = re.compile(_RECIPIENT)
_NEXT_RECIPIENT = re.compile(f"; (?={_RECIPIENT})")
_DAYS = re.compile(r"(\d+) days?, 0:00:00")


def shown_reason(reason: str) -> str:
    """A stored reason, in the language in force.

    Args:
        reason: of a message, an event, an entry of the suppression list, a mail backend that is unavailable or a batch
            of events that was set aside.
    """
    found = _find(reason)
    return reason if found is None else found.shown


def shown_suppression(why: str) -> str:
    """Why an address is on the suppression list, as an event or a message has it: ``bounce: 550 no such user``."""
    source, _, reason = why.partition(": ")
    if source not in Suppression.Source.values:
        return why
    label = str(Suppression.Source(source).label)
    return f"{label}: {shown_reason(reason)}" if reason else label


def _find(stored: str) -> Found | None:
    if _CODE.match(stored):
        return _find_behind_code(stored)
    if _FIRST_RECIPIENT.match(stored):
        return _find_by_recipient(stored)
    return _find_without_code(stored) or _find_in_place(stored)


def _find_behind_code(stored: str) -> Found | None:
    """Ours in the place of a server's reply; where the server itself has written it, there is a code as well."""
    code, _, words = stored.partition(" ")
    found = _REPLIES.find(words)
    return found and Found(found.length, f"{code} {found.shown}")


def _find_without_code(stored: str) -> Found | None:
    found = _REASONS.find(stored) or _find_error(stored)
    if found is None and len(stored) >= _LONGEST_KEPT:
        return _REASONS.find_beginning(stored)
    return found


def _find_by_recipient(stored: str) -> Found | None:
    """Ours among what was said of each recipient."""
    parts = _NEXT_RECIPIENT.split(stored)
    found = [_find_of_recipient(part) for part in parts]
    shown = "; ".join(part if one is None else one.shown for part, one in zip(parts, found, strict=True))
    return Found(sum(one.length for one in found if one is not None), shown) if any(found) else None


def _find_of_recipient(stored: str) -> Found | None:
    recipient, _, reply = stored.partition(": ")
    find = _find_behind_code if _CODE.match(reply) else _find_without_code
    found = find(reply) if len(reply) <= _LONGEST_WITHIN else None
    return found and Found(found.length, f"{recipient}: {found.shown}")


def _find_in_place(stored: str) -> Found | None:
    """Ours behind what is no address: a mailbox on this host, or the file of a template."""
    place, _, words = stored.partition(": ")
    if " " in place or len(words) > _LONGEST_WITHIN:
        return None
    if (found := _find_of_recipient(stored)) is not None or (found := _find_words(words)) is None:
        return found
    return Found(found.length, f"{place}: {found.shown}")


def _within(find: Finds) -> Finds:
    return lambda value: find(value) if len(value) <= _LONGEST_WITHIN else None


def _find_within(stored: str) -> Found | None:
    """A reason within a reason, which may name any number of recipients."""
    return _find(stored) if len(stored) <= _LONGEST_WITHIN or _FIRST_RECIPIENT.match(stored) else None


def _find_sentence(stored: str) -> Found | None:
    """A reason whose full stop was taken away for what follows it."""
    found = _find_within(stored) or _find_within(f"{stored}.")
    return found and Found(found.length, found.shown.removesuffix("."))


def _find_error(stored: str) -> Found | None:
    """An exception: its type, and its words or where it came from."""
    kind, _, words = stored.partition(": ")
    found = _find_words(words) if kind.isidentifier() else None
    return Found(found.length, f"{kind}: {found.shown}") if found else _ERROR_PLACES.find(stored)


def _find_words(stored: str) -> Found | None:
    return _ERROR_WORDS.find(stored) or CALL_ERRORS.find(stored) or CALL_CAUSES.find(stored)


def _find_cause(stored: str) -> Found | None:
    return _CAUSES.find(stored) or _find_error(stored)


def _find_problem(stored: str) -> Found | None:
    return _PROBLEMS.find(stored) or CALL_CAUSES.find(stored)


def _find_suppressed(stored: str) -> Found | None:
    shown = "; ".join(map(_of_suppressed, stored.split("; ")))
    return Found(0, shown)


def _of_suppressed(text: str) -> str:
    recipient, separator, why = text.partition(": ")
    return f"{recipient}: {shown_suppression(why)}" if separator else text


def _find_duration(stored: str) -> Found | None:
    match = _DAYS.fullmatch(stored)
    if match is None:
        return None
    days = int(match[1])
    return Found(0, ngettext("%(days)d day", "%(days)d days", days) % {"days": days})


def _find_number(stored: str) -> Found | None:
    return Found(0, stored) if stored.isdecimal() else None


def _find_file(stored: str) -> Found | None:
    """The file of a template, and no sentence of a person's."""
    return Found(0, stored) if " " not in stored else None


_REPLIES: Texts = Texts(
    REPLIES,
    values={
        "error": _within(lambda error: _find_error(error)),
        "problem": _find_problem,
        "said": _within(lambda said: _REPLIES.find(said)),
    },
    required={"problem"},
)
_REASONS: Texts = Texts(
    {text: text for text in (*REPLIES, *REASONS)} | COUNTED,
    values={
        "cause": _within(_find_cause),
        "error": _within(_find_error),
        "file": _find_file,
        "line": _find_number,
        "looked_for": CALL_CAUSES.find,
        "problem": _find_problem,
        "recipients": _find_suppressed,
        "refusal": CALL_ERRORS.find,
        "reply": _within(lambda reply: _find(reply) or _find_error(reply)),
        "said": _find_within,
        "sentence": _find_sentence,
        "time": _find_duration,
        "why": _find_within,
    },
    required={"file", "line", "problem"},
    beginnings={"looked_for": find_begun_cause},
)
_PROBLEMS = Texts(PROBLEMS)
_CAUSES = Texts(CAUSES)
_ERROR_WORDS: Texts = Texts(
    REWRITTEN | {text: text for text in (*MAIL_ERRORS, *ERROR_WORDS)},
    values={"where": CALL_PLACES.find, "wrong": lambda wrong: _find_words(wrong)},
)
_ERROR_PLACES = Texts((ERROR_PLACE,), values={"line": _find_number}, required={"line"})
