"""The local SparkPost's suppression list, and links of its own to leave a list."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from django.core.mail import EmailMessage, send_mail

from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.sparkpost.client import api_client
from congressy_mailer.testing.local_sparkpost.suppression_list import COMPLIANCE
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.local_sparkpost import SENDER

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
