"""``mailer doctor``: the whole way of a mail, tried for real, and what to do where it does not hold.

:mod:`.findings` is what an examination is; the others are one for each part of the way. No mail is sent.
"""

from . import project, queues, redis_server, mail_servers, sparkpost_account, dns_records, bulk_rules  # noqa: F401, I001
from .findings import EXAMINATIONS, Examination, Finding, Level

__all__ = ["EXAMINATIONS", "Examination", "Finding", "Level"]
