"""Answers of a mail server at one stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from congressy_mailer.replies import Outcome
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage


def at(stage: Stage, answer: Any) -> Callable[[Exchange], Any]:
    """A script that says this at one stage, and nothing unusual anywhere else."""
    return lambda exchange: answer if exchange.stage is stage else None


def all_accepted(outcomes: list[Outcome]) -> bool:
    """Whether each mail was taken for all its recipients."""
    return all(outcome.accepted and not outcome.deferred and not outcome.rejected for outcome in outcomes)
