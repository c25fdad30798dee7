"""``manage.py mailer send-test``: one real mail, and what becomes of it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from .. import outbox
from ..exceptions import MailerError
from ..mail import send_mail
from ..models import Message, Priority, State
from ..replies import printable_text
from .console import say


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer send-test``."""
    parser.add_argument("address", help=_("Recipient of the test mail."))
    parser.add_argument("--using", metavar=_("ALIAS"), help=_("Alias of the mail backend (default: the default one)."))
    parser.add_argument("--from", dest="from_email", metavar=_("ADDRESS"), help=_("The sender."))
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar=_("SECONDS"),
        help=_("How long to wait for a worker to send it (default: %(default)s)."),
    )


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Send it, and wait.

    Raises:
        CommandError: it cannot be made (exit status 2), or was not sent in time (1).
    """
    try:
        message = send_mail(
            _("A test of your mail"),
            _("This mail was sent with manage.py mailer send-test. Nothing is to be done."),
            options["from_email"], [options["address"]], using=options["using"], priority=Priority.HIGH,
        )  # fmt: skip
    except MailerError as error:
        raise CommandError(str(error), returncode=2) from error
    say(command, _("Stored as %(id)s.") % {"id": message.id})
    began = time.monotonic()
    while _is_open(message) and time.monotonic() - began < options["wait"]:
        time.sleep(0.2)
    seconds = time.monotonic() - began
    if message.state == State.SENT:
        text = _("Accepted after %(seconds).1f s: %(reply)s")
        values = {"seconds": seconds, "reply": printable_text(message.reply)}
        say(command, text % values, command.style.SUCCESS)
        return
    reason = printable_text(message.reason or message.reply)
    values = {"state": State(message.state).label, "seconds": seconds, "reason": reason}
    text = (
        _("After %(seconds).0f s it is %(state)s: %(reason)s")
        if reason
        else _("After %(seconds).0f s it is %(state)s.")
    )
    raise CommandError(text % values + " " + _("See what manage.py mailer doctor says."))


def _is_open(message: Message) -> bool:
    message.refresh_from_db(using=outbox.database(), fields=["state", "reply", "reason"])
    return message.state in (State.QUEUED, State.SENDING, State.DEFERRED)
