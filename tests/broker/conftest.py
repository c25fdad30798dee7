"""Brokers that this process publishes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from testbed.servers.sentinel import RedisUnderSentinel


@pytest.fixture
def publish_to(broker: str, celery_settings: Callable[..., None]) -> Callable[..., None]:
    """Have this process publish to another broker."""

    def change(url: str | list[str], **transport_options: object) -> None:
        celery_settings(
            broker_url=url, broker_write_url=url, broker_read_url=url, broker_transport_options=transport_options
        )

    return change


@pytest.fixture
def under_sentinel(publish_to: Callable[..., None]) -> Iterator[RedisUnderSentinel]:
    """A Redis that another one replaces when it is away."""
    with RedisUnderSentinel() as group:
        publish_to(group.url, **group.transport_options)
        yield group
