"""Why a batch has left a recipient out, in the reader's language: the call's errors are stored in English.

Support reads them, and not the author of the call: the argument that an error names first is left out.
"""

from __future__ import annotations

import re

from django.utils.translation import gettext, gettext_noop

_ERRORS = (
    gettext_noop("The address is empty: give one such as ana@example.com."),
    gettext_noop(
        "It is not a mail address: %(text)s. A name that holds one of < > [ ] : ; @ \\ , must stand in quotation marks."
    ),
    gettext_noop("It is not a mail address: %(text)s: %(why)s."),
    gettext_noop("It is not a mail address: %(text)s."),
    gettext_noop("The part before the @ of %(text)s must be ASCII."),
    gettext_noop("%(text)s is longer than %(most)s characters (RFC 5321)."),
    gettext_noop("The name before %(text)s is longer than %(most)s characters."),
    gettext_noop("It is longer than %(most)s characters: %(text)s."),
    gettext_noop("It holds a line break or control character: %(text)s."),
    gettext_noop("It has a quotation mark or parenthesis that is not closed: %(text)s."),
    gettext_noop("It is among the recipients twice, with nothing to tell the two apart."),
)
#: What stands in the stored error in place of the beginning here.
_STORED = {
    "The address is empty: give one such as": r"to(?:\[\d+\])? is empty: give an address such as",
    "The part": r"to(?:\[\d+\])?: the part",
    "The name": r"to(?:\[\d+\])?: the name",
    "%(text)s is longer than": r"to(?:\[\d+\])?: (?P<text>.*) is longer than",
    "It is among": "It is among",
    "It ": r"to(?:\[\d+\])? ",
}
_CAUSES = (
    gettext_noop("the domain has no ASCII form (IDNA 2008)"),
    gettext_noop("the domain must be labels of letters, digits and hyphens"),
    gettext_noop("the domain is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1]"),
    gettext_noop("no domain ends in %(end)s, and an IP address stands in brackets: [192.0.2.1]"),
    gettext_noop("no domain ends in %(end)s"),
    gettext_noop(
        "the domain has no dot. Name %(domain)s in CONGRESSY_MAILER['INTRANET_HOSTS'] if it is a host of your own "
        "network"
    ),
    gettext_noop("the part before the @ is longer than %(most)s characters (RFC 5321)"),
    gettext_noop("the part before the @ looks like an encoded word (RFC 2047)"),
    gettext_noop("the part before the @ is not one that an address can have"),
)
_PLACE = re.compile(r"%\\\((\w+)\\\)s")


def shown_problem(reason: str) -> str:
    """A reason out of a batch's ``problems`` in the language in force; as it is stored where that is not known.

    Args:
        reason: as :func:`congressy_mailer.send_bulk` has stored it.
    """
    for text, pattern in _PATTERNS:
        if (match := pattern.fullmatch(reason)) is not None:
            values = match.groupdict()
            if "why" in values:
                values["why"] = _shown_cause(values["why"])
            return gettext(text) % values
    return reason


def _shown_cause(cause: str) -> str:
    for text, pattern in _CAUSE_PATTERNS:
        if (match := pattern.fullmatch(cause)) is not None:
            return gettext(text) % match.groupdict()
    return cause


def _pattern(text: str) -> re.Pattern[str]:
    """What an error of this kind looks like where it is stored."""
    for beginning, stored in _STORED.items():
        if text.startswith(beginning):
            return re.compile(stored + _any_values(text.removeprefix(beginning)), re.DOTALL)
    return re.compile(_any_values(text), re.DOTALL)


def _any_values(text: str) -> str:
    return _PLACE.sub(r"(?P<\1>.*?)", re.escape(text))


_PATTERNS = tuple((text, _pattern(text)) for text in _ERRORS)
_CAUSE_PATTERNS = tuple((text, _pattern(text)) for text in _CAUSES)
