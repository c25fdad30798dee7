"""The time of a run, divided over its measurements, so that each of them answers on this machine as well.

What a measurement costs is known for one machine (:class:`Cost`). How much slower this one is, :func:`.speed.slowness`
finds out before, and each measurement that has come to its end says it again. Where the time does not reach for all of
it, all that are still to come get the same share of their full sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The smallest share of a measurement's sizes that is planned with; those of ``QUICK`` are the least in any case.
LEAST_SHARE = 0.02

# What a measurement takes differs from run to run: the part of the time that is planned with.
_PLANNED = 0.85
# How much longer than planned a measurement may take, where it takes nothing from the least that others need.
_PATIENCE = 2.5

# What a measurement may show of a machine.
_SLOWEST, _FASTEST = 20.0, 0.2


@dataclass(frozen=True)
class Cost:
    """Seconds that a measurement takes on the machine whose slowness is 1."""

    #: Starting processes and making tables, whatever the sizes are.
    starting: float
    #: Working, with the full sizes.
    working: float
    #: Waiting with the full sizes, which takes as long on any machine.
    waiting: float = 0.0

    def seconds(self, share: float, slowness: float) -> float:
        """How long it takes with a share of the sizes, on a machine that is so many times slower."""
        return slowness * (self.starting + share * self.working) + share * self.waiting


@dataclass(frozen=True)
class Allotment:
    """What one measurement gets."""

    #: After which it is broken off.
    seconds: float
    #: Of the full sizes.
    share: float


class Budget:
    """What is left for the measurements that are still to come."""

    def __init__(self, costs: Mapping[str, Cost], slowness: float) -> None:
        """
        Args:
            costs: of all that are to be measured.
            slowness: how many times slower this machine is.
        """
        self._costs = dict(costs)
        self.slowness = slowness

    def allot(self, name: str, left: float) -> Allotment:
        """Time and sizes of the measurement that comes next.

        Args:
            name: of the measurement.
            left: seconds until the end of the run.
        """
        costs = self._costs.values()
        fixed = sum(cost.seconds(0, self.slowness) for cost in costs)
        growing = sum(cost.seconds(1, self.slowness) for cost in costs) - fixed
        share = min(1.0, max(LEAST_SHARE, (_PLANNED * left - fixed) / growing)) if growing else 1.0
        planned = {key: cost.seconds(share, self.slowness) for key, cost in self._costs.items()}
        # Where not even the least fits, each gets its part of what there is.
        part = left * planned[name] / sum(planned.values())
        least_of_others = sum(
            cost.seconds(LEAST_SHARE, self.slowness) for key, cost in self._costs.items() if key != name
        )
        return Allotment(max(part, min(_PATIENCE * planned[name], left - least_of_others)), share)

    def conclude(self, name: str, share: float, took: float) -> None:
        """A measurement is over.

        Args:
            name: of the measurement.
            share: of its sizes.
            took: seconds that it has taken.
        """
        cost = self._costs.pop(name)
        if share * cost.waiting > cost.starting + share * cost.working:
            # What mostly waits shows the way that it waits for, and nothing of the machine.
            return
        shown = (took - share * cost.waiting) / (cost.starting + share * cost.working)
        shown = min(max(shown, _FASTEST), _SLOWEST)
        # What others still need is thought to be more at once, and less little by little.
        self.slowness = max(shown, (self.slowness + shown) / 2)
