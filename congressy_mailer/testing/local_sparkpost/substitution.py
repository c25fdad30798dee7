"""SparkPost's template language, as far as mails need it (API reference, "Template Language" and "Substitutions").

``{{ name }}`` puts in a value, escaped in HTML; ``{{{ name }}}`` puts it in as it is. A name may go into objects
(``address.name``) and lists, which count from 1 (``items[1]``), and have a default (``name or 'you'``). What has no
value is empty. ``if`` and ``each`` are SparkPost's, too, and not this server's.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{\{(.*?)\}\}\}|\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d+\])*", re.ASCII)
_STEP = re.compile(r"\w+", re.ASCII)
_DEFAULT = re.compile(r"(.+?)\s+or\s+(?:'([^']*)'|\"([^\"]*)\")", re.DOTALL)
_CURLIES = {
    "opening_double_curly()": "{{",
    "closing_double_curly()": "}}",
    "opening_triple_curly()": "{{{",
    "closing_triple_curly()": "}}}",
}
_STATEMENTS = re.compile(r"(if|else|elseif|each|end|for|while|function|return|do)\b")


class SubstitutionError(ValueError):
    """The template cannot be rendered."""


def substitute(template: str, data: Mapping[str, Any], *, in_html: bool = False) -> str:
    """The text with the values in their places. What stands in a value is not substituted again.

    Raises:
        SubstitutionError: there is something between the braces that is no name.
    """

    def value(match: re.Match[str]) -> str:
        raw = match[1] is not None
        inside = (match[1] if raw else match[2]).strip()
        if inside in _CURLIES:
            return _CURLIES[inside]
        text = _as_text(_evaluate(inside, data))
        return text if raw or not in_html else html.escape(text)

    return _PLACEHOLDER.sub(value, template)


def _evaluate(expression: str, data: Mapping[str, Any]) -> Any:
    default = _DEFAULT.fullmatch(expression)
    if default:
        value = _evaluate(default[1], data)
        return value if value not in (None, False) else default[2] or default[3] or ""
    if not _PATH.fullmatch(expression) or _STATEMENTS.match(expression):
        raise SubstitutionError(f"substitution language: {expression[:60]!r} is not understood")
    found: Any = data
    for step in _STEP.findall(expression):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isdigit() and 0 < int(step) <= len(found):
            found = found[int(step) - 1]
        else:
            return None
    return found


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
