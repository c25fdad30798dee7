"""SparkPost's own ``List-Unsubscribe``, which it puts over any other.

Mail that is not transactional always carries it (article "List-unsubscribe Functionality"), and "since the header is
auto-generated it cannot be changed or removed" (article "Gmail shows mailing list information"). Transactional mail is
left as it is (article "Remove List-Unsubscribe Header").
"""

from __future__ import annotations

import re

from .heads import split_head
from .rules import AccountRules

#: Where SparkPost's links lead to.
HOST = "unsubscribe.sparkpost.example"

_FIELD = rb"(?im)^%b[ \t]*:.*(?:\r\n|\n|\Z)(?:[ \t].*(?:\r\n|\n|\Z))*"
_UNSUBSCRIBE = re.compile(_FIELD % b"list-unsubscribe")
_UNSUBSCRIBE_POST = re.compile(_FIELD % b"list-unsubscribe-post")


def with_list_unsubscribe(content: bytes, *, message_id: str, transactional: bool, rules: AccountRules) -> bytes:
    """The mail as it goes on.

    Args:
        content: the mail as it came.
        message_id: SparkPost's id of it.
        transactional: whether the mail was sent as such.
        rules: of the account.
    """
    if transactional and not rules.transactional_unsub:
        return content
    head, rest = split_head(content)
    mailto = f"<mailto:unsubscribe@{HOST}?subject=unsubscribe:{message_id}>"
    head = _UNSUBSCRIBE.sub(b"", head)
    if rules.list_unsubscribe == "mailto":
        return f"List-Unsubscribe: {mailto}\r\n".encode() + head + rest
    fields = f"List-Unsubscribe: {mailto},\r\n <https://{HOST}/{message_id}>\r\n"
    fields += "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    return fields.encode() + _UNSUBSCRIBE_POST.sub(b"", head) + rest
