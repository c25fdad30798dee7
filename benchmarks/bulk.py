"""What sending to many costs the caller for each recipient, on PostgreSQL, and what memory it takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .bench import Bench
from .report import Goal, Line, alternate, medians
from .stage import Place
from .systems import OURS, system

_PEER = "post_office"
_SEND_MANY = "cost_of_send_many"
_BULK_CREATE = "Django's bulk_create()"
#: Recipients that make everything ready, and are not measured.
_FEW = 100
_MEGABYTE = 1_000_000
_DELIVERY_SECONDS = 90.0


def measure(bench: Bench) -> None:
    """Measure without workers first, then a worker's memory."""
    place = bench.place("postgresql")
    _callers(bench, place)
    _memory_of_worker(bench, place)


def _callers(bench: Bench, place: Place) -> None:
    memory: dict[tuple[str, int], int] = {}

    def one(key: str, order: str, count: int) -> float:
        # A process of its own for each: what it once had in memory, the system does not forget.
        with place.agent(key) as agent:
            agent.order(order, count=_FEW)
            cost = float(agent.order(order, count=count, seconds=200))
            memory[key + order, count] = agent.order("memory")
            agent.order("clear")
        place.drop_queue(key)
        return cost

    for count, runs in bench.sizes.bulk:
        found = alternate(
            runs,
            {
                OURS: partial(one, OURS, _SEND_MANY, count),
                _PEER: partial(one, _PEER, _SEND_MANY, count),
                _BULK_CREATE: partial(one, OURS, "cost_of_bulk_create", count),
            },
        )
        values = medians(found)
        what = f"Sending to {count:,}, for each recipient"
        goal: Goal | None = Goal("ours", at_most=60.0)
        for key, name in ((_BULK_CREATE, _BULK_CREATE), (_PEER, system(_PEER).name)):
            bench.report.add(Line("bulk", what, values[OURS], name, values[key], "µs", goal, runs=found))
            goal = None

    few, many = bench.sizes.bulk[0][0], bench.sizes.bulk[-1][0]
    more = {key: (memory[key + _SEND_MANY, many] - memory[key + _SEND_MANY, few]) / _MEGABYTE for key in (OURS, _PEER)}
    what = f"Memory of the caller at {many:,}, more than at {few:,}"
    bench.report.add(Line("bulk", what, more[OURS], system(_PEER).name, more[_PEER], "MB", Goal("ours", at_most=30.0)))


def _memory_of_worker(bench: Bench, place: Place) -> None:
    few, many = bench.sizes.memory_of_worker
    sink = bench.stage.sink
    with place.workers(OURS, 2) as workers, place.agent(OURS) as agent:
        workers.wait()
        most = []
        for count in (few, many):
            base = sink.settle()
            agent.order("send_many", first=1, count=count)
            sink.wait_for(base + count, _DELIVERY_SECONDS)
            most.append(max(_most_of_children(pid) for pid in workers.pids))
        sink.settle()
        agent.order("clear")
    what = f"Memory of a worker's process after {many:,}, more than after {few:,}"
    bench.report.add(Line("bulk", what, (most[1] - most[0]) / _MEGABYTE, "", None, "MB", Goal("ours", at_most=30.0)))
    bench.report.note(f"A worker's process had {most[1] / _MEGABYTE:.0f} MB at the most, after {many:,} mails.")


def _most_of_children(process: int) -> int:
    """The most memory that one of a process's own processes has had, in bytes."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    most = []
    for child in children:
        (line,) = (line for line in Path(f"/proc/{child}/status").read_text().splitlines() if line.startswith("VmHWM"))
        most.append(int(line.split()[1]) * 1024)
    return max(most)
