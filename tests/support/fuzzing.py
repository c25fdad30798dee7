"""How long property tests look: briefly in each run of the suite, and ``make fuzz`` for as long as it is told."""

from __future__ import annotations

import os

#: How many times more examples than in the suite.
FACTOR = int(os.environ.get("MAILER_FUZZ", "1"))


def examples(count: int) -> int:
    """How many examples a property is tried with.

    Args:
        count: in the suite, where all tests together have five minutes.
    """
    return count * FACTOR
