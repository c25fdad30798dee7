"""The one setting: unknown keys, wrong values, defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.debug import SafeExceptionReporterFilter

from congressy_mailer.conf import default_reply_to, default_sender, mailer_settings


def test_unknown_key_names_the_nearest() -> None:
    with (
        override_settings(CONGRESSY_MAILER={"SLICE_SIZES": 3}),
        pytest.raises(ImproperlyConfigured, match="unknown key 'SLICE_SIZES'. Did you mean 'SLICE_SIZE'"),
    ):
        mailer_settings()


def test_unknown_key_far_from_all_lists_them() -> None:
    with (
        override_settings(CONGRESSY_MAILER={"zzz": 3}),
        pytest.raises(ImproperlyConfigured, match="Known keys: CELERY_APP, QUEUE"),
    ):
        mailer_settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "must be a dict, not list"),
        ({"LEASE": 60}, r"\['LEASE'\] must be a timedelta above zero, not 60"),
        ({"LEASE": timedelta(0)}, r"\['LEASE'\] must be a timedelta above zero"),
        ({"SLICE_SIZE": 0}, r"\['SLICE_SIZE'\] must be a whole number from 1, not 0"),
        ({"SLICE_SIZE": True}, r"\['SLICE_SIZE'\] must be a whole number from 1, not True"),
        ({"ON_CRASH": "drop"}, r"\['ON_CRASH'\] must be 'resend' or 'hold'"),
        ({"QUEUE": ""}, r"\['QUEUE'\] must be a text that is not empty"),
        ({"CELERY_APP": 3}, r"\['CELERY_APP'\] must be a text that is not empty"),
        ({"RATE_LIMIT": "100"}, r"\['RATE_LIMIT'\] must be a whole number for each .*, such as \"100/s\".*, not str"),
        ({"RATE_LIMIT": 100}, r"\['RATE_LIMIT'\] must be a whole number for each .*, not 100"),
        ({"RATE_LIMIT": ["1/s"]}, r"\['RATE_LIMIT'\] must be a whole number for each"),
        ({"MAX_CONNECTIONS": 0}, r"\['MAX_CONNECTIONS'\] must be a whole number from 1, not 0"),
        ({"TRANSPORTS": ["x"]}, r"\['TRANSPORTS'\] must be a dict"),
        ({"TRANSPORTS": {"eu": {}}}, r"\['TRANSPORTS'\]\['eu'\] must be a dict with BACKEND"),
        ({"TRANSPORTS": {"eu": {"BACKEND": "x", "OPTION": {}}}}, "unknown key 'OPTION'"),
        ({"FAILOVER": "api"}, r"\['FAILOVER'\] must be a list of aliases, not str"),
        ({"SPARKPOST_HEADER": "yes"}, r"must be 'auto' or 'always' or 'never'"),
        ({"SUPPRESSION": {"bounce": "all"}}, r"\['bounce'\] is not a rule: known are hard, admin"),
        ({"SUPPRESSION": {"hard": "everything"}}, r"\['hard'\] must be 'all', 'transactional'"),
        ({"SUPPRESSION": {"soft": 0}}, r"\['soft'\] must be a whole number from 1, or None"),
        ({"SITE_URL": "www.congressy.com"}, r"\['SITE_URL'\] must be a URL such as"),
        ({"SITE_URL": "https://www.congressy.com/?a"}, r"\['SITE_URL'\] must be a URL such as"),
        ({"SITE_URL": "https://congresso.são.example"}, r"\['SITE_URL'\] must be a URL such as"),
        ({"SITE_URL": "https://["}, r"\['SITE_URL'\] must be a URL such as"),
        *(
            ({"LISTS": {list_id: "A"}}, r"\['LISTS'\] must be a dict of names by ids")
            for list_id in ("a b", "", ".a", "a.", "a..b", "n" * 256, "a\n")
        ),
        ({"LISTS": {"news": "A", "News": "B"}}, r"\['LISTS'\] has two ids that differ only in case"),
        ({"INTRANET_HOSTS": "web1"}, r"\['INTRANET_HOSTS'\] must be a list of names without a dot"),
        ({"INTRANET_HOSTS": ["web1.example"]}, r"\['INTRANET_HOSTS'\] must be a list of names without a dot"),
        ({"INTRANET_HOSTS": ["web_1"]}, r"\['INTRANET_HOSTS'\] must be a list .* letters, digits and hyphens"),
        ({"FAILURE_SUMMARY_TO": "ops@example.com"}, "must be a list of addresses"),
        ({"FAILURE_SUMMARY_TO": ["ops"]}, "must be a list of addresses"),
        ({"INTRANET_HOSTS": [1]}, r"\['INTRANET_HOSTS'\] must be a list"),
        ({"WEBHOOK_MAX_BYTES": 0}, r"\['WEBHOOK_MAX_BYTES'\] must be a whole number"),
    ],
)
def test_wrong_values_are_named(given: Any, message: str) -> None:
    with override_settings(CONGRESSY_MAILER=given), pytest.raises(ImproperlyConfigured, match=message):
        mailer_settings()


@pytest.mark.parametrize(
    "given",
    [
        {"WEBHOOK_SECRETS": "bearer s3cr3t"},
        {"WEBHOOK_SECRETS": ["s3cr3t"]},
        {"WEBHOOK_SECRETS": ["basic s3cr3t"]},
        {"SPARKPOST_API_KEY": "s3cr3t\n"},
        {"SPARKPOST_API_KEY": ["s3cr3t"]},
    ],
)
def test_a_wrong_secret_is_not_repeated(given: dict[str, Any]) -> None:
    with override_settings(CONGRESSY_MAILER=given), pytest.raises(ImproperlyConfigured) as raised:
        mailer_settings()
    assert "s3cr3t" not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    given = {"SPARKPOST_API_KEY": "s3cr3t", "WEBHOOK_SECRETS": ["basic user:s3cr3t", "bearer s3cr3t", "token s3cr3t"]}
    with override_settings(CONGRESSY_MAILER=given):
        assert mailer_settings().SPARKPOST_API_KEY == "s3cr3t"
        assert "s3cr3t" not in repr(mailer_settings())
        assert "s3cr3t" not in str(SafeExceptionReporterFilter().get_safe_settings())


def test_values_and_defaults() -> None:
    with override_settings(CONGRESSY_MAILER={"LEASE": timedelta(minutes=3)}):
        assert timedelta(minutes=3) == mailer_settings().LEASE
        assert mailer_settings().QUEUE == "mailer"


@pytest.mark.parametrize("value", [None, "100/s", "1000/m", "20000/h"])
def test_a_rate_limit_is_a_text_or_none(value: str | None) -> None:
    with override_settings(CONGRESSY_MAILER={"RATE_LIMIT": value, "MAX_CONNECTIONS": None}):
        assert value == mailer_settings().RATE_LIMIT
        assert mailer_settings().MAX_CONNECTIONS is None


def test_sender_falls_back_on_django() -> None:
    with override_settings(CONGRESSY_EMAIL_SENDER="mail@congressy.net", DEFAULT_FROM_EMAIL="x@example.com"):
        assert default_sender() == "mail@congressy.net"
    with override_settings(CONGRESSY_EMAIL_SENDER=None, DEFAULT_FROM_EMAIL="x@example.com"):
        assert default_sender() == "x@example.com"


def test_reply_to_is_one_or_many() -> None:
    with override_settings(CONGRESSY_REPLY_TO="congressy@congressy.com"):
        assert default_reply_to() == ["congressy@congressy.com"]
    with override_settings(CONGRESSY_REPLY_TO=["a@x.com", "b@x.com"]):
        assert default_reply_to() == ["a@x.com", "b@x.com"]
    with override_settings(CONGRESSY_REPLY_TO=None):
        assert default_reply_to() == []
