"""The DNS of the senders' domains: what receivers look up before they take a mail."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import mailer_settings
from ..exceptions import SparkPostError
from ..sparkpost.account_api import sending_domain
from .findings import Finding, error, examination, good, skipped, warning
from .senders import sending_domains

# Seconds for one question, with all servers that are asked.
_LIFETIME = 5.0

#: RFC 7208 §4.6.4.
_MOST_SPF_LOOKUPS = 10
_SPF_LOOKUP = re.compile(r"[+?~-]?(?:include:|a(?:[:/]|$)|mx(?:[:/]|$)|ptr|exists:)|redirect=", re.IGNORECASE)


class _Unanswered(Exception):
    """The DNS cannot be asked."""


def _lookup(name: str, kind: str) -> list[Any]:
    """Records of a name; none where there are none.

    Raises:
        _Unanswered: no server answers, or one says that it failed.
    """
    import dns.exception
    import dns.resolver

    try:
        return list(dns.resolver.resolve(name, kind, lifetime=_LIFETIME, raise_on_no_answer=False).rrset or ())
    except dns.resolver.NXDOMAIN:
        return []
    except dns.exception.DNSException as failure:
        raise _Unanswered(str(failure)) from failure


def _texts(name: str, beginning: str) -> list[str]:
    found = (b"".join(record.strings).decode("utf-8", "replace") for record in _lookup(name, "TXT"))
    return [text for text in found if text.lower().startswith(beginning)]


def _domains() -> Sequence[str] | Finding:
    try:
        import dns.resolver  # noqa: F401
    except ImportError:
        return skipped(_('The DNS is not looked at without dnspython: pip install "congressy-mailer[doctor]".'))
    return sending_domains() or skipped(_("There is no sender with a public domain."))


def _for_each_domain(look: Any) -> Iterator[Finding]:
    domains = _domains()
    if isinstance(domains, Finding):
        yield domains
        return
    for domain in domains:
        try:
            yield from look(domain)
        except _Unanswered as failure:
            yield warning(
                _("The DNS of %(domain)s cannot be queried: %(error)s") % {"domain": domain, "error": failure},
                _("Look at the name servers of this host, and of the domain."),
            )


@examination("dns-spf", gettext_lazy("DNS: SPF"))
def examine_spf() -> Iterator[Finding]:
    """Looks up the SPF record (RFC 7208) of each sender's domain.

    The record names the servers that may send for the domain. Two records, or more than ten look-ups, are invalid.
    """
    yield from _for_each_domain(_examine_spf)


def _examine_spf(domain: str) -> Iterator[Finding]:
    records = _texts(domain, "v=spf1")
    if not records:
        yield warning(
            _("%(domain)s has no SPF record.") % {"domain": domain},
            _('Add a TXT record such as "v=spf1 include:_spf.sparkpostmail.com ~all".'),
        )
    elif len(records) > 1:
        yield error(
            _("%(domain)s has %(count)d SPF records, and so none that counts.")
            % {"domain": domain, "count": len(records)},
            _("Put everything into one record."),
        )
    elif sum(bool(_SPF_LOOKUP.match(term)) for term in records[0].split()[1:]) > _MOST_SPF_LOOKUPS:
        yield error(
            _("The SPF record of %(domain)s takes more than ten look-ups, and so does not count.") % {"domain": domain},
            _("Leave out what does not send for the domain any more."),
        )
    elif "+all" in records[0].lower().split() or "all" in records[0].lower().split():
        yield error(
            _("The SPF record of %(domain)s lets any server send for it.") % {"domain": domain},
            _("End it with ~all or -all."),
        )


@examination("dns-dkim", gettext_lazy("DNS: DKIM"))
def examine_dkim() -> Iterator[Finding]:
    """Looks up the DKIM key (RFC 6376) of each sender's domain, by the selector from SparkPost's API.

    Without ``SPARKPOST_API_KEY`` the selector is unknown, and nothing is looked up.
    """
    yield from _for_each_domain(_examine_dkim)


def _examine_dkim(domain: str) -> Iterator[Finding]:
    dkim: Any = {}
    if mailer_settings().SPARKPOST_API_KEY is not None:
        with suppress(SparkPostError):
            dkim = sending_domain(domain).get("dkim") or {}
    selector, public = dkim.get("selector"), str(dkim.get("public", ""))
    if not selector:
        yield skipped(_("The DKIM selector of %(domain)s is not known.") % {"domain": domain})
        return
    name = f"{selector}._domainkey.{domain}"
    records = [record for record in _texts(name, "") if "p=" in record]
    values = {"name": name}
    if not records:
        yield error(
            _("There is no DKIM key at %(name)s: mail is not signed for the domain of its sender.") % values,
            _("Add the TXT record that SparkPost's app shows, under Sending Domains."),
        )
    elif public and public not in "".join(records).replace(" ", ""):
        yield error(
            _("The DKIM key at %(name)s is not the one that SparkPost signs with.") % values,
            _("Put the key there that SparkPost's app shows, whole: long ones are cut by some DNS providers."),
        )


@examination("dns-dmarc", gettext_lazy("DNS: DMARC"))
def examine_dmarc() -> Iterator[Finding]:
    """Looks up the DMARC record (RFC 7489) of each sender's domain, or of its parent domain.

    Gmail and Yahoo require one of bulk senders; ``p=none`` is enough.
    """
    yield from _for_each_domain(_examine_dmarc)


def _examine_dmarc(domain: str) -> Iterator[Finding]:
    # The record of the organisation's domain counts for those below it.
    names = [domain, *([domain.partition(".")[2]] if domain.count(".") > 1 else [])]
    records = next((found for name in names if (found := _texts(f"_dmarc.{name}", "v=dmarc1"))), [])
    if not records:
        yield error(
            _("%(domain)s has no DMARC record: Gmail and Yahoo refuse bulk mail from it.") % {"domain": domain},
            _('Add a TXT record at _dmarc.%(domain)s, for a beginning "v=DMARC1; p=none; rua=mailto:you@%(domain)s".')
            % {"domain": domain},
        )
    elif len(records) > 1:
        yield error(
            _("%(domain)s has %(count)d DMARC records, and so none that counts.")
            % {"domain": domain, "count": len(records)},
            _("Leave one."),
        )
    elif not re.search(r";\s*p\s*=\s*(?:none|quarantine|reject)\b", records[0], re.IGNORECASE):
        yield error(
            _("The DMARC record of %(domain)s has no policy that receivers know.") % {"domain": domain},
            _("It must say p=none, p=quarantine or p=reject."),
        )


@examination("dns-mx", gettext_lazy("DNS: MX"))
def examine_mx() -> Iterator[Finding]:
    """Checks that the domain of each sender accepts mail, by an MX record or an address record (RFC 5321 §5.1).

    Receivers refuse mail from a domain to which no reply can be sent.
    """
    yield from _for_each_domain(_examine_mx)


def _examine_mx(domain: str) -> Iterator[Finding]:
    servers = [str(record.exchange) for record in _lookup(domain, "MX")]
    if servers == ["."]:
        yield error(
            _("%(domain)s declares that it accepts no mail (RFC 7505): receivers refuse mail from it.")
            % {"domain": domain},
            _("Give it an MX record, or send from a domain that has one."),
        )
    elif not servers and not _lookup(domain, "A") and not _lookup(domain, "AAAA"):
        yield error(
            _("%(domain)s has neither an MX record nor an address: receivers refuse mail from it.")
            % {"domain": domain},
            _("Give it an MX record, or send from a domain that has one."),
        )
    else:
        yield good(f"{domain}: {', '.join(servers) or 'A'}")
