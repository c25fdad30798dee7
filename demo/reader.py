"""Somebody whose mail program offers to leave a list, and who takes the offer (RFC 8058 §3.2)."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from congressy_mailer.testing.local_sparkpost.mailbox import read_mailbox

from .visitors import PageError

_ONE_CLICK = ("List-Unsubscribe", "One-Click")


def unsubscribe_in_one_click(mails: Path, recipient: str) -> bool:
    """Post what the headers of the last mail that offers it say, without looking at any page.

    Returns:
        Whether there was such a mail.

    Raises:
        PageError: the site did not take it.
    """
    for mail in reversed(read_mailbox(mails)):
        link = mail.message["List-Unsubscribe"]
        if recipient in mail.recipients and link and mail.message["List-Unsubscribe-Post"] == "=".join(_ONE_CLICK):
            _post(str(link).strip("<> "))
            return True
    return False


def _post(link: str) -> None:
    try:
        build_opener(ProxyHandler({})).open(link, data=urlencode([_ONE_CLICK]).encode(), timeout=60).close()
    except HTTPError as error:
        error.close()
        raise PageError(f"The site answered {error.code} to one click.") from None
    except OSError as error:
        raise PageError(f"The site did not answer to one click: {error}.") from error
