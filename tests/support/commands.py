"""``manage.py mailer`` as a person at a terminal has it."""

from __future__ import annotations

from io import StringIO

from django.core.management import CommandError, call_command


def mailer(*arguments: str) -> tuple[str, str, int]:
    """What it writes, what it complains about, and its exit status."""
    out, complaints = StringIO(), StringIO()
    status = 0
    try:
        call_command("mailer", *arguments, stdout=out, stderr=complaints)
    except CommandError as error:
        complaints.write(str(error))
        status = error.returncode
    return out.getvalue(), complaints.getvalue(), status
