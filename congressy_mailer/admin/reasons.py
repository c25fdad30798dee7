"""Reasons in the reader's language. They are stored in English, since logs, APIs and whoever searches want one wording.

What a server or a person wrote stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from django.utils.translation import gettext, gettext_noop, ngettext

from ..models import Suppression

_SENTENCES = (
    gettext_noop("It was not sent before its expires_at."),
    gettext_noop("One click in the mail program."),
    gettext_noop("By the link."),
    gettext_noop("Chosen on the page for unsubscribing."),
    gettext_noop("Left everything on the page for unsubscribing."),
    gettext_noop("Its content is not in the storage any more."),
    gettext_noop("An event is nested too deeply to be read."),
)
_IN_DOUBT = " (in doubt: the server may have taken it)"


def shown_reason(reason: str) -> str:
    """A stored reason, in the language in force.

    Args:
        reason: of a message, an event, an entry of the suppression list or a batch of events that was set aside.
    """
    for pattern, words in _PATTERNS:
        if (match := pattern.fullmatch(reason)) is not None:
            return words(match)
    return _sentence(reason)


def shown_suppression(why: str) -> str:
    """Why an address is on the suppression list, as an event or a message has it: ``bounce: 550 no such user``."""
    source, _, reason = why.partition(": ")
    if source not in Suppression.Source.values:
        return why
    label = str(Suppression.Source(source).label)
    return f"{label}: {shown_reason(reason)}" if reason else label


def _sentence(text: str) -> str:
    """A part of a reason, which has no further parts: what servers write may go on for ever."""
    body = text.removesuffix(_IN_DOUBT)
    shown = gettext(body) if body in _SENTENCES else body
    # Apart from the f-string, in which Python before 3.12 shows no call to what collects the texts.
    in_doubt = gettext("(in doubt: the server may have taken it)")
    return shown if body == text else f"{shown} {in_doubt}"


def _suppressed(match: re.Match[str]) -> str:
    return gettext("On the suppression list: %(why)s") % {"why": "; ".join(map(_of_recipient, match[1].split("; ")))}


def _of_recipient(text: str) -> str:
    recipient, separator, why = text.partition(": ")
    return f"{recipient}: {shown_suppression(why)}" if separator else text


def _soft_bounces(match: re.Match[str]) -> str:
    bounces = int(match[1])
    text = ngettext(
        "%(bounces)d soft bounce within %(days)s days", "%(bounces)d soft bounces within %(days)s days", bounces
    )
    return text % {"bounces": bounces, "days": match[2]}


def _given_up(match: re.Match[str]) -> str:
    return gettext("Given up after %(time)s: %(why)s") % {"time": _duration(match[1]), "why": _sentence(match[2])}


def _duration(text: str) -> str:
    """3 days, 0:00:00 in the reader's language."""
    match = re.fullmatch(r"(\d+) days?, 0:00:00", text)
    if match is None:
        return text
    days = int(match[1])
    return ngettext("%(days)d day", "%(days)d days", days) % {"days": days}


def _crashed(match: re.Match[str]) -> str:
    times = int(match[1])
    text = ngettext(
        "It broke its worker %(times)d time: %(why)s", "It broke its worker %(times)d times: %(why)s", times
    )
    return text % {"times": times, "why": match[2]}


def _died(match: re.Match[str]) -> str:
    times = int(match[1])
    text = ngettext(
        "Its worker died %(times)d time while holding it: it may be the cause.",
        "Its worker died %(times)d times while holding it: it may be the cause.",
        times,
    )
    return text % {"times": times}


def _next_try(match: re.Match[str]) -> str:
    next_try = gettext("Next try at %(time)s UTC.") % {"time": match[2]}
    return f"{_sentence(match[1])}. {next_try}"


def _same_of_others(match: re.Match[str]) -> str:
    others = int(match[2])
    text = ngettext("The same holds for %(count)d other event.", "The same holds for %(count)d other events.", others)
    # Apart from the f-string, as above.
    same = text % {"count": others}
    return f"{shown_reason(match[1])} {same}"


def _without_progress(match: re.Match[str]) -> str:
    times = int(match[1])
    text = ngettext(
        "It was begun %(times)d time without progress.", "It was begun %(times)d times without progress.", times
    )
    return text % {"times": times}


def _not_recorded(match: re.Match[str]) -> str:
    return gettext("Event %(key)s cannot be recorded: %(error)s.") % {"key": match[1], "error": match[2]}


def _unreadable(match: re.Match[str]) -> str:
    return gettext("It cannot be read: %(error)s.") % {"error": match[1]}


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"On the suppression list: (.*)", re.DOTALL), _suppressed),
    (re.compile(r"Given up after ((?:\d+ days?, )?\d+:\d\d:\d\d(?:\.\d+)?): (.*)", re.DOTALL), _given_up),
    (re.compile(r"It broke its worker (\d+) times: (.*)", re.DOTALL), _crashed),
    (re.compile(r"Its worker died (\d+) times while holding it: it may be the cause\."), _died),
    (re.compile(r"(.*)\. Next try at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\.", re.DOTALL), _next_try),
    # Batches of events
    (re.compile(r"(.+) The same holds for (\d+) other events\.", re.DOTALL), _same_of_others),
    (re.compile(r"It was begun (\d+) times without progress\."), _without_progress),
    (re.compile(r"Event (\S+) cannot be recorded: (.*)\.", re.DOTALL), _not_recorded),
    (re.compile(r"It cannot be read: (.*)\.", re.DOTALL), _unreadable),
    (re.compile(r"(\d+) soft bounces within (\d+) days"), _soft_bounces),
)
