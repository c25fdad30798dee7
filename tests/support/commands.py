"""``manage.py mailer`` as a person at a terminal has it."""

from __future__ import annotations

from io import StringIO
from typing import NamedTuple

from django.core.management import CommandError, call_command


class Done(NamedTuple):
    """What a command has written, what it has complained about, and its exit status."""

    out: str
    complaint: str
    status: int


def mailer(*arguments: str) -> Done:
    """Run it."""
    out, complaints = StringIO(), StringIO()
    status = 0
    try:
        call_command("mailer", *arguments, stdout=out, stderr=complaints)
    except CommandError as error:
        complaints.write(str(error))
        status = error.returncode
    return Done(out.getvalue(), complaints.getvalue(), status)
