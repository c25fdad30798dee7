"""A client of the local SparkPost, and a place to which it posts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost


@pytest.fixture
def call(local_sparkpost: WholeSparkPost) -> Callable[..., requests.Response]:
    """Plain HTTP, with the right key unless another is given."""

    def ask(method: str, path: str, json: Any = None, *, key: str = "", **options: Any) -> requests.Response:
        headers = {"Authorization": key or local_sparkpost.account.key}
        url = f"https://{local_sparkpost.api.address}/api/v1{path}"
        verify = str(local_sparkpost.certificate.authority)
        return requests.request(method, url, json=json, headers=headers, verify=verify, timeout=10, **options)

    return ask
