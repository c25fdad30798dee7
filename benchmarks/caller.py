"""How long a call keeps its caller: ``send_mail()``, and ``send_bulk()`` for each recipient, on every database."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from .agent import AgentError
from .bench import Bench
from .mails import SHAPES
from .report import Goal, Line, alternate, medians
from .stage import MissingServerError, Place
from .systems import OURS, PEERS, system

_INSERT = "an INSERT and a publish by Django and Celery"
_BARE = "the same with ready SQL"
_BULK_CREATE = "Django's bulk_create()"
_DATABASES = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mysql": "MariaDB"}


def measure(bench: Bench) -> None:
    """Measure without workers, which would take their part of the processor."""
    for vendor, name in _DATABASES.items():
        try:
            measure_on(bench, vendor)
        except (MissingServerError, AgentError) as error:
            bench.report.miss(f"Calls on {name}: {error}")


def measure_on(bench: Bench, vendor: str) -> None:
    """Measure on one database; the others on PostgreSQL, which is enough to see how they compare."""
    place, database = bench.place(vendor), _DATABASES[vendor]
    peers = PEERS if vendor == "postgresql" else ()
    missing = [key for key in peers if key not in place.python.systems]
    for key in missing:
        bench.report.miss(f"A call of {system(key).name}: it is not installed in the environment")
    _single(bench, place, database, [key for key in peers if key not in missing])
    _bulk(bench, place, database)


def _single(bench: Bench, place: Place, database: str, peers: list[str]) -> None:
    count = bench.sizes.calls
    with ExitStack() as stack:
        agents = {key: stack.enter_context(place.agent(key)) for key in (OURS, *peers)}
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
    for key in (_INSERT, _BARE, *peers):
        other = system(key).name if key in PEERS else key
        what = f"A call keeps its caller, {database}"
        bench.report.add(Line("caller", what, found[OURS], other, found[key], "ms", goals.get(key), runs=runs))


def _bulk(bench: Bench, place: Place, database: str) -> None:
    count = bench.sizes.recipients
    processor: dict[str, list[float]] = {shape: [] for shape in SHAPES}

    def bulk(shape: str) -> float:
        taken, own = agent.order("cost_of_bulk", count=count, shape=shape)
        processor[shape].append(own)
        return float(taken)

    with place.agent(OURS) as agent:
        measured = {
            **{shape: partial(bulk, shape) for shape in SHAPES},
            # It takes ten times as long.
            _BULK_CREATE: partial(agent.order, "cost_of_bulk_create", count=count // 10),
        }
        runs = alternate(1 + bench.sizes.runs, measured)
        agent.order("clear")
        place.drop_queue(OURS)
    # What else the machine does falls upon some of these few runs, and makes none of them shorter.
    found, own = ({name: min(values) for name, values in values.items()} for values in (runs, processor))
    for shape in SHAPES:
        what = f"A recipient of send_bulk(), {shape}, {database}"
        goal = Goal("ours", at_most=60.0)
        bench.report.add(Line("caller", what, found[shape], _BULK_CREATE, found[_BULK_CREATE], "µs", goal, runs=runs))
        bench.report.add(Line("caller", f"{what}: the caller's own processor time", own[shape], "", None, "µs"))
