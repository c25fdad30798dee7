"""The mail server that deployed projects send to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost


@pytest.fixture(scope="module")
def smtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSparkPost]:
    with LocalSparkPost(directory=tmp_path_factory.mktemp("mailbox")) as server:
        yield server
