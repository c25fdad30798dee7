"""What SparkPost would refuse is refused at the call; what it takes is stored as it is sent."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer import Recipient, send_bulk, send_mail
from congressy_mailer.exceptions import InvalidAddress, InvalidHeader, InvalidOption, MailerError
from congressy_mailer.models import Batch, Message
from congressy_mailer.sparkpost import MESSAGE_KEY
from congressy_mailer.sparkpost.options import check_metadata, sparkpost_fields, with_message_key

pytestmark = pytest.mark.django_db

NOTHING: dict[str, Any] = {
    "campaign": None, "tags": (), "metadata": None, "track_opens": None, "track_clicks": None, "sparkpost": None,
}  # fmt: skip

# What our own key takes of the 1000 bytes: {"mailer_id":"<32>",} without the braces.
OURS = len(f'"{MESSAGE_KEY}":"{uuid4().hex}",')


MAIL: dict[str, Any] = {"subject": "Oi", "message": "Olá", "to": "ana@example.com"}


def test_what_sparkpost_takes_is_stored() -> None:
    message = send_mail(
        **MAIL,
        campaign="Inscrições 2026",
        tags=["boleto", gettext_lazy("paid")],
        metadata={"evento": 7, "nome": "Semana da Energia", "vip": None, "lotes": [1, 2.5, {"a": True}]},
        track_opens=True,
        track_clicks=False,
        sparkpost={
            "options": {"ip_pool": "eventos", "inline_css": True},
            "archive": ["Arquivo <arquivo@café.example>", {"email": "b@example.com", "name": "B"}],
        },
    )
    message.refresh_from_db()
    assert message.campaign == "Inscrições 2026"
    assert message.tags == ["boleto", "paid"]
    assert message.metadata == {
        "evento": 7, "nome": "Semana da Energia", "vip": None, "lotes": [1, 2.5, {"a": True}],
    }  # fmt: skip
    assert message.sparkpost == {
        "options": {"open_tracking": True, "click_tracking": False, "ip_pool": "eventos", "inline_css": True},
        "archive": [{"email": "arquivo@xn--caf-dma.example"}, {"email": "b@example.com", "name": "B"}],
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"campaign": "x" * 65}, "campaign has 65 bytes in UTF-8; SparkPost takes 64"),
        ({"campaign": "ç" * 33}, "campaign has 66 bytes"),
        ({"campaign": 7}, "campaign must be text, not int"),
        ({"campaign": "a\nb"}, "campaign holds a line break"),
        ({"tags": "boleto"}, "tags must be a list of texts, not str"),
        ({"tags": {"a": 1}}, "tags must be a list"),
        ({"tags": ["a"] * 11}, "tags has 11 tags; SparkPost takes 10"),
        ({"tags": ["a", ""]}, r"tags\[1\] must be a text that is not empty"),
        ({"tags": [7]}, r"tags\[0\] must be a text"),
        ({"metadata": ["a"]}, "metadata must be a dict, not list"),
        ({"metadata": {1: "a"}}, "metadata has the key 1: keys must be text"),
        ({"metadata": {"a": {"b": [object()]}}}, r"metadata\['a'\]\['b'\]\[0\] is a object"),
        ({"metadata": {"a": float("nan")}}, r"metadata\['a'\] is nan"),
        ({"metadata": {"a": "\ud800"}}, "control character"),
        ({"metadata": {MESSAGE_KEY: "x"}}, "'mailer_id' is the mailer's own key"),
        ({"metadata": {"a": "x" * 1000}}, r"takes 1,002 characters in the X-MSYS-API header"),
        ({"metadata": {"a": " " * 200}}, r"takes 1,202 characters"),
        ({"metadata": {"a": "x" * 800, "b": "y" * 200}}, "SparkPost's events repeat 1,000"),
        ({"track_opens": 1}, "track_opens must be True, False or None, not 1"),
        ({"track_clicks": "no"}, "track_clicks must be True, False or None"),
        ({"sparkpost": []}, "sparkpost must be a dict, not list"),
        ({"sparkpost": {"campaign_id": "c"}}, "give 'campaign_id' as campaign="),
        ({"sparkpost": {"metadata": {}}}, "give 'metadata' as metadata="),
        ({"sparkpost": {"optoins": {}}}, "Did you mean 'options'"),
        ({"sparkpost": {"options": 1}}, "must be a dict, not int"),
        ({"sparkpost": {"options": {"open_tracking": True}}}, "give 'open_tracking' as track_opens="),
        ({"sparkpost": {"options": {"transactional": True}}}, "give 'transactional' as transactional="),
        ({"sparkpost": {"options": {"ip_pol": "a"}}}, "Did you mean 'ip_pool'"),
        ({"sparkpost": {"options": {"ip_pool": 7}}}, "must be text, not 7"),
        ({"sparkpost": {"options": {"sandbox": "yes"}}}, "must be True or False"),
        ({"sparkpost": {"archive": "a@example.com"}}, "must be a list of addresses, not str"),
        ({"sparkpost": {"archive": [f"a{i}@example.com" for i in range(1001)]}}, "have 1,001 addresses"),
        ({"list_id": "novidades"}, "is not one of CONGRESSY_MAILER"),
    ],
)
def test_what_it_would_refuse_is_refused_at_the_call(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        send_mail(**MAIL, **options)
    with pytest.raises(InvalidOption, match=said):
        send_bulk(["ana@example.com"], subject="Oi", message="Olá", **options)
    assert not Message.objects.exists()
    assert not Batch.objects.exists()


@pytest.mark.parametrize("copy", ["not an address", {"name": "A"}, {"email": "a@example.com", "x": 1}, "a@b@c", None])
def test_a_copy_goes_to_an_address(copy: object) -> None:
    with pytest.raises(InvalidAddress, match=r"sparkpost\['bcc'\]\[0\]"):
        send_mail(**MAIL, sparkpost={"bcc": [copy]})


def test_metadata_that_contains_itself_is_refused() -> None:
    metadata: dict[str, Any] = {}
    metadata["again"] = metadata
    with pytest.raises(InvalidOption, match="contains itself"):
        send_mail(**MAIL, metadata=metadata)


def test_the_limit_of_metadata_counts_our_own_key_to_the_byte() -> None:
    room = 1000 - OURS - len('{"a":"","b":""}')
    check_metadata({"a": "x" * 600, "b": "y" * (room - 600)})
    check_metadata({"a": "x" * 600, "b": "é" * ((room - 600) // 2 - 150), "c": ""})
    with pytest.raises(InvalidOption, match="has 1,001 bytes"):
        check_metadata({"a": "x" * 600, "b": "y" * (room - 599)})


def test_the_header_is_ours_to_write() -> None:
    with pytest.raises(InvalidHeader, match="give X-MSYS-API as sparkpost="):
        send_mail(**MAIL, headers={"X-MSYS-API": "{}"})


def test_lists_are_those_of_the_settings() -> None:
    with override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}}):
        assert send_mail(**MAIL, list_id="novidades", transactional=False).list_id == "novidades"
        with pytest.raises(InvalidOption, match="Did you mean 'novidades'"):
            send_mail(**MAIL, list_id="novidade", transactional=False)
        with pytest.raises(InvalidOption, match="goes with transactional=False"):
            send_mail(**MAIL, list_id="novidades")


def test_a_recipient_of_a_batch_adds_to_its_metadata() -> None:
    batch = send_bulk(
        ["ana@example.com", Recipient(to="bia@example.com", metadata={"lote": 2, "evento": 8})],
        subject="Oi",
        message="Olá",
        metadata={"evento": 7},
        campaign="c",
        tags=["t"],
        track_opens=True,
    )
    ana, bia = batch.messages.order_by("id")
    assert (ana.metadata, bia.metadata) == ({"evento": 7}, {"evento": 8, "lote": 2})
    assert (bia.campaign, bia.tags, bia.sparkpost) == ("c", ["t"], {"options": {"open_tracking": True}})
    for wrong in ({"a": "x" * 800, "b": "y" * 200}, ["a"], {MESSAGE_KEY: 1}):
        with pytest.raises(InvalidOption, match=r"recipients\[0\]: metadata"):
            send_bulk([Recipient(to="bia@example.com", metadata=wrong)], subject="Oi", message="Olá")  # type: ignore[arg-type]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda children: st.lists(children) | st.dictionaries(st.text() | st.integers(), children),
    max_leaves=20,
)


@given(anything, anything, anything, anything)
def test_whatever_is_given_it_is_stored_as_it_is_sent_or_refused(
    campaign: Any, tags: Any, metadata: Any, sparkpost: Any
) -> None:
    try:
        fields = sparkpost_fields(
            **{**NOTHING, "campaign": campaign, "tags": tags, "metadata": metadata, "sparkpost": sparkpost}
        )
    except MailerError:
        return
    sent = json.dumps(with_message_key(fields["metadata"], uuid4()), ensure_ascii=False, separators=(",", ":"))
    assert len(sent.encode()) <= 1000
    assert len(fields["campaign"].encode()) <= 64
    assert json.loads(json.dumps(fields)) == fields
