"""What an examination is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from django.utils.functional import Promise


class Level(StrEnum):
    """How bad something is."""

    #: Looked at, and nothing is wrong.
    GOOD = "good"
    #: Not looked at: it does not concern this project, or something else has to be mended first.
    SKIPPED = "skipped"
    #: Mail leaves, but slower than it could, or something will go wrong under load or later.
    WARNING = "warning"
    #: Mail does not leave, is not delivered, or is lost to the reader.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    level: Level
    #: What is so, in the language in force.
    text: str
    #: What to do, in the language in force; empty where nothing is to be done.
    advice: str = ""
    #: Id of the examination.
    examination: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """One part of the way of a mail, looked at for real."""

    #: In small letters with dashes; also the name of its section in the documentation.
    id: str
    #: What is looked at, for people.
    title: Promise | str
    look: Callable[[], Iterable[Finding]]

    def findings(self) -> list[Finding]:
        """What it finds, never nothing and never an error."""
        try:
            found = list(self.look())
        except Exception as error:
            from ..replies import error_text

            found = [Finding(Level.ERROR, error_text(error))]
        return [replace(one, examination=self.id) for one in found] or [Finding(Level.GOOD, "", "", self.id)]


#: In the order in which they are made.
EXAMINATIONS: dict[str, Examination] = {}


def examination(
    name: str, title: Promise | str
) -> Callable[[Callable[[], Iterable[Finding]]], Callable[[], Iterable[Finding]]]:
    """Register a function as an examination. Its docstring is its section of the documentation."""

    def register(look: Callable[[], Iterable[Finding]]) -> Callable[[], Iterable[Finding]]:
        EXAMINATIONS[name] = Examination(name, title, look)
        return look

    return register


def good(text: str) -> Finding:
    """Something that is as it should be, and worth telling."""
    return Finding(Level.GOOD, text)


def skipped(text: str) -> Finding:
    """Why nothing was looked at."""
    return Finding(Level.SKIPPED, text)


def warning(text: str, advice: str = "") -> Finding:
    """Something that will go wrong."""
    return Finding(Level.WARNING, text, advice)


def error(text: str, advice: str = "") -> Finding:
    """Something that is wrong."""
    return Finding(Level.ERROR, text, advice)
