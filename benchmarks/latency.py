"""How long one mail takes from the call to the server's acceptance, alone and behind bulk mail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from testbed.processes import ProcessError

from .agent import Agent, AgentError
from .bench import Bench
from .link import Link, Watch
from .report import Goal, Line, percentile
from .stage import Place
from .systems import ALL, OURS, PEERS, system

_PROCESSES = 2
_WORD = "urgente"
_PAUSE_IDLE = 0.05
#: What one mail may take of the time that it takes the fastest package, which has no outbox.
_GOAL_OF, _IDLE_GOAL = "celery_email", 1.5
_PAUSE_LOADED = 0.2


class _LatencyProbe:
    """Sends single mails, and waits for them."""

    def __init__(self, watch: Watch, agent: Agent) -> None:
        self._watch = watch
        self._agent = agent
        self._last = 0

    def seconds(self, count: int, pause: float, patience: float, *, one_by_one: bool) -> list[float]:
        """From the call to acceptance, for each mail; ``inf`` for one that has not come in time.

        Args:
            count: how many mails.
            pause: seconds between two of them.
            patience: seconds after the last call.
            one_by_one: wait for each before the next.
        """
        began: dict[int, float] = {}
        for _ in range(count):
            self._last += 1
            began[self._last] = self._agent.order("send_urgent", word=_WORD, number=self._last)[0]
            if one_by_one:
                self._wait({self._last}, patience)
            time.sleep(pause)
        self._wait(set(began), patience)
        accepted = self._watch.accepted
        return [accepted.get(number, float("inf")) - at for number, at in began.items()]

    def _wait(self, numbers: set[int], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not numbers <= self._watch.accepted.keys() and time.monotonic() < deadline:
            time.sleep(0.002)


def measure(bench: Bench) -> None:
    """Measure single mails of all systems in turns, and then those behind bulk mail, each system by itself: what is
    queued for one keeps the processors from the others."""
    idle = _idle(bench)
    loaded: dict[str, float] = {}
    for key in idle:
        try:
            with _probe(bench, key) as (place, probe, agent):
                loaded[key] = _loaded(bench, place, key, agent, probe)
        except (AgentError, ProcessError) as error:
            bench.report.miss(f"One mail behind many, {system(key).name}: {error}")
        bench.stage.sink.settle()
    if OURS in idle:
        _report(bench, idle, loaded)


@contextmanager
def _probe(bench: Bench, key: str) -> Iterator[tuple[Place, _LatencyProbe, Agent]]:
    watch = Watch(f"{_WORD}-".encode())
    with Link(bench.stage.sink.port, watch=watch) as link:
        place = bench.place("postgresql").towards(link.port)
        with place.agent(key) as agent:
            yield place, _LatencyProbe(watch, agent), agent


def _idle(bench: Bench) -> dict[str, list[float]]:
    """From the call to acceptance while nothing else is queued, in seconds, for each system that can be measured."""
    sizes = bench.sizes
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        probes: dict[str, _LatencyProbe] = {}
        for key in ALL:
            try:
                with ExitStack() as one:
                    place, probe, _ = one.enter_context(_probe(bench, key))
                    one.enter_context(place.workers(key, _PROCESSES)).wait()
                    probe.seconds(3, _PAUSE_IDLE, sizes.patience, one_by_one=True)
                    stack.push(one.pop_all())
            except (AgentError, ProcessError) as error:
                bench.report.miss(f"From the call to acceptance of one mail, {system(key).name}: {error}")
            else:
                probes[key] = probe
        for _ in range(sizes.idle_mails):
            for key, probe in probes.items():
                found.setdefault(key, []).extend(probe.seconds(1, _PAUSE_IDLE, sizes.patience, one_by_one=True))
    return found


def _report(bench: Bench, idle: dict[str, list[float]], loaded: dict[str, float]) -> None:
    runs = {key: [seconds * 1000 for seconds in found] for key, found in idle.items()}
    for key in [key for key in PEERS if key in idle]:
        what, name = "One mail, nothing else queued, median", system(key).name
        goal = Goal("ratio", at_most=_IDLE_GOAL) if key == _GOAL_OF else None
        both = {one: runs[one] for one in (OURS, key)}
        line = Line("latency", what, median(runs[OURS]), name, median(runs[key]), "ms", goal, runs=both)
        bench.report.add(line)
    peers = [key for key in PEERS if key in loaded] if OURS in loaded else []
    what = f"One mail behind {bench.sizes.queued:,} queued, 95th percentile"
    goal = Goal("ours", at_most=1.5)
    for key in peers:
        # For as long as was waited, where it has not come.
        ours, other = (min(loaded[one], bench.sizes.patience) for one in (OURS, key))
        late, other_late = (loaded[one] == float("inf") for one in (OURS, key))
        line = Line(
            "latency", what, ours, system(key).name, other, "s", goal, ours_at_least=late, other_at_least=other_late
        )
        bench.report.add(line)
        goal = None


def _loaded(bench: Bench, place: Place, key: str, agent: Agent, probe: _LatencyProbe) -> float:
    sizes = bench.sizes
    with place.workers(key, _PROCESSES) as workers:
        workers.wait()
        probe.seconds(3, _PAUSE_IDLE, sizes.patience, one_by_one=True)
        queued = sizes.queued if key == OURS else sizes.queued_with_peers
        agent.order("fill", count=queued, seconds=120)
        loaded = probe.seconds(sizes.urgent_mails, _PAUSE_LOADED, sizes.patience, one_by_one=False)
    # What is left is not waited for.
    place.drop_queue(key)
    agent.order("clear")
    return percentile(loaded, 0.95)
