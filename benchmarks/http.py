"""Mails per second of one worker over SparkPost's HTTP API far away, beside django-anymail behind a queue."""

from __future__ import annotations

from contextlib import ExitStack

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .api_sink import ApiSink
from .bench import Bench
from .far import ROUND_TRIPS
from .link import Link
from .report import Goal, Line
from .sink import NotAcceptedError
from .systems import OURS, system

_PROCESSES = 2
_SECONDS = 60.0
_QUEUE = "celery_email"
#: Nothing is known of a batch before its first call: that one is smaller than those that follow.
_FIRST = 10


def measure(bench: Bench) -> None:
    """Measure a batch of ours, the peer behind its queue, and the peer's one call for many, made by the caller."""
    sizes = bench.sizes
    with ExitStack() as stack:
        sink = stack.enter_context(ApiSink())
        link = stack.enter_context(Link(sink.api.port, ROUND_TRIPS[0]))
        place = bench.place("postgresql").over_http(link.port, sink)
        rates: dict[str, float] = {}
        for key, mails in ((OURS, sizes.http_mails), (_QUEUE, sizes.http_mails_of_peer)):
            try:
                with ExitStack() as one:
                    one.enter_context(place.workers(key, _PROCESSES)).wait()
                    agent = one.enter_context(place.agent(key))
                    _rate(sink, agent, "send_many", _FIRST)
                    rates[key] = _rate(sink, agent, "send_many", mails)
                    if key == _QUEUE:
                        rates["merged"] = _rate(sink, agent, "send_merged", sizes.http_mails)
                    agent.order("clear")
            except (AgentError, ProcessError, NotAcceptedError) as error:
                bench.report.miss(f"Over HTTP, {system(key).name}: {error}")
    if OURS not in rates:
        return
    what = f"Mails per second over HTTP, {ROUND_TRIPS[0] * 1000:.0f} ms, one worker, a batch of {sizes.http_mails:,}"
    others = {
        _QUEUE: f"django-anymail behind {system(_QUEUE).name}",
        "merged": "django-anymail, one call, SparkPost fills in",
    }
    for key, other in others.items():
        if key in rates:
            goal = Goal("ratio", at_least=5.0) if key == _QUEUE else None
            bench.report.add(Line("http", what, rates[OURS], other, rates[key], "/s", goal))


def _rate(sink: ApiSink, agent: Agent, order: str, mails: int) -> float:
    """Mails per second from the call to the acceptance of the last."""
    base = len(sink.accepted)
    began, _ = agent.order(order, first=1, count=mails, seconds=_SECONDS)
    return float(mails / (sink.wait_for(base + mails, _SECONDS) - began))
