"""The local SparkPost's API of transmissions, and who may use it: with plain HTTP and our own client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.sparkpost.client import Client, api_client
from congressy_mailer.testing.local_sparkpost.answers import TOO_MANY_REQUESTS
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.local_sparkpost import SENDER, types

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
