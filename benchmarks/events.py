"""How fast SparkPost's events are processed, on PostgreSQL, and how long their poster waits for the answer.

The events come in any order, and a fifth of them twice; what they lead to is compared with what the same events lead to
in order and once each.
"""

from __future__ import annotations

from statistics import median

from .bench import Bench
from .report import Goal, Line
from .systems import OURS


def measure(bench: Bench) -> None:
    """Measure one process, from the stored batches to the end."""
    sizes = bench.sizes
    with bench.place("postgresql").agent(OURS) as agent:
        told = agent.order("make_history", events=sizes.events, seconds=300)
        ordered = agent.order("process_in_order", seconds=300)
        mixed = agent.order("process_shuffled", seconds=300)
        same = agent.order("same_end_state", seconds=120)
        answers = agent.order("answer_webhook", events=1000, posts=sizes.posts)
        agent.order("delete_events")
    bench.report.note(
        f"Events: {told['events']:,} of {told['messages']:,} mails, and {told['repeats']:,} of them twice, in batches "
        f"of 1 to 350; in order, and once each, {ordered:,.0f} events a second."
    )
    if not same:
        bench.report.miss("Events in any order have led to another end than in order")
        return
    what = "Events in any order, a fifth of them twice, from stored batches to the end they have in order"
    bench.report.add(Line("events", what, mixed, "", None, "/s", Goal("ours", at_least=2000)))
    what = "A post of 1,000 events is answered, median"
    bench.report.add(Line("events", what, median(answers) * 1000, "", None, "ms", Goal("ours", at_most=50)))
