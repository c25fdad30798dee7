"""Which scopes an event suppresses, by the setting ``SUPPRESSION``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..conf import SUPPRESSION_RULES, mailer_settings
from ..exceptions import InvalidOption
from ..models import Suppression

Scope = Suppression.Scope
Source = Suppression.Source

#: Within this time so many soft bounces as ``SUPPRESSION["soft"]`` says count as a hard one.
SOFT_BOUNCES_WITHIN = timedelta(days=30)


def scopes_of(scope: Scope | str | None, list_id: str) -> tuple[Scope, ...]:
    """The scopes of an argument: a scope, a list, or neither, which means all mail.

    Raises:
        InvalidOption: there is no such scope, or they do not go together.
    """
    if list_id:
        if scope not in (None, Scope.LIST):
            raise InvalidOption("Give a scope or a list_id, not both: mail of a list is never transactional.")
        return (Scope.LIST,)
    if scope is None:
        return (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL)
    if scope not in (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL):
        raise InvalidOption(f"scope must be 'transactional' or 'non_transactional', not {scope!r}.")
    return (Scope(scope),)


def scopes(rule: str) -> tuple[Scope, ...]:
    """Which mail an address is to get no more, once something has happened to one.

    Args:
        rule: a key of ``SUPPRESSION``, other than ``"soft"``.
    """
    what = _rule(rule)
    if what is None:
        return ()
    return (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL) if what == "all" else (Scope(what),)


def soft_bounce_limit() -> int | None:
    """How many soft bounces count as a hard one; ``None``: they do not."""
    limit: int | None = _rule("soft")
    return limit


def _rule(name: str) -> Any:
    return {**SUPPRESSION_RULES, **mailer_settings().SUPPRESSION}[name]
