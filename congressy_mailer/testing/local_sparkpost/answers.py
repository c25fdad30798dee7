"""What the HTTP API is asked and what it answers (API reference, "API Overview")."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    #: Behind ``/api/v1``, without what is asked for, as it was written.
    path: str
    #: What is asked for, by name.
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body, read.

        Raises:
            ApiError: it is no JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ApiError(400, "invalid params", "1200", "the body is not JSON") from None


@dataclass(frozen=True)
class Answer:
    """What the server says."""

    status: int
    #: Written as JSON; ``None``: nothing is.
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """An answer that says no, in the shape of SparkPost's."""

    def __init__(self, status: int, message: str, code: str = "", description: str = "") -> None:
        super().__init__(message)
        error = {"message": message, "code": code, "description": description}
        self.answer = Answer(status, {"errors": [{key: value for key, value in error.items() if value}]})


#: Asked before anything else, in the server's thread: an answer, ``"hang up"``, or ``None`` to leave it to the rules.
ApiScript = Callable[[Request], Answer | str | None]

#: Wait 1 to 5 seconds, then back off (article "SMTP and REST API Injection Best Practices").
TOO_MANY_REQUESTS = Answer(429, {"errors": [{"message": "Too many requests"}]}, {"Retry-After": "1"})
