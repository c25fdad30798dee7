"""SparkPost's template language, used for two things only: to escape it, and to insert a recipient's own values.

SparkPost looks for ``{{…}}`` in the headers of a mail and in its first text and HTML, after it has decoded them (API
reference, "Transmissions", "Send RFC822 Content", and "Template Language"). A mail may have such braces of its own. A
value of the substitution data is put in as it is: three braces keep it from being escaped, and what looks like the
language in it is not looked at. So whatever must not be read as the language becomes such a value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import commonprefix

#: What the names of all values begin with: they share one space with the host's ``metadata``.
PREFIX = "mailer_v"

#: What may be read as the language, or as a part of it. All braces of a row, so that none is left beside it.
BRACES = re.compile(r"[{}]{2,}")


def placeholder(name: str) -> str:
    """Where the value of that name goes, as it is."""
    return "{{{" + name + "}}}"


class SharedContent:
    """What several mails have in common, and what each has of its own. One mail may be all there are."""

    def __init__(self, count: int = 1) -> None:
        """
        Args:
            count: how many mails there are.
        """
        #: Values that all have.
        self.common_values: dict[str, str] = {}
        #: Values of each mail.
        self.own_values: list[dict[str, str]] = [{} for _ in range(count)]
        self._names: dict[str, str] = {}
        self._count = 0

    def literal(self, text: str) -> str:
        """Text that arrives as it is."""
        return BRACES.sub(lambda braces: self.constant(braces.group()), text) if "{" in text or "}" in text else text

    def constant(self, value: str) -> str:
        """The place of a value that all mails have."""
        name = self._names.get(value)
        if name is None:
            name = self._names[value] = self._new_name()
            self.common_values[name] = value
        return placeholder(name)

    def per_mail(self, values: Sequence[str]) -> str:
        """The place of a value that each mail has of its own.

        Args:
            values: one for each mail, in their order.
        """
        name = self._new_name()
        for own, value in zip(self.own_values, values, strict=True):
            own[name] = value
        return placeholder(name)

    def line(self, lines: Sequence[str]) -> str:
        """One line of all mails: what they begin and end with stays text, and what is between is each one's own.

        Args:
            lines: one for each mail, in their order.
        """
        first = lines[0]
        # Between the least and the greatest are all the others.
        least, greatest = min(lines), max(lines)
        if least == greatest:
            return self.literal(first)
        # No brace may stand beside a placeholder: four in a row could be read in two ways.
        start = commonprefix([least, greatest]).rstrip("{}")
        ends = [line[len(start) :][::-1] for line in lines]
        end = commonprefix([min(ends), max(ends)])[::-1].lstrip("{}")
        values = [line[len(start) : len(line) - len(end)] for line in lines]
        return self.literal(start) + self.per_mail(values) + self.literal(end)

    def text(self, texts: Sequence[str]) -> str:
        """A text of all mails, which have equally many lines.

        Args:
            texts: one for each mail, in their order, with LF line breaks.

        Raises:
            ValueError: one has another number of lines.
        """
        if all(text == texts[0] for text in texts):
            return self.literal(texts[0])
        return "\n".join(map(self.line, zip(*(text.split("\n") for text in texts), strict=True)))

    def _new_name(self) -> str:
        self._count += 1
        return f"{PREFIX}{self._count}"
