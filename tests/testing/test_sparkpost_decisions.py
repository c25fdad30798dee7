"""What the local SparkPost reads and decides: headers, templates, its list, what becomes of a mail."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.testing.local_sparkpost.events import AcceptedMail, event_batch
from congressy_mailer.testing.local_sparkpost.fates import fate
from congressy_mailer.testing.local_sparkpost.generation import generate
from congressy_mailer.testing.local_sparkpost.msys_header import BadHeader, copies_of, split_header
from congressy_mailer.testing.local_sparkpost.substitution import SubstitutionError, substitute
from congressy_mailer.testing.local_sparkpost.suppression_list import COMPLIANCE, ListError, Search, SuppressionList

MAIL = b"Subject: Oi\r\n\r\nX-MSYS-API: this is text\r\n"
values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


class TestHeader:
    @given(metadata=st.dictionaries(st.text(), values, max_size=5), where=st.integers(0, 1))
    def test_it_is_read_and_taken_off_whatever_it_says(self, metadata: dict[str, Any], where: int) -> None:
        header = (
            b"x-msys-Api: " + json.dumps({"metadata": metadata}, indent=1).replace("\n", "\r\n ").encode() + b"\r\n"
        )
        headers = [b"Subject: Oi\r\n", b"From: a@b.example\r\n"]
        content = b"".join([*headers[:where], header, *headers[where:]])
        keys, rest = split_header(content + b"\r\nX-MSYS-API: this is text\r\n")
        assert keys == {"metadata": metadata}
        assert rest == b"".join(headers) + b"\r\nX-MSYS-API: this is text\r\n"

    def test_a_mail_without_it_goes_on_as_it_is(self) -> None:
        assert split_header(MAIL) == ({}, MAIL)

    @pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", "\r\n    "])
    def test_a_fold_inside_a_text_reads_as_one_space(self, fold: str) -> None:
        keys, _ = split_header(f'X-MSYS-API: {{"campaign_id": "a{fold}b"}}\r\n\r\n'.encode())
        assert keys["campaign_id"] == "a b"

    @pytest.mark.parametrize(
        ("value", "reply"),
        [
            ("{", "550 5.6.0 JSON parsing error in X-MSYS-API"),
            ("[]", "550 5.6.0 JSON parsing error in X-MSYS-API"),
            (json.dumps({"campaign_id": "x" * 65}), "550 5.6.0 smtpapi_campaign_id context is limited to 64 bytes"),
            (json.dumps({"campaign_id": "ã" * 33}), "550 5.6.0 smtpapi_campaign_id context is limited to 64 bytes"),
            (json.dumps({"tags": ["x"] * 11}), "550 5.6.0 tags in X-MSYS-API must be at most 10 texts"),
        ],
    )
    def test_what_breaks_a_limit_is_refused_in_sparkposts_words(self, value: str, reply: str) -> None:
        with pytest.raises(BadHeader) as refused:
            split_header(f"X-MSYS-API: {value}\r\n\r\n".encode())
        assert str(refused.value) == reply

    @given(st.binary())
    def test_no_bytes_break_it(self, content: bytes) -> None:
        with suppress(BadHeader):
            _, rest = split_header(b"X-MSYS-API: " + content)
            assert len(rest) <= len(content)

    def test_copies_are_addresses_with_or_without_a_name(self) -> None:
        keys = {"cc": ["a@x.example"], "archive": [{"email": "b@x.example", "name": "B"}]}
        assert copies_of(keys) == [("a@x.example", "cc"), ("b@x.example", "archive")]


class TestSubstitution:
    @pytest.mark.parametrize(
        ("template", "text", "in_html"),
        [
            ("{{ who }}, {{who}}", "<Zé>, <Zé>", "&lt;Zé&gt;, &lt;Zé&gt;"),
            ("{{{ who }}}", "<Zé>", "<Zé>"),
            ("{{ order.items[2] }}{{ order.items[9] }}{{ nobody }}", "b", "b"),
            ("{{ nobody or 'you' }}", "you", "you"),
            ("{{ who or 'you' }}", "<Zé>", "&lt;Zé&gt;"),
            ("{{ opening_double_curly() }} x {{closing_double_curly()}}", "{{ x }}", "{{ x }}"),
            ("{ { who } } {who}", "{ { who } } {who}", "{ { who } } {who}"),
            ("{{ number }}", "7", "7"),
        ],
    )
    def test_places(self, template: str, text: str, in_html: str) -> None:
        data = {"who": "<Zé>", "order": {"items": ["a", "b"]}, "number": 7}
        assert substitute(template, data) == text
        assert substitute(template, data, in_html=True) == in_html

    @pytest.mark.parametrize("template", ["{{ if who }}", "{{ }}", "{{ a b }}", "{{ who | upper }}", "{{ 1 + 1 }}"])
    def test_what_is_no_name_is_an_error(self, template: str) -> None:
        with pytest.raises(SubstitutionError):
            substitute(template, {"who": "x"})

    @given(value=st.text(), around=st.text(alphabet="ab <>&\n"))
    def test_a_value_arrives_whole_and_is_not_substituted_again(self, value: str, around: str) -> None:
        assert substitute(f"{around}{{{{{{ v }}}}}}{around}", {"v": value}, in_html=True) == around + value + around


class TestGeneration:
    def test_a_ready_mail_without_places_goes_out_as_it_came(self) -> None:
        content = "Subject: Oi\r\nContent-Type: text/html\r\n\r\n<p>{ x }</p>\n..\r\n"
        assert generate({"email_rfc822": content}, {}) == content.replace("</p>\n", "</p>\r\n").encode()

    def test_only_headers_at_the_top_and_the_first_texts_are_substituted(self) -> None:
        content = (
            "Subject: {{ who }}\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
            "--x\r\nContent-Type: text/html\r\nX-Inner: {{ who }}\r\n\r\n<b>{{ who }}</b>\r\n"
            "--x\r\nContent-Type: text/html\r\n\r\nsecond {{ who }}\r\n"
            "--x\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nfile {{ who }}\r\n--x--\r\n"
        )
        made = generate({"email_rfc822": content}, {"who": "<Z>"}).decode()
        assert "Subject: <Z>" in made
        assert "X-Inner: {{ who }}" in made
        assert "second {{ who }}" in made
        assert "file {{ who }}" in made

    @pytest.mark.parametrize(
        "content",
        [
            {"email_rfc822": "Subject: {{ if x }}\r\n\r\n"},
            {"from": "a@x.example", "subject": "x", "text": "x", "headers": {"Bad Name": "x\r\ny"}},
            {"from": {}, "subject": "x", "text": "x"},
            {"from": "a@x.example", "subject": "x", "text": "x", "attachments": [{"type": "a/b"}]},
        ],
    )
    def test_what_cannot_be_made_is_said(self, content: dict[str, Any]) -> None:
        with pytest.raises(SubstitutionError):
            generate(content, {"address": {"email": "b@x.example"}})


class TestList:
    def test_what_compliance_put_there_stays(self) -> None:
        here = SuppressionList()
        here.add("Ana@x.example", ["transactional"], source=COMPLIANCE)
        here.put([{"recipient": "ana@x.example", "type": "transactional", "description": "mine"}])
        assert [(entry.source, entry.description) for entry in here] == [(COMPLIANCE, "")]
        with pytest.raises(ListError, match="Compliance"):
            here.remove("ana@x.example")
        assert len(list(here)) == 1

    def test_of_an_address_that_is_there_twice_the_first_counts(self) -> None:
        here = SuppressionList()
        here.put([{"recipient": "a@x.example", "type": "transactional", "description": text} for text in "ab"])
        assert [entry.description for entry in here] == ["a"]

    def test_the_older_booleans_are_types_too(self) -> None:
        here = SuppressionList()
        here.put([{"email": "a@x.example", "transactional": True, "non_transactional": True}])
        assert {entry.type for entry in here} == {"transactional", "non_transactional"}

    @pytest.mark.parametrize(
        ("given_", "message"),
        [
            ([], "not empty"),
            ("a@x.example", "a list"),
            ([{"recipient": "a@x.example", "type": "all"}], "Type must be one of"),
            ([{"recipient": "a@x.example"}], "Type must be one of"),
            ([{"recipient": "nobody", "type": "transactional"}], r"1 invalid or malformed recipient\(s\): nobody"),
            ([{"recipient": "a@x.example", "type": "transactional"}] * 10_001, "more than 10000"),
        ],
    )
    def test_of_what_is_wrong_nothing_is_taken(self, given_: Any, message: str) -> None:
        here = SuppressionList()
        good = [{"recipient": "good@x.example", "type": "transactional"}]
        with pytest.raises(ListError, match=message):
            here.put(good + given_ if given_ and isinstance(given_, list) else given_)
        assert list(here) == []

    @given(
        names=st.sets(st.text(alphabet="abcxyz", min_size=1, max_size=4), max_size=20),
        size=st.integers(1, 7),
        removed=st.integers(0, 20),
    )
    def test_pages_show_each_entry_once_also_when_some_go_meanwhile(
        self, names: set[str], size: int, removed: int
    ) -> None:
        here = SuppressionList()
        for name in names:
            here.add(f"{name}@x.example", ["transactional"])
        seen: list[str] = []
        cursor = "initial"
        while cursor:
            entries, cursor, _ = here.page(Search(), after=cursor, size=size)
            seen += [entry.recipient for entry in entries]
            if removed < len(seen):
                # One that was seen already: it must not move the place of the others.
                here.remove(seen[removed])
                removed = len(names)
        assert seen == sorted(f"{name}@x.example" for name in names)

    @given(st.text())
    def test_no_cursor_breaks_it(self, cursor: str) -> None:
        with suppress(ListError):
            assert SuppressionList().page(Search(), after=cursor) == ([], "", 0)


def types_of(recipient: str, **options: Any) -> list[str]:
    return [happening.type for happening in fate(recipient, **{"opens": True, "clicks": True, "link": "x", **options})]


class TestFates:
    @pytest.mark.parametrize(
        ("name", "types"),
        [
            ("hard-bounce", ["bounce"]),
            ("Soft-Bounce+tag", ["bounce"]),
            ("out-of-band", ["delivery", "out_of_band"]),
            ("complaint", ["delivery", "spam_complaint"]),
            ("unsubscribe", ["delivery", "list_unsubscribe"]),
            ("unsubscribe-by-mail", ["delivery", "out_of_band"]),
            ("auto-reply", ["delivery", "out_of_band"]),
            ("delay-3", ["delay"] * 3 + ["delivery"]),
            ("delayed-2", ["delay"] * 2 + ["delivery"]),
            ("hard-bounce-not", ["delivery"]),
        ],
    )
    def test_a_name_decides(self, name: str, types: list[str]) -> None:
        found = types_of(f"{name}@x.example", opens=False, clicks=False)
        assert found == types

    def test_some_open_and_some_of_those_click_and_always_the_same(self) -> None:
        found = {f"{number}@x.example": types_of(f"{number}@x.example") for number in range(200)}
        opened = [types for types in found.values() if "open" in types]
        clicked = [types for types in found.values() if "click" in types]
        assert 60 < len(opened) < 140
        assert 20 < len(clicked) < 80
        assert all("open" in types for types in clicked)
        assert found == {address: types_of(address) for address in found}

    def test_nobody_is_seen_who_is_not_tracked(self) -> None:
        untracked = {tuple(types_of(f"{n}@x.example", opens=False, clicks=False)) for n in range(50)}
        assert untracked == {("delivery",)}
        assert not any("click" in types_of(f"{n}@x.example", link="") for n in range(50))

    def test_events_have_texts_for_numbers_and_come_one_after_the_other(self) -> None:
        mail = AcceptedMail(
            recipient="Delay-2@X.example", message_id="1", transmission_id="2", received_by="smtp",
            sender="a@b.example", subject="x", size=10, metadata={"a": 1},
        )  # fmt: skip
        happenings = fate(mail.recipient, opens=False, clicks=False, link="")

        def write() -> list[dict[str, Any]]:
            return [
                one["msys"]["message_event"] for one in event_batch(mail, happenings, now=100, rng=random.Random(1))
            ]

        events = write()
        assert [event["timestamp"] for event in events] == ["98", "99", "100"]
        assert [event["num_retries"] for event in events] == ["1", "2", "2"]
        assert {event["rcpt_to"] for event in events} == {"delay-2@x.example"}
        assert {event["raw_rcpt_to"] for event in events} == {"Delay-2@X.example"}
        assert all(isinstance(value, str) for event in events for key, value in event.items() if "rcpt_" not in key)
        assert events == write()
