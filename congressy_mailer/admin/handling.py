"""What support may do with a mail: each action with its own permission, each written down.

The rules are those of :mod:`congressy_mailer.mail`; here is who may, where it is offered, and what is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..exceptions import MailerError
from ..models import Message, State
from ..models.choices import RETRYABLE, WAITING
from .viewing import log

#: Messages of a list that are handled at once.
MOST_AT_ONCE = 1000

# In English, as all reasons are stored.
_BY_HAND = "By hand, in the admin"


@dataclass(frozen=True, slots=True)
class Action:
    """Something that may be done with a message."""

    name: str
    #: On its button.
    label: Any
    #: What it does, before it is done.
    help: Any
    #: What is written down.
    done: Any
    #: All of these are needed.
    permissions: tuple[str, ...]
    #: In which states it is offered.
    states: frozenset[State]
    #: Does it; returns whether anything was done.
    run: Callable[[Message], bool]

    def is_allowed(self, request: HttpRequest) -> bool:
        """Whether the user has the permissions."""
        return all(request.user.has_perm(f"congressy_mailer.{name}") for name in self.permissions)

    def is_offered(self, request: HttpRequest, message: Message) -> bool:
        """Whether the user may do it with this message now."""
        return message.state in self.states and self.is_allowed(request)


def _cancel(message: Message) -> bool:
    return message.cancel()


def _retry(message: Message) -> bool:
    message.retry()
    return True


def _resend(message: Message) -> bool:
    message.resend()
    return True


def _suppress(message: Message) -> bool:
    from .. import suppressions

    scope = suppressions.Scope.TRANSACTIONAL if message.transactional else suppressions.Scope.NON_TRANSACTIONAL
    # Each of them, also after the first.
    return sum(suppressions.suppress(one, scope=scope, reason=_BY_HAND) for one in message.recipients) > 0


def _unsuppress(message: Message) -> bool:
    from .. import suppressions

    return sum(suppressions.unsuppress(one) for one in message.recipients) > 0


def _unsuppress_and_send(message: Message) -> bool:
    _unsuppress(message)
    message.retry()
    return True


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "retry", gettext_lazy("Try again"), gettext_lazy("Sends it to recipients without a copy."),
            gettext_lazy("Had it sent again."), ("retry_message",),
            RETRYABLE - {State.HELD}, _retry,
        ),
        Action(
            "release", gettext_lazy("Release"), gettext_lazy("Sends it. If it was sent before, it arrives twice."),
            gettext_lazy("Released it."), ("release_message",), frozenset({State.HELD}), _retry,
        ),
        Action(
            "cancel", gettext_lazy("Cancel"), gettext_lazy("It is not sent."), gettext_lazy("Cancelled it."),
            ("cancel_message",), frozenset(WAITING), _cancel,
        ),
        Action(
            "resend", gettext_lazy("Send once more"), gettext_lazy("Recipients who have it get a second copy."),
            gettext_lazy("Had it sent once more."), ("resend_message",), frozenset({State.SENT}), _resend,
        ),
        Action(
            "unsuppress_and_send", gettext_lazy("Take off the list and send"),
            gettext_lazy("Takes its recipients off the suppression list, whatever put them there, and sends it."),
            gettext_lazy("Took its recipients off the suppression list and had it sent."),
            ("delete_suppression", "retry_message"), frozenset({State.SUPPRESSED}), _unsuppress_and_send,
        ),
        Action(
            "suppress", gettext_lazy("Suppress the recipients"),
            gettext_lazy("They get no more mail of this kind."),
            gettext_lazy("Put its recipients on the suppression list."), ("add_suppression",),
            frozenset(State), _suppress,
        ),
        Action(
            "unsuppress", gettext_lazy("Take the recipients off the suppression list"),
            gettext_lazy("They get mail again, whatever put them there."),
            gettext_lazy("Took its recipients off the suppression list."), ("delete_suppression",),
            frozenset(State), _unsuppress,
        ),
    )
}  # fmt: skip


def offered(request: HttpRequest, message: Message, *, suppressed: bool) -> list[Action]:
    """What the user may do with a message now.

    Args:
        request: whose user it is.
        message: in its present state.
        suppressed: whether one of its recipients is on the suppression list.
    """
    names = set(ACTIONS) - ({"suppress"} if suppressed else {"unsuppress", "unsuppress_and_send"})
    return [action for name, action in ACTIONS.items() if name in names and action.is_offered(request, message)]


def run(request: HttpRequest, action: Action, messages: Iterable[Message]) -> tuple[int, list[str]]:
    """Do it with each of these messages, and write down with which.

    Returns:
        How many it was done with, and what was wrong with others.
    """
    done: list[Message] = []
    problems: list[str] = []
    for message in messages:
        if message.state not in action.states:
            problems.append(_("%(message)s: not in this state.") % {"message": message})
            continue
        try:
            changed = action.run(message)
        except MailerError as error:
            problems.append(str(error))
        else:
            if changed:
                done.append(message)
    if done:
        log(request, done, str(action.done))
    return len(done), problems


def summary(count: int) -> str:
    """The summary of an action on a list of messages."""
    return ngettext("Done with %(count)d message.", "Done with %(count)d messages.", count) % {"count": count}
