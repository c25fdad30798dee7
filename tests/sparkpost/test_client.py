"""SparkPost's HTTP API as the client finds it: answers, refusals, and none at all."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from datetime import timedelta
from typing import Any

import pytest

from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.sparkpost.client import api_client
from tests.support.scripted_https import Answer, ScriptedHttps

KEY = "an-api-key-of-sparkpost"


def ask() -> object:
    return api_client().suppression_list.get("ana@example.com")


def refused() -> SparkPostError:
    with pytest.raises(SparkPostError) as raised:
        ask()
    return raised.value


def test_what_is_in_results_is_returned_and_the_connection_kept(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(body={"results": [{"recipient": "ana@example.com"}]})
    for _ in range(3):
        assert ask() == [{"recipient": "ana@example.com"}]
    assert sparkpost_api.connections == 1
    assert {request.headers["Authorization"] for request in sparkpost_api.requests} == {KEY}


def test_a_refusal_has_status_codes_and_what_was_said(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(
        429, {"errors": [{"message": "Too many requests", "code": "1902"}]}, {"Retry-After": "7"}
    )
    error = refused()
    assert (error.status, error.codes, error.retry_after, error.in_doubt) == (429, ("1902",), 7.0, False)
    assert "Too many requests" in str(error)


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"", b"\xff\xfe", b'["a list"]', b'{"errors": 7}'])
def test_an_answer_that_is_no_json_of_sparkposts_is_a_refusal_too(sparkpost_api: ScriptedHttps, body: bytes) -> None:
    sparkpost_api.script = lambda request: Answer(502, body)
    assert refused().status == 502


def test_no_answer_leaves_it_in_doubt(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: None
    error = refused()
    assert error.status is None
    assert error.in_doubt


def test_a_silent_server_is_not_waited_for_without_end(sparkpost_api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_API_TIMEOUT": timedelta(milliseconds=200)}
    end = threading.Event()

    def script(request: object) -> None:
        end.wait(30)

    sparkpost_api.script = script
    error = refused()
    end.set()
    assert error.in_doubt


@pytest.mark.parametrize("padding", [{}, {"X-Padding": "x" * 5000}], ids=["body", "headers"])
def test_a_server_that_drips_is_not_waited_for_without_end(
    sparkpost_api: ScriptedHttps, settings: Any, padding: dict[str, str]
) -> None:
    """Each byte comes in time, and all of them together would take more than a minute."""
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_API_TIMEOUT": timedelta(milliseconds=250)}
    sparkpost_api.script = lambda request: Answer(
        body=b" " * 5000 if not padding else b"{}", headers=padding, drip=0.02
    )
    error = refused()
    assert error.status is None
    assert error.in_doubt


def test_a_server_that_is_slow_and_comes_to_an_end_is_heard(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(body={"results": []}, drip=0.001)
    assert ask() == []


def test_a_call_ends_within_half_of_the_time_limit(sparkpost_api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_LIMIT": timedelta(seconds=1)}
    sparkpost_api.script = lambda request: Answer(body=b" " * 5000, drip=0.02)
    assert refused().in_doubt


def test_where_nobody_listens_nothing_was_asked(sparkpost_api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "SPARKPOST_API_HOST": "127.0.0.1:1"}
    error = refused()
    assert not error.in_doubt


def test_the_key_is_for_no_other_host(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(302, {}, {"Location": f"https://{sparkpost_api.host}/elsewhere"})
    assert refused().status == 302
    assert len(sparkpost_api.requests) == 1


def test_a_line_that_breaks_once_it_was_asked_leaves_it_in_doubt(sparkpost_api: ScriptedHttps) -> None:
    def script(request: object) -> None:
        # Past TLS: to the client it is an error of TLS.
        os.write(sparkpost_api.open_connections[-1].fileno(), b"HTTP/1.1 400 Bad Request\r\n\r\n")

    sparkpost_api.script = script
    error = refused()
    assert error.status is None
    assert error.in_doubt


def test_a_server_that_cannot_be_trusted_was_not_asked(
    sparkpost_api: ScriptedHttps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert not refused().in_doubt
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authority.pem")
    error = refused()
    assert not error.in_doubt
    assert "cannot be reached" in str(error)
    assert sparkpost_api.requests == []


@pytest.mark.parametrize("key", ["a-key\n", "kéy€"])
def test_a_key_that_no_header_can_carry_was_not_shown_to_anybody(sparkpost_api: ScriptedHttps, key: str) -> None:
    with pytest.raises(SparkPostError) as raised:
        api_client(key).suppression_list.get("ana@example.com")
    assert not raised.value.in_doubt
    assert key.strip() not in str(raised.value)
    assert sparkpost_api.requests == []


def test_an_answer_that_is_too_deep_is_none_of_sparkposts(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(200, b"[" * 200_000)
    assert refused().status == 200


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("9" * 400, 86400.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0), ("²", None), ("soon", None), ("-5", None)],
)
def test_nobody_is_left_alone_for_longer_than_a_day(
    sparkpost_api: ScriptedHttps, asked: str, seconds: float | None
) -> None:
    sparkpost_api.script = lambda request: Answer(429, {}, {"Retry-After": asked})
    assert refused().retry_after == seconds


@pytest.mark.parametrize("body", [f"You sent: Authorization: {KEY}".encode(), {"errors": [{"message": f"bad {KEY}"}]}])
def test_a_server_that_repeats_the_key_is_not_quoted(sparkpost_api: ScriptedHttps, body: object) -> None:
    sparkpost_api.script = lambda request: Answer(400, body)
    assert KEY not in str(refused())


def test_without_a_key_it_is_said_which_setting_is_missing() -> None:
    with pytest.raises(SparkPostError, match="SPARKPOST_API_KEY"):
        api_client()


def test_the_key_is_in_no_error_and_no_log(sparkpost_api: ScriptedHttps, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sparkpost_api.script = lambda request: None
    error = refused()
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert KEY not in told
    assert KEY not in caplog.text
    assert KEY not in repr(api_client())


def test_a_forked_process_has_connections_of_its_own(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(body={"results": []})
    ask()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                failed = 0 if ask() == ask() == [] else 1
            finally:
                # Nothing of the test run's may end with this process.
                os._exit(failed)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert ask() == []
    assert (sparkpost_api.connections, len(sparkpost_api.requests)) == (3, 6)
