"""What became of the mails after SparkPost had taken them, as its events and the suppression list tell."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import QuerySet

from congressy_mailer import suppressions
from congressy_mailer.models import Message, RecipientStatus, State, Suppression

from .visitors import BOUNCING, COMPLAINING, READER

Arrival = RecipientStatus.Arrival


def outcomes() -> Mapping[str, int]:
    """How many recipients of a mail it is true of; of what is suppressed, how many mails did not leave."""
    known = RecipientStatus.objects
    return {
        "delivered": known.filter(arrival=Arrival.DELIVERED).count(),
        "bounced": known.filter(arrival=Arrival.BOUNCED).count(),
        "opened": known.exclude(opened_at=None).count(),
        "clicked": known.exclude(clicked_at=None).count(),
        "complained": known.exclude(complained_at=None).count(),
        "unsubscribed": unsubscribed_from_news().count(),
        "suppressed": Message.objects.filter(state=State.SUPPRESSED).count(),
    }


def suppressed_by_bounce() -> bool:
    """Whether the bounce has put its address on the suppression list."""
    return suppressions.active().filter(address=BOUNCING, source=Suppression.Source.BOUNCE).exists()


def unsubscribed_from_news() -> QuerySet[Suppression]:
    """Whoever has left the news in one click."""
    return suppressions.active().filter(list_id="novidades", source=Suppression.Source.UNSUBSCRIBE)


def missing() -> list[str]:
    """What should have happened and has not (yet), for people."""
    known = RecipientStatus.objects
    expected = {
        "a mail was delivered": known.filter(arrival=Arrival.DELIVERED).exists(),
        f"{BOUNCING} bounced": known.filter(recipient=BOUNCING, arrival=Arrival.BOUNCED).exists(),
        f"{BOUNCING} is suppressed": suppressed_by_bounce(),
        f"{COMPLAINING} complained": known.filter(recipient=COMPLAINING).exclude(complained_at=None).exists(),
        f"{READER} opened the news": known.filter(recipient=READER).exclude(opened_at=None).exists(),
        f"{READER} followed a link": known.filter(recipient=READER).exclude(clicked_at=None).exists(),
        f"{READER} unsubscribed": unsubscribed_from_news().filter(address=READER).exists(),
        f"no news was sent to {BOUNCING}": Message.objects.filter(to=[BOUNCING], state=State.SUPPRESSED).exists(),
    }
    return [what for what, happened in expected.items() if not happened]
