"""Signatures for type checkers and editors: an asynchronous call has the arguments of the one that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def with_arguments_of(function: Callable[_P, Any]) -> Callable[[Callable[..., _R]], Callable[_P, _R]]:
    """Decorate a function that passes on all of its arguments; it is left as it is.

    Args:
        function: what it passes them on to.

    Returns:
        The decorator.
    """

    def decorate(decorated: Callable[..., _R]) -> Callable[_P, _R]:
        return decorated

    return decorate
