"""Mails per second from the call to the server's acceptance, each with a content of its own, on the loopback."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .bench import Bench
from .report import Goal, Line, alternate, medians
from .sink import NotAcceptedError, Sink
from .stage import MissingServerError, Python
from .systems import ALL, OURS, PEERS, system

_PROCESSES = 2
_SECONDS = 60.0
_FIRST = 100
_GOALS = {"5.2": 2.0, "6.1": 2.5}


def measure(bench: Bench) -> None:
    """Measure all systems with two processes each, on both databases and with all versions of Django."""
    for python in bench.pythons:
        for vendor in ("postgresql", "sqlite"):
            try:
                _measure(bench, python, vendor)
            except MissingServerError as error:
                bench.report.miss(f"From the call to acceptance, {python.django}, {vendor}: {error}")


def _measure(bench: Bench, python: Python, vendor: str) -> None:
    sizes, sink = bench.sizes, bench.stage.sink
    database = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[vendor]
    what = f"Mails per second from the call on, {python.django}, {database}"
    place = bench.place(vendor, python)
    with ExitStack() as stack:
        agents: dict[str, Agent] = {}
        mails: dict[str, int] = {}
        workers = {key: stack.enter_context(place.workers(key, _PROCESSES)) for key in ALL}
        for key in ALL:
            try:
                workers[key].wait()
                agents[key] = stack.enter_context(place.agent(key))
                # The first have templates and connections to make ready.
                _rate(sink, agents[key], _FIRST)
                fitting = round(_rate(sink, agents[key], _FIRST) * sizes.way_seconds)
                mails[key] = min(sizes.way_mails, max(_FIRST, fitting))
            except (AgentError, ProcessError, NotAcceptedError) as error:
                agents.pop(key, None)
                bench.report.miss(f"{what}, {system(key).name}: {error}")
        measured = {key: partial(_rate, sink, agent, mails[key]) for key, agent in agents.items()}
        try:
            runs = alternate(sizes.way_runs, measured)
        except (AgentError, NotAcceptedError) as error:
            bench.report.miss(f"{what}: {error}")
            return
        for agent in agents.values():
            agent.order("clear")
    found = medians(runs)
    peers = {key: found[key] for key in PEERS if key in found}
    if OURS not in found or not peers:
        return
    best = max(peers, key=lambda key: peers[key])
    goal = _GOALS.get(".".join(python.versions["django"].split(".")[:2]))
    for key, value in peers.items():
        aim = Goal("ratio", at_least=goal) if goal and key == best else None
        bench.report.add(Line("end_to_end", what, found[OURS], system(key).name, value, "/s", aim, runs=runs))


def _rate(sink: Sink, agent: Agent, mails: int) -> float:
    base = sink.settle()
    began, _ = agent.order("send_many", first=1, count=mails)
    return float(mails / (sink.wait_for(base + mails, _SECONDS) - began))
