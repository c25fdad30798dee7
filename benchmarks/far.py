"""Mails per second of one worker, started as the README says, to a mail server far away, beside ten bare sockets."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from .agent import Agent
from .bench import Bench
from .link import Link
from .report import Goal, Line, alternate, medians
from .sink import Sink
from .systems import OURS
from .tls_front import TlsFront

#: In seconds: between São Paulo and the hosts of SparkPost.
ROUND_TRIP = 0.12
#: What SparkPost asks for at most.
_SOCKETS = 10
#: Processes of a worker on two cores, which Celery takes by itself.
_PROCESSES = 2
_SECONDS = 120.0
#: Of the bare sockets: a batch, which opens its connections within the measured time, and mails by calls of their own.
_GOALS = {"batch": 0.82, "singles": 0.72}
_NAMES = {"batch": "a batch", "singles": "single mails"}
_ORDERS = {"batch": "send_many", "singles": "send_together"}


def measure(bench: Bench) -> None:
    """Measure both ways to send many mails, and the limit."""
    stage, sizes = bench.stage, bench.sizes
    with ExitStack() as stack:
        front = stack.enter_context(TlsFront(stage.sink.port, stage.directory))
        link = stack.enter_context(Link(front.port, ROUND_TRIP))
        place = bench.place("postgresql").towards(link.port, front)
        workers = stack.enter_context(place.workers(OURS, _PROCESSES))
        workers.wait()
        agent = stack.enter_context(place.agent(OURS))
        # The first has templates to make ready.
        base = stage.sink.settle()
        agent.order("send_many", first=1, count=1)
        stage.sink.wait_for(base + 1, _SECONDS)
        mails = {"batch": sizes.far_batch, "singles": sizes.far_singles}
        measured = {kind: partial(_rate, stage.sink, agent, kind, count) for kind, count in mails.items()}
        measured["sockets"] = partial(
            agent.order, "rate_of_sockets", count=sizes.far_mails_of_socket, sockets=_SOCKETS, seconds=_SECONDS
        )
        runs = alternate(sizes.far_runs, measured)
    found = medians(runs)
    for kind, count in mails.items():
        what = f"Mails per second, {ROUND_TRIP * 1000:.0f} ms, one worker, {_NAMES[kind]} ({count})"
        goal = Goal("ratio", at_least=_GOALS[kind])
        other = f"{_SOCKETS} bare sockets"
        bench.report.add(Line("far", what, found[kind], other, found["sockets"], "/s", goal, runs=runs))


def _rate(sink: Sink, agent: Agent, kind: str, mails: int) -> float:
    """Mails per second from the first that is accepted to the last: without what comes before."""
    base = sink.settle()
    times: dict[int, float] = {}
    agent.order(_ORDERS[kind], first=1, count=mails, seconds=_SECONDS)
    sink.wait_for(base + mails, _SECONDS, lambda count, at: times.setdefault(count - base, at))
    times.pop(0, None)
    first = min(times)
    return (mails - first) / (times[mails] - times[first])
