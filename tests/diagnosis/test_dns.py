"""What ``mailer doctor`` finds in the DNS of the senders' domains, asked of a server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from congressy_mailer.diagnosis import EXAMINATIONS, Level
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost

pytest.importorskip("dns", reason="dnspython is an extra, which the tests' extra brings")

from tests.support.dns_server import DnsServer

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("english")]

DOMAIN = "congressy.net"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    """The only server that is asked. It knows a domain with which nothing is wrong."""
    import dns.resolver

    before = dns.resolver.default_resolver
    with DnsServer() as one:
        one.records = {
            (DOMAIN, "TXT"): ['"google-site-verification=x"', '"v=spf1 include:_spf.sparkpostmail.com ~all"'],
            (f"_dmarc.{DOMAIN}", "TXT"): ['"v=DMARC1; p=none"'],
            (DOMAIN, "MX"): [f"10 mail.{DOMAIN}."],
        }
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [one.host], one.port
        dns.resolver.default_resolver = resolver
        yield one
        dns.resolver.default_resolver = before


def told(name: str) -> tuple[Level, str]:
    (finding,) = EXAMINATIONS[name].findings()
    return finding.level, finding.text


def test_nothing_is_wrong(server: DnsServer) -> None:
    assert told("dns-spf") == (Level.GOOD, "")
    assert told("dns-dmarc") == (Level.GOOD, "")
    assert told("dns-mx") == (Level.GOOD, f"{DOMAIN}: mail.{DOMAIN}.")


@pytest.mark.parametrize(
    ("records", "level", "words"),
    [
        (['"v=other"'], Level.WARNING, "has no SPF record"),
        (['"v=spf1 -all"', '"v=spf1 ~all"'], Level.ERROR, "has 2 SPF records"),
        ([f'"v=spf1 {" ".join(f"include:{n}.example.com" for n in range(11))} ~all"'], Level.ERROR, "ten look-ups"),
        (['"v=spf1 +all"'], Level.ERROR, "lets any server send"),
    ],
)
def test_spf(server: DnsServer, records: list[str], level: Level, words: str) -> None:
    server.records[DOMAIN, "TXT"] = records
    found, text = told("dns-spf")
    assert (found, words in text) == (level, True)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "has no DMARC record"),
        (['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"'], "has 2 DMARC records"),
        (['"v=DMARC1; p=maybe"'], "has no policy"),
    ],
)
def test_dmarc(server: DnsServer, records: list[str], words: str) -> None:
    del server.records[f"_dmarc.{DOMAIN}", "TXT"]
    if records:
        server.records[f"_dmarc.{DOMAIN}", "TXT"] = records
    level, text = told("dns-dmarc")
    assert (level, words in text) == (Level.ERROR, True)


def test_dmarc_of_the_organisation_counts(server: DnsServer, settings: Any) -> None:
    settings.CONGRESSY_EMAIL_SENDER = f"mail@news.{DOMAIN}"
    assert told("dns-dmarc")[0] == Level.GOOD


def test_a_domain_that_takes_no_mail(server: DnsServer) -> None:
    server.records[DOMAIN, "MX"] = ["0 ."]
    assert "accepts no mail" in told("dns-mx")[1]
    del server.records[DOMAIN, "MX"]
    level, text = told("dns-mx")
    assert (level, "neither an MX record nor an address" in text) == (Level.ERROR, True)
    server.records[DOMAIN, "A"] = ["192.0.2.1"]
    assert told("dns-mx")[0] == Level.GOOD


def test_dkim_without_a_key_of_sparkpost(server: DnsServer) -> None:
    assert told("dns-dkim") == (Level.SKIPPED, f"The DKIM selector of {DOMAIN} is not known.")


def test_dkim(server: DnsServer, local_sparkpost: WholeSparkPost) -> None:
    level, text = told("dns-dkim")
    assert (level, "There is no DKIM key at scph0526._domainkey" in text) == (Level.ERROR, True)
    key = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ"
    # Long ones are in several texts.
    server.records[f"scph0526._domainkey.{DOMAIN}", "TXT"] = [f'"v=DKIM1; k=rsa; p={key[:20]}" "{key[20:]}"']
    assert told("dns-dkim")[0] == Level.GOOD
    server.records[f"scph0526._domainkey.{DOMAIN}", "TXT"] = [f'"v=DKIM1; k=rsa; p={key[:20]}"']
    level, text = told("dns-dkim")
    assert (level, "is not the one" in text) == (Level.ERROR, True)


def test_servers_that_fail(server: DnsServer) -> None:
    server.fails = True
    level, text = told("dns-spf")
    assert (level, "cannot be queried" in text) == (Level.WARNING, True)
