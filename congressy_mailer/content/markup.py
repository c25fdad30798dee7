"""HTML as tags, attributes and text, read as the tokenizer of the HTML standard reads it."""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5

# Possessive throughout: each part matches up to where it ends or fails at once, so the time is proportional to the
# length for broken HTML, too. Quotation marks matter behind "=" only: <p title=it's> is a whole tag.
_ATTRIBUTES = r"""(?: [^=>]++ | =[ \t\n\r\f]*+ (?: "[^"]*+" | '[^']*+' | [^ \t\n\r\f>"'][^ \t\n\r\f>]*+ )?+ )*+"""
_TOKEN = re.compile(
    rf"""
    ( [^<]*+ (?: <(?![a-zA-Z/!?]) [^<]*+ )*+ )
    (?:
      <(?:
          (?P<raw> (?i:style|script|title|iframe|noembed|noframes) ) (?=[ \t\n\r\f/>])
          ( {_ATTRIBUTES} ) (?: > | \Z )
          ( (?: [^<]++ | <(?!/(?i:(?P=raw))[ \t\n\r\f/>]) )*+ )
          (?: </ [^>]*+ (?: > | \Z ) )?+
        | ( /?+ ) ( [a-zA-Z][^ \t\n\r\f/>]*+ ) ( {_ATTRIBUTES} ) (?: > | \Z )
        | !-- (?: -?> | (?: [^-]++ | -(?!-!?>) )*+ (?: --!?> | \Z ) )
        | [!?/] [^>]*+ (?: > | \Z )
      )
    | \Z
    )
    """,
    re.VERBOSE,
)
_ATTRIBUTE = re.compile(
    r"""
    ([^ \t\n\r\f/=>][^ \t\n\r\f/=>]*+)
    (?: [ \t\n\r\f]*+ = [ \t\n\r\f]*+ (?: "([^"]*+)" | '([^']*+)' | ([^ \t\n\r\f>]++) ) )?+
    """,
    re.VERBOSE,
)
_REFERENCE = re.compile(r"&(?:#(?:[0-9]+|[xX][0-9a-fA-F]+);?+|([a-zA-Z][a-zA-Z0-9]*+(?:;|(?!=))))")
# Characters have numbers of up to seven digits; html.unescape() raises ValueError for one of more than 4,300.
_TOO_LONG_NUMBER = re.compile(r"&#(?:0*+[1-9][0-9]{7,}|[xX]0*+[1-9a-fA-F][0-9a-fA-F]{6,});?+")
_LEADING_ZEROS = re.compile(r"(?<=&#)0++(?=[0-9])")


def tokens(html: str) -> list[tuple[str, str, str, str, str, str, str]]:
    """The text and the tags of HTML.

    Comments are left out, Outlook's conditional ones with their content. Of a downlevel-revealed conditional comment,
    ``<![if !mso]>…<![endif]>``, the content stays. A tag that the end of the HTML cuts off counts as whole.

    Returns:
        For each tag or comment: the text before it as it stands in the HTML; name, attributes and content of an
        element whose content is not HTML, such as ``style``, or three times ""; then "/" for an end tag or "", name and
        attributes of any other tag, or three times "".
    """
    return _TOKEN.findall(html)


def attributes_of(tag: str) -> dict[str, str]:
    """The attributes of a tag by their names in lower case; of two with the same name, the first counts.

    Args:
        tag: what stands between the tag's name and ``>``.
    """
    if "=" not in tag:
        return dict.fromkeys(tag.lower().replace("/", " ").split(), "")
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(tag):
        value = double or single or bare
        found.setdefault(name.lower(), _REFERENCE.sub(_in_attribute, value) if "&" in value else value)
    return found


def text_of(source: str) -> str:
    """The text that the characters between two tags stand for."""
    return unescape(_shorten_numbers(source)) if "&" in source else source


def _in_attribute(reference: re.Match[str]) -> str:
    # HTML standard, 13.2.5.73: what looks like a reference, lacks its semicolon and goes on with "=", a letter or a
    # digit is none, so that ?id=1&timestamp=5 stays as it is.
    name = reference[1]
    return text_of(reference[0]) if name is None else html5.get(name, reference[0])


def _shorten_numbers(source: str) -> str:
    return _LEADING_ZEROS.sub("", _TOO_LONG_NUMBER.sub("\ufffd", source)) if "&#" in source else source
