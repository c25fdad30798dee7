"""How long one call keeps its caller, on PostgreSQL and Redis."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from .bench import Bench
from .report import Goal, Line, alternate, medians
from .systems import ALL, OURS, PEERS, system

_INSERT = "an INSERT and a publish by Django and Celery"
_BARE = "the same with ready SQL"


def measure(bench: Bench) -> None:
    """Measure all systems without workers, which would take their part of the processor."""
    place, count = bench.place("postgresql"), bench.sizes.calls
    with ExitStack() as stack:
        agents = {key: stack.enter_context(place.agent(key)) for key in ALL}
        measured = {
            _INSERT: partial(agents[OURS].order, "cost_of_insert_and_publish", count=count),
            _BARE: partial(agents[OURS].order, "cost_of_bare_insert_and_publish", count=count),
            **{key: partial(agent.order, "cost_of_send", first=1, count=count) for key, agent in agents.items()},
        }
        alternate(1, measured)
        runs = alternate(bench.sizes.runs * 2, measured)
        for key, agent in agents.items():
            agent.order("clear")
            place.drop_queue(key)
    found = medians(runs)
    goals = {_INSERT: Goal("ratio", at_most=1.3)}
    for key in (_INSERT, _BARE, *PEERS):
        other = system(key).name if key in PEERS else key
        what = "A call keeps its caller"
        bench.report.add(Line("caller", what, found[OURS], other, found[key], "ms", goals.get(key), runs=runs))
