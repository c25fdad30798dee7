"""What clients of the local SparkPost ask it, and what it posts."""

from __future__ import annotations

from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost

SENDER = "mail@congressy.net"


def types(server: WholeSparkPost, recipient: str) -> list[str]:
    return [event["type"] for event in server.account.events_of(recipient)]
