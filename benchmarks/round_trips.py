"""How many round trips a further mail costs on a connection that is open: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable

from .agent import Agent
from .bench import Bench
from .link import Link
from .report import Goal, Line
from .tls_front import TlsFront

#: Below the 100 mails that our transport sends over one connection, together.
_FEW, _MANY = 20, 60


def count(link: Link, deliver: Callable[[int], int]) -> float:
    """Round trips for one mail more.

    Args:
        link: the way, which only this sender uses.
        deliver: sends so many mails, over one connection that stays open, and returns how many were accepted.
    """
    turns = []
    # The first opens the connection.
    for number in (1, _FEW, _MANY):
        before = link.turns
        if (accepted := deliver(number)) != number:
            raise RuntimeError(f"{number - accepted} of {number} mails were not accepted.")
        turns.append(link.turns - before)
    return (turns[2] - turns[1]) / (_MANY - _FEW)


def measure(bench: Bench) -> None:
    """Count for ours and for Django's backend."""
    place = bench.place("sqlite")
    with TlsFront(bench.stage.sink.port, place.directory) as front:
        found = []
        for order in ("deliver_ours", "deliver_django"):
            with (
                Link(front.port) as link,
                place.towards(link.port, front).agent("congressy") as agent,
            ):

                def deliver(number: int, agent: Agent = agent, order: str = order) -> int:
                    return int(agent.order(order, count=number))

                found.append(count(link, deliver))
    what = "Round trips for a mail, TLS and login, connection open"
    goal = Goal("ours", at_most=1.0)
    bench.report.add(Line("round_trips", what, found[0], "smtplib", found[1], "", goal))
