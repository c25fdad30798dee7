"""Template tags that harm the worker which renders them."""

from __future__ import annotations

import os
import resource
import signal
import time

from django import template

register = template.Library()

_A_LITTLE = 64 * 1024 * 1024


@register.simple_tag
def crash() -> str:
    """End the process as a fault in a C extension would, or the kernel when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@register.simple_tag
def hang() -> str:
    """Never end, and compute meanwhile."""
    while True:
        pass


@register.simple_tag
def stubborn() -> str:
    """Never end, as a call that nobody answers, and shrug off whoever interrupts."""
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: S112
            continue


@register.simple_tag
def hoard() -> str:
    """Use all the memory that the process may have."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _A_LITTLE, limits[1]))
    hoarded = []
    try:
        while True:
            hoarded.append(bytearray(1024 * 1024))
    finally:
        hoarded.clear()
        resource.setrlimit(resource.RLIMIT_AS, limits)
