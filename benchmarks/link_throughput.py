"""Mails per second on one connection over a long way, with TLS and login."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .bench import Bench
from .link import Link
from .report import Goal, Line, alternate, medians
from .sink import NotAcceptedError, Sink
from .systems import ALL, OURS, PEERS, system
from .tls_front import TlsFront

#: Round trips, in seconds; and the goal over each, of a bare socket.
ROUND_TRIPS = (0.04, 0.12)
_GOALS = {0.04: 0.95, 0.12: 0.97}
#: Of the best peer. The limit itself is four times as fast.
_OF_THE_BEST_PEER = 3.8
_SECONDS = 60.0


def measure(bench: Bench) -> None:
    """Measure all systems with one process and one connection each, and the limits."""
    stage, sizes = bench.stage, bench.sizes
    with ExitStack() as stack:
        front = stack.enter_context(TlsFront(stage.sink.port, stage.directory))
        link = stack.enter_context(Link(front.port, ROUND_TRIPS[0]))
        place = replace(bench.place("postgresql").towards(link.port, front), connections=1)
        agents: dict[str, Agent] = {}
        workers = {key: stack.enter_context(place.workers(key, 1)) for key in ALL}
        for key in ALL:
            try:
                workers[key].wait()
                agent = stack.enter_context(place.agent(key))
                base = stage.sink.settle()
                agent.order("send_many", first=1, count=1)
                stage.sink.wait_for(base + 1, _SECONDS)
                agents[key] = agent
            except (AgentError, ProcessError, NotAcceptedError) as error:
                bench.report.miss(f"{system(key).name} over a long way: {error}")
        if OURS not in agents:
            return
        for round_trip, ours, others in zip(ROUND_TRIPS, sizes.link_mails, sizes.link_mails_of_peers, strict=True):
            link.round_trip = round_trip
            measured: dict[str, Callable[[], float]] = {}
            for key, agent in agents.items():
                measured[key] = partial(_rate, stage.sink, agent, ours if key == OURS else others)
            for limit, mails in (("rate_of_socket", ours), ("rate_of_smtplib", others)):
                measured[limit] = partial(agents[OURS].order, limit, count=mails)
            try:
                runs = alternate(sizes.runs, measured)
            except (AgentError, NotAcceptedError) as error:
                bench.report.miss(f"Mails per second over {round_trip * 1000:.0f} ms: {error}")
                continue
            _report(bench, round_trip, runs)


def _rate(sink: Sink, agent: Agent, mails: int) -> float:
    """Mails per second from the first that is accepted to the last: without what comes before."""
    base = sink.settle()
    times: dict[int, float] = {}
    agent.order("send_many", first=1, count=mails)
    sink.wait_for(base + mails, _SECONDS, lambda count, at: times.setdefault(count - base, at))
    times.pop(0, None)
    first = min(times)
    return (mails - first) / (times[mails] - times[first])


def _report(bench: Bench, round_trip: float, runs: dict[str, list[float]]) -> None:
    found = medians(runs)
    what = f"Mails per second and connection, {round_trip * 1000:.0f} ms, TLS"
    ours = found[OURS]

    def line(other: str, value: float, goal: Goal | None = None) -> None:
        bench.report.add(Line("link_throughput", what, ours, other, value, "/s", goal, runs=runs))

    line("a bare socket", found["rate_of_socket"], Goal("ratio", at_least=_GOALS[round_trip]))
    line("smtplib, connection kept", found["rate_of_smtplib"])
    peers = {key: found[key] for key in PEERS if key in found}
    best = max(peers, key=lambda key: peers[key])
    for key, value in peers.items():
        line(system(key).name, value, Goal("ratio", at_least=_OF_THE_BEST_PEER) if key == best else None)
