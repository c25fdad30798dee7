"""The local SparkPost's webhooks: how they are registered, and what is posted to them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.events import AcceptedMail
from congressy_mailer.testing.local_sparkpost.posting import MAX_ATTEMPTS, PostingOptions
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.local_sparkpost import SENDER
from tests.support.scripted_https import Answer, Request, ScriptedHttps

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


ALL_EVENTS = ["injection", "delivery", "bounce", "delay", "out_of_band", "policy_rejection", "spam_complaint",
              "open", "initial_open", "click", "list_unsubscribe", "generation_failure"]  # fmt: skip


@pytest.fixture
def target(certificate: Certificate) -> Iterator[ScriptedHttps]:
    """Where webhooks are posted to."""
    with ScriptedHttps(certificate) as server:
        yield server


def webhook(target: ScriptedHttps, **options: Any) -> dict[str, Any]:
    return {"name": "tests", "target": f"https://{target.host}/events/", "events": ALL_EVENTS, **options}


def inside(request: Request) -> list[dict[str, Any]]:
    return [event for one in request.json for event in one["msys"].values()]


class TestWebhooks:
    def test_registered_tested_changed_and_deleted(
        self, target: ScriptedHttps, call: Callable[..., requests.Response]
    ) -> None:
        id_ = call("POST", "/webhooks", webhook(target)).json()["results"]["id"]
        assert target.requests[0].json == [{"msys": {}}]
        assert call("GET", f"/webhooks/{id_}").json()["results"]["name"] == "tests"
        assert [one["id"] for one in call("GET", "/webhooks").json()["results"]] == [id_]
        assert call("PUT", f"/webhooks/{id_}", {"name": "renamed"}).status_code == 200
        assert call("GET", f"/webhooks/{id_}").json()["results"]["name"] == "renamed"
        # The target is as it was: it is not tested again.
        assert len(target.requests) == 1
        validated = call("POST", f"/webhooks/{id_}/validate", {"message": {"msys": {}}})
        assert validated.json()["results"]["response"]["status"] == 200
        assert len(target.requests) == 2
        assert call("DELETE", f"/webhooks/{id_}").status_code == 204
        assert call("DELETE", f"/webhooks/{id_}").status_code == 404

    @pytest.mark.parametrize(
        "change",
        [
            {"target": ""},
            {"target": "ftp://x"},
            {"events": ["nothing"]},
            {"auth_type": "digest"},
            {"auth_type": "basic"},
            {"auth_type": "oauth2"},
            {"custom_headers": []},
        ],
    )
    def test_refused(
        self, target: ScriptedHttps, call: Callable[..., requests.Response], change: dict[str, Any]
    ) -> None:
        assert call("POST", "/webhooks", {**webhook(target), **change}).status_code == 400
        assert target.requests == []

    def test_a_target_that_does_not_answer_200_is_not_registered(
        self, target: ScriptedHttps, call: Callable[..., requests.Response]
    ) -> None:
        target.script = lambda request: Answer(401)
        assert call("POST", "/webhooks", webhook(target)).status_code == 400
        target.script = lambda request: None
        assert call("POST", "/webhooks", webhook(target)).status_code == 400
        assert call("GET", "/webhooks").json()["results"] == []

    @pytest.mark.parametrize(
        ("options", "header", "value"),
        [
            (
                {"auth_type": "basic", "auth_credentials": {"username": "u", "password": "p"}},
                "Authorization",
                "Basic dTpw",
            ),
            ({"custom_headers": {"Authorization": "Bearer abc"}}, "Authorization", "Bearer abc"),
            ({"auth_token": "old"}, "X-MessageSystems-Webhook-Token", "old"),
        ],
    )
    def test_credentials(
        self,
        target: ScriptedHttps,
        call: Callable[..., requests.Response],
        options: dict[str, Any],
        header: str,
        value: str,
    ) -> None:
        assert call("POST", "/webhooks", webhook(target, **options)).status_code == 200
        assert target.requests[0].headers[header] == value
        assert target.requests[0].headers["X-MessageSystems-Batch-ID"]

    def test_an_oauth_token_that_is_refused_is_fetched_anew(
        self, target: ScriptedHttps, call: Callable[..., requests.Response]
    ) -> None:
        given: list[str] = []

        def script(request: Request) -> Answer:
            if request.path == "/token":
                given.append(f"token-{len(given)}")
                return Answer(body={"access_token": given[-1]})
            return Answer(200 if request.headers["Authorization"] == "Bearer token-1" else 401)

        target.script = script
        details = {"url": f"https://{target.host}/token", "body": {"client_id": "x"}}
        options = {"auth_type": "oauth2", "auth_request_details": details}
        assert call("POST", "/webhooks", webhook(target, **options)).status_code == 200
        assert given == ["token-0", "token-1"]


def posted(certificate: Certificate, target: ScriptedHttps, seed: int) -> tuple[WholeSparkPost, list[Request]]:
    """A hundred mails, and what was posted of them."""
    target.requests.clear()
    posting = PostingOptions(every=0.02, largest_batch=40, retry_after=0.02, seed=seed)
    with WholeSparkPost(certificate=certificate, key="key", posting=posting) as server:
        server.account.webhooks.create(webhook(target))
        server.poster.stop()
        for number in range(100):
            server.account.accept(accepted(f"{number}@x.example"))
        server.poster.start()
        server.poster.wait_until_done()
    return server, target.requests[1:]


def accepted(recipient: str) -> AcceptedMail:
    return AcceptedMail(
        recipient=recipient, message_id="1", transmission_id="2", received_by="smtp", sender=SENDER, subject="x",
        size=1, options={"open_tracking": True},
    )  # fmt: skip


class TestPosting:
    def test_everything_comes_some_of_it_twice_and_in_no_order(
        self, certificate: Certificate, target: ScriptedHttps
    ) -> None:
        server, batches = posted(certificate, target, seed=1)
        ids = [event["event_id"] for request in batches for event in inside(request)]
        happened = [next(iter(event["msys"].values()))["event_id"] for event in server.account.events]
        assert set(ids) == set(happened)
        assert list(dict.fromkeys(ids)) != happened
        by_batch: dict[str, list[bytes]] = {}
        for request in batches:
            by_batch.setdefault(request.headers["X-MessageSystems-Batch-ID"], []).append(request.body)
        # The same batch again, word for word; and the same event in another one.
        assert any(len(bodies) > 1 for bodies in by_batch.values())
        assert all(len(set(bodies)) == 1 for bodies in by_batch.values())
        assert max(len(inside(request)) for request in batches) <= 40
        once = Counter(
            event["event_id"] for request in {r.body: r for r in batches}.values() for event in inside(request)
        )
        assert any(count > 1 for count in once.values())
        assert any(len({event["type"] for event in inside(request)}) > 1 for request in batches)

    def test_the_same_seed_posts_the_same(self, certificate: Certificate, target: ScriptedHttps) -> None:
        first, again, other = ([r.headers["X-MessageSystems-Batch-ID"] for r in posted(certificate, target, seed)[1]]
                               for seed in (5, 5, 6))  # fmt: skip
        assert first == again
        assert first != other

    def test_what_is_not_taken_comes_again(self, certificate: Certificate, target: ScriptedHttps) -> None:
        refusals = [Answer(), Answer(500), None, Answer(302, {}, {"Location": "/x"}), Answer(204, b"")]
        script = iter(refusals)
        lock = threading.Lock()

        def answer(request: Request) -> Answer | None:
            with lock:
                return next(script, Answer())

        target.script = answer
        server, batches = posted(certificate, target, seed=2)
        assert server.poster.lost == 0
        assert [one.status for one in server.poster.posted][:4] == [500, None, 302, 204]
        ids = {event["event_id"] for request in batches for event in inside(request)}
        assert len(ids) == len(server.account.events)
        assert max(one.attempt for one in server.poster.posted) >= 2

    def test_what_is_never_taken_is_lost_in_the_end(self, certificate: Certificate, target: ScriptedHttps) -> None:
        posting = PostingOptions(every=0.01, retry_after=0.00001, repeated_percent=0)
        with WholeSparkPost(certificate=certificate, posting=posting) as server:
            server.account.webhooks.create(webhook(target))
            target.script = lambda request: Answer(500)
            server.account.accept(accepted("ana@x.example"))
            server.poster.wait_until_done()
            assert server.poster.lost >= 1
            assert max(one.attempt for one in server.poster.posted) == MAX_ATTEMPTS

    def test_only_the_events_that_are_wanted(self, certificate: Certificate, target: ScriptedHttps) -> None:
        with WholeSparkPost(certificate=certificate, posting=PostingOptions(every=0.02)) as server:
            server.account.webhooks.create(webhook(target, events=["bounce"]))
            server.account.accept(accepted("hard-bounce@x.example"))
            server.account.accept(accepted("ana@x.example"))
            server.poster.wait_until_done()
        assert {event["type"] for request in target.requests[1:] for event in inside(request)} == {"bounce"}
