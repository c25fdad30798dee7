"""A mail server that refuses every recipient because no login is configured: the configuration's fault, and no mail's.

SMTP has a code for that (530, RFC 4954 §6), and many servers answer ``554 Relay access denied`` instead, as they do to
a single recipient that they really do not deliver to.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.utils import timezone

from .. import outbox
from ..mime.addresses import domain_of
from ..replies import Outcome, asks_for_login

# Different domains whose recipients are all refused, from which on the words of the refusals do not matter.
_MANY_DOMAINS = 3

# The configuration is read when a worker starts: what an earlier one has sent may have been sent with a login.
_STARTED = timezone.now()


def explains(using: str, refused: Sequence[Outcome]) -> bool:
    """Whether a missing login explains these outcomes, none of them with a recipient that was accepted.

    Args:
        using: alias of the mail backend.
        refused: every mail that the backend was handed in a slice and refused before the content.
    """
    replies = [reply for outcome in refused for reply in outcome.rejected.values()]
    domains = {domain_of(recipient) for outcome in refused for recipient in outcome.rejected}
    alike = all(map(asks_for_login, replies)) or len(domains) >= _MANY_DOMAINS
    return alike and not outbox.has_sent_since(using, _STARTED)
