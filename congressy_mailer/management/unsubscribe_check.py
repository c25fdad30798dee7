"""``manage.py mailer sparkpost verify-unsubscribe``: one real mail, and what came of its ``List-Unsubscribe``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from .. import send_mail
from ..conf import mailer_settings
from ..exceptions import MailerError
from ..models import Message, State
from ..replies import printable_text
from ..unsubscribe.links import unsubscribe_headers
from ..unsubscribe.received import UnsubscribeOffer, read_offer
from .console import say, warn

# A mail has a few hundred kilobytes at most; what is larger is no mail that this command has sent.
_MAX_BYTES = 20_000_000


def add_arguments(parser: ArgumentParser) -> None:
    """What can be said behind ``mailer sparkpost verify-unsubscribe``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "address", nargs="?", metavar=_("ADDRESS"), help=_("A mailbox of yours, to which the mail is sent.")
    )
    what.add_argument(
        "--received",
        metavar=_("FILE"),
        help=_("Source of the received mail, to be checked; - is the standard input."),
    )
    parser.add_argument(
        "--list", dest="list_id", default="", metavar=_("LIST"), help=_("Id in LISTS of the mail's list.")
    )
    parser.add_argument(
        "--using", default="", metavar=_("ALIAS"), help=_("Alias of the mail backend, if not the default one.")
    )


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Send a mail, or read one that was received.

    Raises:
        CommandError: no such mail can be sent; or it does not offer what it must.
    """
    try:
        if options["received"] is None:
            _send(command, options)
        else:
            _report(command, read_offer(_source(options["received"])))
    except MailerError as error:
        raise CommandError(str(error)) from error


def _send(command: BaseCommand, options: Mapping[str, Any]) -> None:
    message = send_mail(
        _("Test of List-Unsubscribe"),
        _(
            "Save the source of this mail as a file, and have it read: "
            "manage.py mailer sparkpost verify-unsubscribe --received FILE"
        ),
        to=options["address"],
        transactional=False,
        list_id=options["list_id"],
        using=options["using"],
    )
    assert isinstance(message, Message)
    if message.state == State.SUPPRESSED:
        raise CommandError(message.reason)
    headers = unsubscribe_headers(message)
    if not headers:
        message.cancel()
        raise CommandError(
            _("The mail has no List-Unsubscribe of ours: SITE_URL or our URLs are missing. See manage.py check.")
        )
    say(command, _("Message %(id)s is on its way to %(address)s.") % {"id": message.id, "address": message.to[0]})
    if mailer_settings().SPARKPOST_UNSUBSCRIBE == "own":
        say(command, _("The received mail must have these headers:"))
        for name, value in headers.items():
            command.stdout.write(f"{name}: {value}")
    else:
        say(
            command,
            _("The received mail must have a List-Unsubscribe of SparkPost's with an https link, and %(post)s.")
            % {"post": "List-Unsubscribe-Post: List-Unsubscribe=One-Click"},
        )
    say(command, _("Save its source as a file, and read it with --received FILE."))


def _source(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read(_MAX_BYTES)
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise CommandError(
            _("%(file)s cannot be read: %(error)s") % {"file": path, "error": error.strerror or error}
        ) from error


def _report(command: BaseCommand, offer: UnsubscribeOffer) -> None:
    for uri in offer.uris:
        command.stdout.write(f"List-Unsubscribe: {printable_text(uri)}")
    if not offer.uris:
        raise CommandError(
            _(
                "The mail has no List-Unsubscribe. SparkPost adds none to transactional mail; is this the source of "
                "the mail that was received?"
            )
        )
    if offer.signed is False:
        warn(command, _("No DKIM signature covers these headers, as RFC 8058 asks: mail programs may ignore them."))
    if offer.own is not None:
        say(
            command,
            _("The link is ours: a click reaches this site, for %(address)s and %(what)s.")
            % {
                "address": offer.own.address,
                "what": offer.own.list_id or _("all mail that is not transactional"),
            },
        )
    elif mailer_settings().SPARKPOST_UNSUBSCRIBE == "own":
        raise CommandError(
            _('The link is not ours, although SPARKPOST_UNSUBSCRIBE is "own": a click does not reach this site.')
        )
    else:
        say(
            command,
            _(
                "The link is not ours; it is probably SparkPost's. A click arrives as an event, list_unsubscribe, and "
                "needs the webhook: manage.py mailer sparkpost webhook list."
            ),
        )
    if not offer.one_click:
        raise CommandError(
            _(
                "Mail programs cannot unsubscribe in one click: there must be an https link, and one header "
                "List-Unsubscribe-Post: List-Unsubscribe=One-Click (RFC 8058). With SparkPost's header, set "
                'CONGRESSY_MAILER["SPARKPOST_UNSUBSCRIBE"] = "own".'
            )
        )
    say(command, _("Mail programs can unsubscribe in one click."), command.style.SUCCESS)
