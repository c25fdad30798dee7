"""The whole local SparkPost, with the clients that speak to the real one: Django, the ``sparkpost`` package, plain
HTTP."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from django.core.mail import EmailMessage, send_mail

from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.sparkpost.client import Client, api_client
from congressy_mailer.testing.local_sparkpost.answers import TOO_MANY_REQUESTS
from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.events import AcceptedMail
from congressy_mailer.testing.local_sparkpost.posting import MAX_ATTEMPTS, PostingOptions
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.testing.local_sparkpost.suppression_list import COMPLIANCE
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.scripted_https import Answer, Request, ScriptedHttps

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SENDER = "mail@congressy.net"
ALL_EVENTS = ["injection", "delivery", "bounce", "delay", "out_of_band", "policy_rejection", "spam_complaint",
              "open", "initial_open", "click", "list_unsubscribe", "generation_failure"]  # fmt: skip


@pytest.fixture
def target(certificate: Certificate) -> Iterator[ScriptedHttps]:
    """Where webhooks are posted to."""
    with ScriptedHttps(certificate) as server:
        yield server


@pytest.fixture
def call(local_sparkpost: WholeSparkPost) -> Callable[..., requests.Response]:
    """Plain HTTP, with the right key unless another is given."""

    def ask(method: str, path: str, json: Any = None, *, key: str = "", **options: Any) -> requests.Response:
        headers = {"Authorization": key or local_sparkpost.account.key}
        url = f"https://{local_sparkpost.api.address}/api/v1{path}"
        verify = str(local_sparkpost.certificate.authority)
        return requests.request(method, url, json=json, headers=headers, verify=verify, timeout=10, **options)

    return ask


def webhook(target: ScriptedHttps, **options: Any) -> dict[str, Any]:
    return {"name": "tests", "target": f"https://{target.host}/events/", "events": ALL_EVENTS, **options}


def types(server: WholeSparkPost, recipient: str) -> list[str]:
    return [event["type"] for event in server.account.events_of(recipient)]


def inside(request: Request) -> list[dict[str, Any]]:
    return [event for one in request.json for event in one["msys"].values()]


class TestSmtp:
    def test_django_sends_and_events_follow(self, local_sparkpost: WholeSparkPost) -> None:
        header = '{"campaign_id": "inscricoes", "metadata": {"pedido": "7"}, "options": {"open_tracking": true}}'
        mail = EmailMessage("Oi", "Bom dia", SENDER, ["ana@x.example"], headers={"X-MSYS-API": header})
        assert mail.send() == 1
        (received,) = local_sparkpost.mailbox
        assert "X-MSYS-API" not in received.message
        assert received.message["Subject"] == "Oi"
        events = local_sparkpost.account.events_of("ana@x.example")
        assert [event["type"] for event in events] == ["injection", "delivery", "initial_open", "open"]
        assert {(event["campaign_id"], event["rcpt_meta"]["pedido"]) for event in events} == {("inscricoes", "7")}
        assert {event["message_id"] for event in events} == {received.queue_id}

    def test_a_bad_header_refuses_the_mail(self, local_sparkpost: WholeSparkPost) -> None:
        mail = EmailMessage("Oi", "Bom dia", SENDER, ["ana@x.example"], headers={"X-MSYS-API": "{"})
        with pytest.raises(Exception, match="JSON parsing error"):
            mail.send()
        assert len(local_sparkpost.mailbox) == 0
        assert local_sparkpost.account.events == []

    def test_each_recipient_has_a_fate_of_their_own(self, local_sparkpost: WholeSparkPost) -> None:
        send_mail("Oi", "Bom dia", SENDER, ["hard-bounce@x.example", "delayed-3@x.example"])
        assert types(local_sparkpost, "hard-bounce@x.example") == ["injection", "bounce"]
        assert types(local_sparkpost, "delayed-3@x.example") == ["injection", *["delay"] * 3, "delivery"]

    def test_who_bounced_is_not_tried_again(self, local_sparkpost: WholeSparkPost) -> None:
        for _ in range(2):
            send_mail("Oi", "Bom dia", SENDER, ["hard-bounce@x.example"])
        events = local_sparkpost.account.events_of("hard-bounce@x.example")
        assert [event["type"] for event in events] == ["injection", "bounce", "injection", "bounce"]
        assert events[-1]["bounce_class"] == "25"
        assert events[-1]["reason"].endswith("suppressed due to customer policy (Bounce Rule)")

    def test_who_complained_still_gets_what_is_transactional(self, local_sparkpost: WholeSparkPost) -> None:
        for transactional in ("false", "true", "false"):
            header = f'{{"options": {{"transactional": {transactional}}}}}'
            EmailMessage("x", "x", SENDER, ["complaint@x.example"], headers={"X-MSYS-API": header}).send()
        assert types(local_sparkpost, "complaint@x.example") == [
            *["injection", "delivery", "spam_complaint"] * 2,
            *["injection", "bounce"],
        ]


class TestListUnsubscribe:
    HEADERS = {"List-Unsubscribe": "<https://x.example/out>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}

    def offered(self, server: WholeSparkPost) -> tuple[str | None, str | None]:
        message = list(server.mailbox)[-1].message
        return message["List-Unsubscribe"], message["List-Unsubscribe-Post"]

    @pytest.mark.parametrize("over", ["smtp", "http"])
    @pytest.mark.parametrize(
        ("transactional", "rules", "expected"),
        [
            (True, {}, ("<https://x.example/out>", "List-Unsubscribe=One-Click")),
            (False, {}, ("<mailto:…>, <https:…>", "List-Unsubscribe=One-Click")),
            (False, {"list_unsubscribe": "mailto"}, ("<mailto:…>", "List-Unsubscribe=One-Click")),
            (True, {"transactional_unsub": True}, ("<mailto:…>, <https:…>", "List-Unsubscribe=One-Click")),
        ],
    )
    def test_sparkposts_own_is_put_over_another(
        self,
        local_sparkpost: WholeSparkPost,
        call: Callable[..., requests.Response],
        over: str,
        transactional: bool,
        rules: dict[str, Any],
        expected: tuple[str, str],
    ) -> None:
        for name, value in rules.items():
            setattr(local_sparkpost.account.rules, name, value)
        if over == "smtp":
            header = f'{{"options": {{"transactional": {str(transactional).lower()}}}}}'
            EmailMessage("x", "x", SENDER, ["a@x.example"], headers={"X-MSYS-API": header, **self.HEADERS}).send()
        else:
            content = {"from": SENDER, "subject": "x", "text": "x", "headers": self.HEADERS}
            options = {"transactional": transactional}
            body = {"recipients": [{"address": "a@x.example"}], "content": content, "options": options}
            assert call("POST", "/transmissions", body).status_code == 200
        link, post = self.offered(local_sparkpost)
        assert (
            re.sub(r"(mailto|https):[^>]*unsubscribe\.sparkpost\.example[^>]*", r"\1:…", link or ""),
            post,
        ) == expected

    def test_who_is_on_the_list_depends_on_the_mail_and_the_rules(self, local_sparkpost: WholeSparkPost) -> None:
        def listed() -> set[tuple[str, str]]:
            return {(entry.type, entry.source) for entry in local_sparkpost.account.suppression_list}

        header = '{"options": {"transactional": true}}'
        EmailMessage("x", "x", SENDER, ["unsubscribe@x.example"], headers={"X-MSYS-API": header}).send()
        assert listed() == {("transactional", "List Unsubscribe")}
        send_mail("x", "x", SENDER, ["admin-bounce@x.example", "auto-reply@x.example"])
        assert listed() == {("transactional", "List Unsubscribe")}
        local_sparkpost.account.rules.listed_categories = "hard and admin"
        send_mail("x", "x", SENDER, ["admin-bounce@x.example", "unsubscribe-by-mail@x.example"])
        found = {entry.recipient for entry in local_sparkpost.account.suppression_list if entry.source == "Bounce Rule"}
        assert found == {"admin-bounce@x.example", "unsubscribe-by-mail@x.example"}


class TestTransmissions:
    def test_the_package_sends_to_each_with_data_of_their_own(self, local_sparkpost: WholeSparkPost) -> None:
        answer = api_client().transmissions.send(
            recipients=[
                {"address": {"email": "bia@x.example"}, "substitution_data": {"name": "bia"}, "metadata": {"n": "bia"}},
                {"address": {"email": "ana@x.example", "name": "Ana"}, "substitution_data": {"name": "<Ana>"}},
            ],
            from_email=f"Congressy <{SENDER}>",
            subject="Oi, {{ name }}",
            html="<p>{{ name }}{{{ name }}}</p>",
            text="{{ name }}",
            campaign="novidades",
            metadata={"n": "all"},
            transactional=True,
        )
        assert (answer["total_accepted_recipients"], answer["total_rejected_recipients"]) == (2, 0)
        (ana,) = local_sparkpost.mailbox.to("ana@x.example")
        assert ana.message["To"] == "Ana <ana@x.example>"
        assert ana.message["Subject"] == "Oi, <Ana>"
        html, text = ana.message.get_body(("html",)), ana.message.get_body(("plain",))
        assert html is not None
        assert text is not None
        assert html.get_content().strip() == "<p>&lt;Ana&gt;<Ana></p>"
        assert text.get_content().strip() == "<Ana>"
        (bia,) = local_sparkpost.mailbox.to("bia@x.example")
        assert b"Ana" not in bia.content
        events = local_sparkpost.account.events_of("bia@x.example")
        assert {event["transmission_id"] for event in events} == {answer["id"]}
        assert {event["rcpt_meta"]["n"] for event in events} == {"bia"}
        assert {event["transactional"] for event in events} == {"1"}

    def test_what_is_not_to_be_substituted_is_only_in_headers(self, local_sparkpost: WholeSparkPost) -> None:
        content = "From: mail@congressy.net\r\nTo: ana@x.example\r\nSubject: {{x}}\r\n\r\n{{x}}\r\n"
        for parts in ({"email_rfc822": content}, {"from_email": SENDER, "subject": "{{x}}", "text": "{{x}}"}):
            api_client().transmissions.send(
                recipients=[{"address": {"email": "ana@x.example"}}],
                substitution_data={"x": "um"},
                perform_substitutions=False,
                **parts,
            )
        for mail in local_sparkpost.mailbox:
            text = mail.message.get_body(("plain",))
            assert text is not None
            assert (mail.message["Subject"], text.get_content().strip()) == ("um", "{{x}}")

    def test_a_ready_mail_goes_out_as_it_is_to_whom_it_is_for(self, local_sparkpost: WholeSparkPost) -> None:
        content = "From: mail@congressy.net\r\nTo: ana@x.example\r\nSubject: x\r\n\r\n{ {x} }\r\n"
        copy = {"address": {"email": "bia@x.example", "header_to": "ana@x.example"}}
        Client(local_sparkpost.account.key, local_sparkpost.api.address).transmissions.send(
            recipients=[{"address": {"email": "ana@x.example"}}, copy], email_rfc822=content, transactional=True
        )
        assert [mail.content for mail in local_sparkpost.mailbox] == [content.encode()] * 2
        assert [mail.recipients for mail in local_sparkpost.mailbox] == [("ana@x.example",), ("bia@x.example",)]

    def test_a_scheduled_mail_bounces_when_its_campaign_is_cancelled(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        content = {"from": SENDER, "subject": "x", "text": "x"}
        for address, campaign, start in (
            ("ana@x.example", "news", "2999-01-01T00:00:00+00:00"),
            ("bia@x.example", "other", "2999-01-01T00:00:00+00:00"),
            ("caio@x.example", "news", "2020-01-01T00:00:00+00:00"),
        ):
            body = {
                "recipients": [{"address": address}], "content": content, "campaign_id": campaign,
                "options": {"start_time": start},
            }  # fmt: skip
            assert call("POST", "/transmissions", body).status_code == 200
        assert call("DELETE", "/transmissions").status_code == 400
        assert call("DELETE", "/transmissions?campaign_id=news").status_code == 204
        assert types(local_sparkpost, "ana@x.example") == ["injection", "bounce"]
        (bounce,) = [event for event in local_sparkpost.account.events_of("ana@x.example") if event["type"] == "bounce"]
        assert (bounce["bounce_class"], bounce["reason"]) == ("25", "554 5.7.1 [internal] Campaign cancelled")
        assert types(local_sparkpost, "bia@x.example") == []
        assert types(local_sparkpost, "caio@x.example")[:2] == ["injection", "delivery"]
        assert list(local_sparkpost.account.suppression_list) == []
        body = {"recipients": [{"address": "a@x.example"}], "content": content, "options": {"start_time": "soon"}}
        assert call("POST", "/transmissions", body).status_code == 422

    def test_suppression_is_told_at_once_where_the_rules_say_so(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        local_sparkpost.account.suppression_list.add("ana@x.example", source="Spam Complaint")
        content = {"from": SENDER, "subject": "x", "text": "x"}
        one = {"recipients": [{"address": "ana@x.example"}], "content": content}
        assert call("POST", "/transmissions", one).status_code == 200
        assert types(local_sparkpost, "ana@x.example") == ["injection", "bounce"]
        local_sparkpost.account.rules.suppression = "inline"
        answer = call("POST", "/transmissions", one)
        assert answer.status_code == 400
        assert "customer policy (Spam Complaint)" in answer.text
        two = {**one, "recipients": [{"address": "ana@x.example"}, {"address": "bia@x.example"}]}
        assert call("POST", "/transmissions", two).status_code == 200
        assert types(local_sparkpost, "ana@x.example") == ["injection", "bounce"] * 2

    def test_a_copy_shows_whose_copy_it_is(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        copy = {"address": {"email": "bia@x.example", "header_to": "ana@x.example"}}
        content = {"from": SENDER, "subject": "x", "text": "x", "headers": {"CC": "bia@x.example"}}
        assert call("POST", "/transmissions", {"recipients": [copy], "content": content}).status_code == 200
        (mail,) = local_sparkpost.mailbox
        assert (mail.recipients, mail.message["To"], mail.message["Cc"]) == (
            ("bia@x.example",),
            "ana@x.example",
            "bia@x.example",
        )

    def test_a_recipient_that_is_wrong_stops_no_other(self, call: Callable[..., requests.Response]) -> None:
        content = {"from": SENDER, "subject": "x", "text": "x"}
        recipients: list[Any] = [{"address": "ana@x.example"}, {"address": {}}, {"address": "nobody"}, 7]
        answer = call("POST", "/transmissions", {"recipients": recipients, "content": content})
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert (results["total_accepted_recipients"], results["total_rejected_recipients"]) == (1, 3)
        assert [error["code"] for error in results["rcpt_to_errors"]] == ["1400", "1300", "1400"]
        assert answer.json()["errors"][0]["code"] == "2000"

    def test_a_template_that_cannot_be_rendered_fails_after_the_call(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        content = {"from": SENDER, "subject": "x", "text": "{{ if x }}"}
        body = {"recipients": [{"address": "ana@x.example"}], "content": content}
        assert call("POST", "/transmissions", body).status_code == 200
        assert types(local_sparkpost, "ana@x.example") == ["generation_failure"]
        assert len(local_sparkpost.mailbox) == 0

    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ({"recipients": []}, 422, "1400"),
            ({"recipients": [{"address": "x"}]}, 400, "5002"),
            ({"recipients": {"list_id": "x"}}, 404, "1600"),
            ({"campaign_id": "x" * 65}, 422, "1300"),
            ({"metadata": []}, 200, ""),
            ({"metadata": [1]}, 422, "1300"),
            ({"content": {"template_id": "x"}}, 404, "1600"),
            ({"content": {"email_rfc822": "x", "text": "x"}}, 422, "1301"),
            ({"content": {"from": SENDER, "text": "x"}}, 422, "1400"),
            ({"content": {"from": SENDER, "subject": "x"}}, 422, "1400"),
            ({"content": {"from": "mail@other.example", "subject": "x", "text": "x"}}, 400, "7001"),
        ],
    )
    def test_refusals(
        self,
        local_sparkpost: WholeSparkPost,
        call: Callable[..., requests.Response],
        change: dict[str, Any],
        status: int,
        code: str,
    ) -> None:
        local_sparkpost.account.sending_domains = frozenset({"congressy.net"})
        body = {
            "recipients": [{"address": "ana@x.example"}],
            "content": {"from": SENDER, "subject": "x", "text": "x"},
            **change,
        }
        answer = call("POST", "/transmissions", body)
        assert answer.status_code == status
        assert answer.json().get("errors", [{"code": ""}])[0]["code"] == code

    def test_beyond_the_limit_nothing_of_it_is_sent(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        local_sparkpost.account.sending_limit = 2
        body: dict[str, Any] = {"content": {"from": SENDER, "subject": "x", "text": "x"}}
        many = {**body, "recipients": [{"address": f"{n}@x.example"} for n in range(3)]}
        assert call("POST", "/transmissions", many).status_code == 420
        assert len(local_sparkpost.mailbox) == 0
        assert call("POST", "/transmissions", {**many, "recipients": many["recipients"][:2]}).status_code == 200


class TestAccess:
    def test_a_wrong_key_and_one_that_may_not(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        assert call("GET", "/webhooks", key="another").status_code == 401
        local_sparkpost.account.permissions = frozenset({"transmissions/modify"})
        assert call("GET", "/webhooks").status_code == 403
        assert call("GET", "/nothing").status_code == 404
        assert call("PUT", "/transmissions").status_code == 405

    def test_429_on_demand_and_what_the_package_makes_of_it(self, local_sparkpost: WholeSparkPost) -> None:
        local_sparkpost.api.script = lambda request: TOO_MANY_REQUESTS
        with pytest.raises(SparkPostError) as refused:
            api_client().suppression_list.get("ana@x.example")
        assert (refused.value.status, refused.value.retry_after) == (429, 1.0)
        local_sparkpost.api.script = lambda request: "hang up"
        with pytest.raises(SparkPostError) as unanswered:
            api_client().suppression_list.get("ana@x.example")
        assert unanswered.value.in_doubt

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff"])
    def test_a_body_that_is_no_object_is_refused(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response], body: bytes
    ) -> None:
        for method, path in (("POST", "/transmissions"), ("PUT", "/suppression-list"), ("POST", "/webhooks")):
            assert 400 <= call(method, path, data=body).status_code < 500


class TestSuppressionList:
    def test_the_package_reads_and_writes_it(self, local_sparkpost: WholeSparkPost) -> None:
        here = api_client().suppression_list
        here.create(
            [{"recipient": "Ana@x.example", "type": "transactional", "description": "x", "list_id": "novidades"}]
        )
        here.create({"email": "ana@x.example", "non_transactional": True})
        found = here.get("ana@x.example")
        assert {(entry["type"], entry.get("list_id"), entry["source"]) for entry in found} == {
            ("transactional", "novidades", "Manually Added"),
            ("non_transactional", None, "Manually Added"),
        }
        here.delete("ana@x.example")
        with pytest.raises(SparkPostError) as missing:
            here.get("ana@x.example")
        assert missing.value.status == 404

    def test_it_is_paged_to_the_end_by_the_links(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        for number in range(25):
            local_sparkpost.account.suppression_list.add(f"{number}@x.example", ["transactional"])
        path, seen = "/suppression-list?cursor=initial&per_page=10&types=transactional", []
        while path:
            answer = call("GET", path).json()
            assert answer["total_count"] == 25
            seen += [entry["recipient"] for entry in answer["results"]]
            following = [link["href"] for link in answer["links"] if link["rel"] == "next"]
            path = following[0].removeprefix("/api/v1") if following else ""
        assert sorted(seen) == sorted(f"{number}@x.example" for number in range(25))

    def test_filters(self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]) -> None:
        here = local_sparkpost.account.suppression_list
        here.add("ana@x.example", source="Bounce Rule", description="no such user")
        here.add("bia@y.example", ["transactional"])
        for query, count in {
            "": 3,
            "?domain=x.example": 2,
            "?sources=Bounce%20Rule": 2,
            "?types=transactional": 2,
            "?description=SUCH": 2,
            "?from=2020-01-01T00:00:00Z": 3,
            "?to=2020-01-01T00:00:00%2B00:00": 0,
        }.items():
            assert call("GET", f"/suppression-list{query}").json()["total_count"] == count, query
        for query in ("?from=yesterday", "?per_page=0", "?per_page=10001", "?cursor=x"):
            assert call("GET", f"/suppression-list{query}").status_code == 400, query

    def test_compliance_entries_stay(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        local_sparkpost.account.suppression_list.add("ana@x.example", source=COMPLIANCE)
        assert call("DELETE", "/suppression-list/ana@x.example").status_code == 403
        assert call("PUT", "/suppression-list/ana@x.example", {"type": "transactional"}).status_code == 200
        entries = call("GET", "/suppression-list/ana@x.example").json()["results"]
        assert {entry["source"] for entry in entries} == {COMPLIANCE}

    @pytest.mark.parametrize(
        ("query", "left"),
        [
            ("?list_id=news.x", {"", "partners"}),
            ("?list_id=", {"news.x", "partners"}),
            ("", set()),
            ("?list_id=y", None),
        ],
    )
    def test_what_is_deleted_depends_on_the_list_in_the_query(
        self,
        local_sparkpost: WholeSparkPost,
        call: Callable[..., requests.Response],
        query: str,
        left: set[str] | None,
    ) -> None:
        for list_id in ("", "news.x", "partners"):
            local_sparkpost.account.suppression_list.add("ana@x.example", ["non_transactional"], list_id=list_id)
        # What stands in the body beside the type is not looked at.
        body = {"type": "non_transactional", "list_id": "partners"}
        status = call("DELETE", f"/suppression-list/ana@x.example{query}", body).status_code
        assert status == (404 if left is None else 204)
        everything = {"", "news.x", "partners"}
        assert {entry.list_id for entry in local_sparkpost.account.suppression_list} == (
            everything if left is None else left
        )

    def test_one_type_is_taken_away_alone(
        self, local_sparkpost: WholeSparkPost, call: Callable[..., requests.Response]
    ) -> None:
        local_sparkpost.account.suppression_list.add("ana@x.example")
        assert call("DELETE", "/suppression-list/ana%40x.example", {"type": "transactional"}).status_code == 204
        (left,) = local_sparkpost.account.suppression_list
        assert left.type == "non_transactional"


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


def bytes_to_the_end(connection: socket.socket) -> bytes:
    """What still comes over a connection, below TLS; an error where it does not end."""
    received = b""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.settimeout(20)
        with suppress(ConnectionResetError):
            while some := below.recv(1000):
                received += some
    return received


@pytest.mark.parametrize("state", ["greeted", "in the TLS handshake", "logged in", "hung up"])
def test_a_server_that_stops_cuts_every_connection(certificate: Certificate, state: str) -> None:
    def hang_up(exchange: Exchange) -> str | None:
        return "421 4.3.0 come back later" if state == "hung up" and exchange.stage == Stage.MAIL else None

    server = LocalSparkPost(certificate=certificate, script=hang_up)
    server.start()
    client = smtplib.SMTP(server.host, server.port, timeout=20)
    try:
        if state == "in the TLS handshake":
            client.ehlo()
            assert client.docmd("STARTTLS")[0] == 220
        elif state != "greeted":
            client.starttls(context=ssl.create_default_context(cafile=str(certificate.authority)))
            client.login(server.user, server.password)
            # The client does not say goodbye.
            assert client.docmd("MAIL FROM:<ana@example.com>")[0] == (421 if state == "hung up" else 250)
        server.stop()
        bytes_to_the_end(client.sock)
        assert server.open_connections == 0
    finally:
        client.close()
        server.close()
