"""Mails per second of one worker, started as the README says, to a mail server far away, beside ten bare sockets and
the peers' workers with as many processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .bench import Bench
from .link import Link
from .report import Goal, Line, alternate, medians
from .sink import NotAcceptedError, Sink
from .stage import Place
from .systems import OURS, PEERS, system
from .tls_front import TlsFront

#: In seconds: between São Paulo and the hosts of SparkPost, and where the way is worse.
ROUND_TRIPS = (0.12, 0.18)
#: What SparkPost asks for at most.
_SOCKETS = 10
#: Processes of a worker on two cores, which Celery takes by itself.
_PROCESSES = 2
_SECONDS = 120.0
#: Of the bare sockets: a batch, which opens its connections within the measured time, and mails by calls of their own.
_GOALS = {"batch": 0.82, "singles": 0.72}
#: Of the best peer, in its best configuration.
_OF_THE_BEST_PEER = 5.0
_NAMES = {"batch": "a batch", "singles": "single mails"}
_ORDERS = {"batch": "send_many", "singles": "send_together"}


def measure(bench: Bench) -> None:
    """Measure both ways to send many mails, the limit, and the peers over the first of the two ways."""
    stage = bench.stage
    with ExitStack() as stack:
        front = stack.enter_context(TlsFront(stage.sink.port, stage.directory))
        link = stack.enter_context(Link(front.port, ROUND_TRIPS[0]))
        place = bench.place("postgresql").towards(link.port, front)
        with ExitStack() as ours:
            agent = _ready(ours, bench, place, OURS)
            for round_trip in ROUND_TRIPS:
                link.round_trip = round_trip
                batch = _measure_ours(bench, agent, round_trip)
                if round_trip == ROUND_TRIPS[0]:
                    to_compare = batch
        link.round_trip = ROUND_TRIPS[0]
        _compare_with_peers(bench, place, to_compare)


def _ready(stack: ExitStack, bench: Bench, place: Place, key: str) -> Agent:
    """A system's worker, and a process that calls; the first mail, for which templates are made ready, is sent."""
    workers = stack.enter_context(place.workers(key, _PROCESSES))
    workers.wait()
    agent = stack.enter_context(place.agent(key))
    base = bench.stage.sink.settle()
    agent.order("send_many", first=1, count=1)
    bench.stage.sink.wait_for(base + 1, _SECONDS)
    return agent


def _measure_ours(bench: Bench, agent: Agent, round_trip: float) -> float:
    """Ours beside the limit; returns mails per second of a batch."""
    sizes, sink = bench.sizes, bench.stage.sink
    mails = {"batch": sizes.far_batch, "singles": sizes.far_singles}
    measured: dict[str, Callable[[], float]] = {
        kind: partial(_rate, sink, agent, kind, count) for kind, count in mails.items()
    }
    measured["sockets"] = partial(
        agent.order, "rate_of_sockets", count=sizes.far_mails_of_socket, sockets=_SOCKETS, seconds=_SECONDS
    )
    runs = alternate(sizes.far_runs, measured)
    found = medians(runs)
    for kind, count in mails.items():
        what = f"{_what(round_trip)}, {_NAMES[kind]} ({count})"
        goal = Goal("ratio", at_least=_GOALS[kind])
        other = f"{_SOCKETS} bare sockets"
        bench.report.add(Line("far", what, found[kind], other, found["sockets"], "/s", goal, runs=runs))
    return found["batch"]


def _compare_with_peers(bench: Bench, place: Place, ours: float) -> None:
    mails = bench.sizes.far_mails_of_peers
    rates: dict[str, float] = {}
    for key in PEERS:
        try:
            with ExitStack() as stack:
                rates[key] = _rate(bench.stage.sink, _ready(stack, bench, place, key), "batch", mails)
        except (AgentError, ProcessError, NotAcceptedError) as error:
            bench.report.miss(f"{system(key).name} far away: {error}")
    best = max(rates, key=lambda key: rates[key], default=None)
    for key, rate in rates.items():
        goal = Goal("ratio", at_least=_OF_THE_BEST_PEER) if key == best else None
        bench.report.add(Line("far", f"{_what(ROUND_TRIPS[0])}, a batch", ours, system(key).name, rate, "/s", goal))


def _what(round_trip: float) -> str:
    return f"Mails per second, {round_trip * 1000:.0f} ms, one worker"


def _rate(sink: Sink, agent: Agent, kind: str, mails: int) -> float:
    """Mails per second from the first that is accepted to the last: without what comes before."""
    base = sink.settle()
    times: dict[int, float] = {}
    agent.order(_ORDERS[kind], first=1, count=mails, seconds=_SECONDS)
    sink.wait_for(base + mails, _SECONDS, lambda count, at: times.setdefault(count - base, at))
    times.pop(0, None)
    first = min(times)
    return (mails - first) / (times[mails] - times[first])
