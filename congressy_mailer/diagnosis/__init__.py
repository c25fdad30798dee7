"""``mailer doctor``: examinations of each part of a mail's way, with advice. No mail is sent.

:mod:`.findings` defines examinations; each other module has those of one part.
"""

from . import project, queues, redis_server, mail_servers, sparkpost_account, dns_records, bulk_rules  # noqa: F401, I001
from .findings import EXAMINATIONS, Examination, Finding, Level

__all__ = ["EXAMINATIONS", "Examination", "Finding", "Level"]
