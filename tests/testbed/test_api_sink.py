"""The server that counts what the benchmarks send over HTTP."""

from __future__ import annotations

import http.client
import json

import pytest

from benchmarks.api_sink import ApiSink
from benchmarks.sink import NotAcceptedError


@pytest.mark.once
def test_recipients_are_counted_as_they_are_accepted() -> None:
    with ApiSink() as sink:
        body = json.dumps({"recipients": [{"address": {"email": f"a{number}@example.com"}} for number in range(3)]})
        for path in ("/api/v1/transmissions", "/api/v1/transmissions/"):
            connection = http.client.HTTPSConnection(
                sink.api.host, sink.api.port, context=sink.certificate.client_context(), timeout=20
            )
            connection.request("POST", path, body)
            answer = json.load(connection.getresponse())
            connection.close()
            assert answer["results"]["total_accepted_recipients"] == 3
        assert sink.wait_for(6, 0) == sink.accepted[-1]
        with pytest.raises(NotAcceptedError, match="1 of the mails were not accepted within 0 s"):
            sink.wait_for(7, 0)
