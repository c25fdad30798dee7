"""The domains that mail is sent from."""

from __future__ import annotations

from contextlib import suppress

from .. import outbox
from ..conf import default_sender
from ..mime.addresses import bare_address
from ..models import Message

# Of the newest messages.
_LOOKED_AT = 500


def sending_domains() -> list[str]:
    """The domain of the default sender, and those of the newest messages, each once and in ASCII."""
    messages = Message.objects.using(outbox.database()).order_by("-id")
    senders = [default_sender(), *messages.values_list("from_email", flat=True)[:_LOOKED_AT]]
    domains: list[str] = []
    for sender in dict.fromkeys(senders):
        with suppress(ValueError):
            domains.append(bare_address(sender).rpartition("@")[2].lower())
    # Names of this machine alone have no public records.
    return [domain for domain in dict.fromkeys(domains) if "." in domain and not domain.startswith("[")]
