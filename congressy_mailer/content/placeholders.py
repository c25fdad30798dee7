"""Templates that show a placeholder for each variable that their context lacks, whichever engine compiled them."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

from django.template.backends.django import Template as DjangoTemplate

#: Stands where recipients read something that differs from one to the next.
PLACEHOLDER = "…"


class _Missing(str):
    """False, as the empty text is which Django has by default: ``|default`` applies, and so do other filters."""

    def __bool__(self) -> bool:
        return False


def with_placeholders(compiled: Any) -> Any:
    """The same template, for a context that lacks some of its variables.

    Conditions and loops see a variable that is missing as they always do: there is none.

    Args:
        compiled: a template of Django's engine or of Jinja2's; of another engine it is returned as it is.
    """
    if isinstance(compiled, DjangoTemplate):
        # Copies: mails are rendered with the original.
        shown = copy(compiled)
        shown.template = copy(compiled.template)
        shown.template.engine = copy(compiled.template.engine)
        shown.template.engine.string_if_invalid = _Missing(PLACEHOLDER)
        return shown
    environment = getattr(compiled.backend, "env", None)
    if environment is None:
        return compiled
    shown = copy(compiled)
    shown.backend = copy(compiled.backend)
    shown.backend.env = _placeholder_environment(environment)
    shown.template = shown.backend.env.get_template(compiled.template.name)
    return shown


@cache
def _placeholder_environment(environment: Any) -> Any:
    """The same Jinja2 environment, with a cache of its own: a template is bound to its environment."""
    # Jinja2 is the host's choice.
    from jinja2 import ChainableUndefined

    class Missing(ChainableUndefined):
        def __str__(self) -> str:
            return PLACEHOLDER

        __html__ = __str__

    return environment.overlay(undefined=Missing, bytecode_cache=None)
