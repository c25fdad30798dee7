"""``manage.py mailer doctor``: the whole way of a mail, tried for real, and what to do."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..diagnosis import EXAMINATIONS, Finding, Level
from .console import say

_MARKS = {Level.GOOD: "+", Level.SKIPPED: "-", Level.WARNING: "!", Level.ERROR: "x"}


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer doctor``."""
    parser.add_argument(
        "only", nargs="*", metavar=_("EXAMINATION"), help=_("Ids of the examinations to run (default: all).")
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help=_("Write it as one JSON object."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Examine, and say what was found as it is found.

    Raises:
        CommandError: something is wrong.
    """
    unknown = [name for name in options["only"] if name not in EXAMINATIONS]
    if unknown:
        text = _("There is no examination %(name)s; there are: %(names)s.")
        raise CommandError(text % {"name": unknown[0], "names": ", ".join(EXAMINATIONS)}, returncode=2)
    found: list[Finding] = []
    for name in options["only"] or EXAMINATIONS:
        one = EXAMINATIONS[name]
        if not options["as_json"] and command.stdout.isatty():
            command.stdout.write(f"  {one.title} …", ending="\r")
            command.stdout.flush()
        findings = one.findings()
        found += findings
        if not options["as_json"]:
            _show(command, str(one.title), findings)
    if options["as_json"]:
        command.stdout.write(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    counts = Counter(finding.level for finding in found)
    errors, warnings = counts[Level.ERROR], counts[Level.WARNING]
    if errors:
        text = ngettext("%(count)d thing is wrong.", "%(count)d things are wrong.", errors) % {"count": errors}
        raise CommandError(text)
    if not options["as_json"]:
        text = _("Nothing is wrong.")
        if warnings:
            text = ngettext(
                "Nothing is wrong, and %(count)d thing could be better.",
                "Nothing is wrong, and %(count)d things could be better.",
                warnings,
            ) % {"count": warnings}
        say(command, text, command.style.SUCCESS)


def _show(command: BaseCommand, title: str, findings: list[Finding]) -> None:
    styles = {Level.GOOD: command.style.SUCCESS, Level.WARNING: command.style.WARNING, Level.ERROR: command.style.ERROR}
    worst = max(findings, key=lambda finding: list(_MARKS).index(finding.level)).level
    clear = "\x1b[K" if command.stdout.isatty() else ""
    command.stdout.write(f"{clear}{_MARKS[worst]} {title} [{findings[0].examination}]", styles.get(worst))
    for finding in findings:
        if finding.text:
            say(command, f"    {finding.text}")
        if finding.advice:
            say(command, f"    → {finding.advice}")
