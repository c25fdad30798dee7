"""``manage.py mailer show``, ``retry``, ``cancel`` and ``release``: single messages, looked at and moved on."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import bulk, mail, outbox
from ..exceptions import InvalidTransition
from ..models import Batch, DeliveryStatus, Event, Message, Retention, State
from ..models.choices import RETRYABLE, WAITING
from ..outbox.search import find
from ..replies import printable_text
from .console import format_date, format_number, progress_bar, say, warn

# So many are listed where several are found.
_LISTED = 20

#: States that each command takes messages from.
_TAKES: Mapping[str, frozenset[State]] = {
    "retry": RETRYABLE - {State.HELD},
    "release": frozenset({State.HELD}),
    "cancel": frozenset(WAITING),
}


def add_show_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``mailer show``."""
    parser.add_argument("which", metavar="ID", help=_("An id, a Message-ID, an address, or the beginning of one."))
    parser.add_argument("--json", action="store_true", dest="as_json", help=_("Write it as one JSON object."))


def add_arguments(parser: ArgumentParser, *, command: str) -> None:
    """The arguments of ``mailer retry``, ``cancel`` and ``release``."""
    parser.add_argument("ids", nargs="*", metavar="ID", help=_("Ids of messages, or Message-IDs."))
    if command == "cancel":
        parser.add_argument("--batch", metavar="ID", help=_("All unsent messages of this batch."))
    else:
        parser.add_argument(
            "--state",
            choices=sorted(_TAKES[command]),
            help=_("All messages in this state, newest first. Combine with --since or --limit."),
        )
        parser.add_argument(
            "--since", type=datetime.fromisoformat, help=_("Only messages that became final since then (ISO 8601).")
        )
        parser.add_argument("--limit", type=int, default=1000, help=_("Most messages (default: %(default)s)."))


# show


def show(command: BaseCommand, options: Mapping[str, Any]) -> None:
    """Show one message, or list those that are found.

    Raises:
        CommandError: none is found.
    """
    found = find(options["which"])
    messages = Message.objects.using(outbox.database()).defer("context", "html", "mime", "alternatives")
    if not found:
        raise CommandError(_("No message is found by %(text)s.") % {"text": options["which"]})
    if len(found) == 1:
        message = messages.select_related("batch").get(pk=found[0])
        if options["as_json"]:
            command.stdout.write(json.dumps(_as_json(message), ensure_ascii=False))
        else:
            for line in _page(message):
                say(command, line)
        return
    listed = messages.filter(pk__in=found[:_LISTED]).order_by("-id")
    if options["as_json"]:
        command.stdout.write(json.dumps([_as_json(message) for message in listed], ensure_ascii=False))
        return
    for message in listed:
        command.stdout.write(f"{message.id}  {format_date(message.created_at)}  {_state(message)}")
        say(command, f"    {', '.join(message.recipients)}")
    if len(found) > _LISTED:
        say(command, _("%(count)s more are not listed.") % {"count": format_number(len(found) - _LISTED)})


def _state(message: Message) -> str:
    state = str(State(message.state).label)
    return f"{state}, {DeliveryStatus(message.delivery).label}" if message.delivery else state


def _page(message: Message) -> Iterator[str]:
    content = message.content
    yield f"{message.id}  {_state(message)}"
    fields: dict[str, str] = {
        _("To"): ", ".join(message.to),
        _("Cc"): ", ".join(message.cc),
        _("Bcc"): ", ".join(message.bcc),
        _("From"): message.from_email,
        _("Subject"): _("(confidential)") if message.sensitive else content.subject,
        _("Template"): content.template,
        "Message-ID": message.message_id,
        _("Campaign"): content.campaign,
        _("Batch"): str(message.batch_id or ""),
        _("Attempts"): format_number(message.attempts),
        _("Next look"): format_date(message.due_at) if message.due_at else "",
        _("Last reply"): message.reply,
        _("Reason"): message.reason,
    }
    if message.pause is not None:
        fields[_("Paused by")] = f"{message.pause} {message.pause.paused_by}".strip()
    width = max(map(len, fields))
    for name, value in fields.items():
        if value:
            yield f"  {name.ljust(width)}  {printable_text(value)}"
    yield ""
    for moment, text in timeline(message):
        yield f"  {format_date(moment)}  {printable_text(text)}"


def timeline(message: Message) -> list[tuple[datetime, str]]:
    """What happened to a message and when, in the language in force, the first first."""
    own = [
        (message.created_at, _("stored")),
        (message.queued_at, _("ready to be sent")),
        (message.sent_at, _("accepted by the mail server")),
        (message.finished_at if message.state != State.SENT else None, str(State(message.state).label)),
        (message.content_dropped_at, _("content dropped")),
    ]
    found = [(moment, text) for moment, text in own if moment is not None]
    for event in message.events.using(outbox.database()).order_by("at", "id"):
        details = " · ".join(filter(None, (event.recipient, event.detail)))
        label = str(Event.Type(event.type).label)
        found.append((event.at, f"{label}: {details}" if details else label))
    return sorted(found, key=lambda entry: entry[0])


def _as_json(message: Message) -> dict[str, Any]:
    content = message.content
    return {
        "id": str(message.id),
        "message_id": message.message_id,
        "state": message.state,
        "delivery": message.delivery,
        "to": message.to,
        "cc": message.cc,
        "bcc": message.bcc,
        "from_email": message.from_email,
        "subject": None if message.sensitive else content.subject,
        "template": content.template,
        "campaign": content.campaign,
        "batch": str(message.batch_id) if message.batch_id else None,
        "attempts": message.attempts,
        "reply": message.reply,
        "reason": message.reason,
        "timeline": [{"at": moment.isoformat(), "text": text} for moment, text in timeline(message)],
    }


# retry, cancel, release


def run(command: BaseCommand, options: Mapping[str, Any], name: str) -> None:
    """Move messages on.

    Raises:
        CommandError: none was named (exit status 2), or some could not be moved on (1).
    """
    if name == "cancel" and options["batch"]:
        _cancel_batch(command, options["batch"])
        return
    keys = [_one(text) for text in options["ids"]]
    if name != "cancel" and options["state"]:
        keys += _in_state(State(options["state"]), options["since"], options["limit"])
    elif not keys:
        raise CommandError(_("Give the ids of messages, or an option that selects them."), returncode=2)
    done, refused = 0, []
    move = _MOVES[name]
    with progress_bar(command, _("Messages"), len(keys)) as moved_on:
        for key in keys:
            try:
                done += move(Message.objects.using(outbox.database()).get(pk=key))
            except (InvalidTransition, Message.DoesNotExist) as error:
                refused.append(f"{key}: {error}")
            moved_on(1)
    for problem in refused[:_LISTED]:
        warn(command, problem)
    texts = {
        "retry": ngettext("%(count)s message is sent again.", "%(count)s messages are sent again.", done),
        "release": ngettext("%(count)s message was released.", "%(count)s messages were released.", done),
        "cancel": ngettext("%(count)s message was cancelled.", "%(count)s messages were cancelled.", done),
    }
    say(command, texts[name] % {"count": format_number(done)}, command.style.SUCCESS)
    if refused:
        text = ngettext(
            "%(count)s message was left as it is.", "%(count)s messages were left as they are.", len(refused)
        )
        raise CommandError(text % {"count": format_number(len(refused))})


def _one(text: str) -> UUID:
    found = find(text)
    if len(found) != 1 or "@" in text and not text.strip("<> ") == _message_id(found[0]):
        raise CommandError(_("%(text)s is not the id of a message.") % {"text": text}, returncode=2)
    return found[0]


def _message_id(key: UUID) -> str:
    return Message.objects.using(outbox.database()).values_list("message_id", flat=True).get(pk=key).strip("<> ")


def _in_state(state: State, since: datetime | None, limit: int) -> Sequence[UUID]:
    # What has nothing left to say cannot be sent again.
    kept = [retention for retention in Retention if retention != Retention.DROPPED]
    ended = Message.objects.using(outbox.database()).filter(state=state, retention__in=kept)
    if since is not None:
        ended = ended.filter(finished_at__gte=since.astimezone())
    return list(ended.order_by("-finished_at").values_list("id", flat=True)[: max(limit, 0)])


def _retry(message: Message) -> bool:
    if message.state == State.HELD:
        raise InvalidTransition(_("It is set aside: look at it with show, and release it."))
    mail.retry(message)
    return True


def _release(message: Message) -> bool:
    if message.state != State.HELD:
        raise InvalidTransition(_("It is not set aside."))
    mail.retry(message)
    return True


def _cancel(message: Message) -> bool:
    if not mail.cancel(message):
        text = _("It is %(state)s, and cannot be cancelled.")
        raise InvalidTransition(text % {"state": State(message.state).label})
    return True


_MOVES: Mapping[str, Callable[[Message], bool]] = {"retry": _retry, "release": _release, "cancel": _cancel}


def _cancel_batch(command: BaseCommand, text: str) -> None:
    try:
        batch = Batch.objects.using(outbox.database()).get(pk=UUID(text))
    except (ValueError, Batch.DoesNotExist):
        raise CommandError(_("There is no batch %(text)s.") % {"text": text}, returncode=2) from None
    count = bulk.cancel(batch)
    text = ngettext("%(count)s message was cancelled.", "%(count)s messages were cancelled.", count)
    say(command, text % {"count": format_number(count)}, command.style.SUCCESS)
