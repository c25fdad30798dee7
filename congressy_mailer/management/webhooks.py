"""``manage.py mailer sparkpost webhook``: the webhook of SparkPost, registered, looked at and tested."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ..exceptions import SparkPostError
from ..replies import printable_text
from ..sparkpost.webhook_api import Webhooks, check_target, current_secret, own_target, webhooks


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer sparkpost webhook``."""
    actions = parser.add_subparsers(dest="action", required=True, title=_("commands"))
    create = actions.add_parser(
        "create", help=_("Register the event webhook, authenticated with the first entry of WEBHOOK_SECRETS.")
    )
    create.add_argument("url", nargs="?", help=_("URL that SparkPost posts to (default: the one on SITE_URL)."))
    create.add_argument("--name", default="congressy-mailer", help=_("Name for people (default: %(default)s)."))
    create.add_argument("--any-url", action="store_true", help=_("Allow a URL that is not https on port 443."))
    actions.add_parser("list", help=_("List the webhooks of the account."))
    update = actions.add_parser(
        "update", help=_("Update a webhook: authenticate with the first entry of WEBHOOK_SECRETS.")
    )
    update.add_argument("id", help=_("Id of the webhook."))
    update.add_argument("--url", help=_("New URL to post to."))
    update.add_argument("--any-url", action="store_true", help=_("Allow a URL that is not https on port 443."))
    for action, help_text in (
        ("test", _("Have SparkPost post an example to a webhook, and show the answer.")),
        ("delete", _("Delete a webhook.")),
    ):
        actions.add_parser(action, help=help_text).add_argument("id", help=_("Id of the webhook."))


def run(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Do it.

    Raises:
        CommandError: it cannot be done; the text says what SparkPost says.
    """
    try:
        _run(command, webhooks(), options)
    except SparkPostError as error:
        raise CommandError(str(error)) from None


def _run(command: BaseCommand, api: Webhooks, options: Mapping[str, Any]) -> None:
    action = options["action"]
    message = ""
    if action == "create":
        target = options["url"] or own_target()
        _check(target, options)
        key = api.create(options["name"], target, current_secret()).get("id", "")
        message = _("Webhook %(id)s posts to %(target)s.") % {"id": _readable(key), "target": target}
    elif action == "list":
        _list(command, api)
        return
    elif action == "update":
        if options["url"]:
            _check(options["url"], options)
        api.update(options["id"], options["url"], current_secret())
        message = _("Webhook %(id)s authenticates with the first entry of WEBHOOK_SECRETS from now on.") % {
            "id": options["id"]
        }
    elif action == "test":
        answer = api.validate(options["id"]).get("response")
        status = _readable(answer.get("status", "")) if isinstance(answer, dict) else ""
        if status and not status.startswith("2"):
            raise CommandError(_("The webhook has answered %(status)s.") % {"status": status})
        message = _("SparkPost has posted an example, and the webhook has answered that it took it.")
    else:
        api.delete(options["id"])
        message = _("Webhook %(id)s is deleted.") % {"id": options["id"]}
    command.stdout.write(command.style.SUCCESS(message))


def _check(target: str, options: Mapping[str, Any]) -> None:
    if not options["any_url"]:
        check_target(target)


def _list(command: BaseCommand, api: Webhooks) -> None:
    registered = api.list()
    for webhook in registered:
        parts = [_readable(webhook.get(name, "")) for name in ("id", "target", "name", "auth_type")]
        parts += [
            f"{label}: {_readable(webhook[name])}"
            for name, label in (("last_successful", _("last success")), ("last_failure", _("last failure")))
            if webhook.get(name)
        ]
        command.stdout.write("  ".join(parts))
    if not registered:
        command.stdout.write(_("SparkPost has no webhook."))


def _readable(value: object) -> str:
    return printable_text(str(value))
