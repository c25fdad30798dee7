"""What SparkPost's Transmissions API may answer, answer by answer."""

from __future__ import annotations

from typing import Any

import pytest

from congressy_mailer.exceptions import SparkPostError
from congressy_mailer.replies import Verdict
from congressy_mailer.sparkpost.answers import classify_error, parse_result

ADDRESSES = ["ana@example.com", "eva@example.com", "rui@example.com"]


@pytest.mark.parametrize(
    ("status", "codes", "text", "verdict", "in_doubt"),
    [
        # Nobody was asked, or nobody answered.
        (None, (), "cannot be reached", Verdict.UNAVAILABLE, False),
        # The key, the account, the place.
        (401, (), "Unauthorized", Verdict.UNAVAILABLE, False),
        (401, ("1303",), "Invalid customer id", Verdict.UNAVAILABLE, False),
        (403, ("1100",), "permission denied", Verdict.UNAVAILABLE, False),
        (403, ("1601",), "No license", Verdict.UNAVAILABLE, False),
        (404, ("1101",), "invalid URI", Verdict.UNAVAILABLE, False),
        (405, ("1102",), "invalid HTTP method", Verdict.UNAVAILABLE, False),
        (302, (), "Found", Verdict.UNAVAILABLE, False),
        (402, (), "Payment Required", Verdict.UNAVAILABLE, False),
        (407, (), "Proxy Authentication Required", Verdict.UNAVAILABLE, False),
        # Not now.
        (408, (), "Request Timeout", Verdict.UNAVAILABLE, False),
        (420, ("2101",), "Exceed Sending Limit (hourly)", Verdict.UNAVAILABLE, False),
        (429, (), "Too many requests", Verdict.UNAVAILABLE, False),
        (400, ("1502",), "Server resources unavailable", Verdict.UNAVAILABLE, False),
        (400, ("1910",), "Message generation not configured", Verdict.UNAVAILABLE, False),
        (500, ("1500",), "Failed to update database", Verdict.UNAVAILABLE, False),
        (503, ("1900",), "Message generation module not available", Verdict.UNAVAILABLE, False),
        (503, (), "<h1>Service Unavailable</h1>", Verdict.UNAVAILABLE, False),
        # The sender's domain.
        (400, ("7000",), "Sending domain blacklisted", Verdict.SENDER_REFUSED, False),
        (400, ("7001",), "Invalid domain: Unconfigured or unverified sending domain.", Verdict.SENDER_REFUSED, False),
        (400, (), "Unconfigured Sending Domain <example.com>", Verdict.SENDER_REFUSED, False),
        (400, ("2010",), "Unverified tracking domain", Verdict.SENDER_REFUSED, False),
        # This mail.
        (400, ("1200",), "invalid params", Verdict.REJECTED, False),
        (400, ("1901",), "Message failed to generate", Verdict.REJECTED, False),
        (400, ("1902",), "Message generation rejected: recipient address suppressed", Verdict.REJECTED, False),
        (400, ("5002",), "No valid recipients in list", Verdict.REJECTED, False),
        (409, ("1602",), "Resource in use", Verdict.REJECTED, False),
        (413, (), "Request Entity Too Large", Verdict.REJECTED, False),
        (422, ("1300",), "invalid data format/type/length", Verdict.REJECTED, False),
        (422, ("2007",), "Metadata size too large", Verdict.REJECTED, False),
        (422, ("3020",), "template mime parsing error", Verdict.REJECTED, False),
        # Without a code of SparkPost's it may be anybody's word: no reason to give a mail up.
        (400, (), "<h1>Bad Request</h1>", Verdict.DEFERRED, False),
        (418, (), "I am a proxy", Verdict.DEFERRED, False),
        # Somebody who does not know has answered.
        (500, (), "<h1>Oops</h1>", Verdict.DEFERRED, True),
        (502, (), "<h1>Bad Gateway</h1>", Verdict.DEFERRED, True),
        (504, ("1900",), "Gateway Timeout", Verdict.DEFERRED, True),
        (200, (), "<h1>Welcome to the hotel's network</h1>", Verdict.DEFERRED, True),
    ],
)
def test_what_an_answer_means(
    status: int | None, codes: tuple[str, ...], text: str, verdict: Verdict, in_doubt: bool
) -> None:
    found = classify_error(SparkPostError(text, status=status, codes=codes))
    assert (found.verdict, found.in_doubt) == (verdict, in_doubt)
    assert text in found.reply.text


def test_no_answer_leaves_it_in_doubt() -> None:
    found = classify_error(SparkPostError("The server said nothing in time.", in_doubt=True))
    assert (found.verdict, found.in_doubt, found.reply.code) == (Verdict.DEFERRED, True, None)


def answer(rejected: int, *errors: Any) -> dict[str, Any]:
    results = {"id": "11668787484950529", "total_rejected_recipients": rejected, "rcpt_to_errors": list(errors)}
    return {"results": results}


def test_all_are_accepted() -> None:
    found = parse_result(answer(0), ADDRESSES)
    assert (str(found.reply), found.rejected, found.unclear) == ("200 OK 11668787484950529", {}, False)


def test_those_that_are_named_are_refused_and_no_others() -> None:
    error = {"code": "1902", "message": "Message generation rejected", "description": "recipient 'Eva@example.com' …"}
    found = parse_result(answer(1, error), ADDRESSES)
    assert list(found.rejected) == ["eva@example.com"]
    assert "message generation rejected" in str(found.rejected["eva@example.com"]).lower()
    assert not found.unclear


def test_an_address_in_a_longer_one_is_not_named() -> None:
    found = parse_result(answer(1, {"description": "<nova@example.com.br> and maria-ana@example.com"}), ADDRESSES)
    assert found.rejected == {}
    assert found.unclear


def test_where_all_are_refused_nobody_needs_a_name() -> None:
    error = {"code": "1400", "message": "required field is missing", "description": "address.email is required"}
    found = parse_result(answer(3, error, error, error), ADDRESSES)
    assert set(found.rejected) == set(ADDRESSES)
    assert all("required field is missing" in str(reply) for reply in found.rejected.values())
    assert not found.unclear


@pytest.mark.parametrize(
    ("accepted", "rejected"), [(1, 0), (2, 0), ("2", "0"), (4, 0), (2, 2), (1, 3), (1, 1), (2, None)]
)
def test_counts_that_do_not_add_up_to_the_recipients_are_unclear(accepted: object, rejected: object) -> None:
    results = {"id": "1", "total_accepted_recipients": accepted, "total_rejected_recipients": rejected}
    found = parse_result({"results": results}, ADDRESSES)
    assert (found.rejected, found.unclear) == ({}, True)


def test_who_was_refused_without_a_name_is_unclear() -> None:
    found = parse_result(answer(1, {"code": "1400", "message": "required field is missing"}), ADDRESSES)
    assert (found.rejected, found.unclear) == ({}, True)


@pytest.mark.parametrize(
    "strange",
    [{}, {"results": 7}, {"results": {}}, {"results": {"rcpt_to_errors": 3}}, {"errors": [{"message": "no"}]}],
)
def test_an_answer_that_speaks_of_no_transmission_is_no_acceptance(strange: dict[str, Any]) -> None:
    found = parse_result(strange, ADDRESSES)
    assert (found.rejected, found.unclear, found.reply.code) == ({}, True, None)


def test_where_it_was_taken_for_nobody_nobody_has_it() -> None:
    found = parse_result({"results": {"id": "1", "total_accepted_recipients": 0}}, ADDRESSES)
    assert set(found.rejected) == set(ADDRESSES)


def test_numbers_may_be_texts() -> None:
    found = parse_result({"results": {"id": "1", "total_rejected_recipients": "1"}}, ADDRESSES)
    assert found.unclear


def test_where_more_are_named_than_were_refused_nobody_knows_who_was() -> None:
    error = {"code": "1300", "description": "ana@example.com is not eva@example.com"}
    found = parse_result(answer(1, error), ADDRESSES)
    assert (found.rejected, found.unclear) == ({}, True)


@pytest.mark.parametrize("errors", [7, None, [7, None], "x"])
def test_errors_in_a_strange_shape_leave_it_unclear(errors: Any) -> None:
    results = {"id": "1", "total_rejected_recipients": 1, "rcpt_to_errors": errors}
    assert parse_result({"results": results}, ADDRESSES).unclear
