"""A local server that speaks as SparkPost does, for the demo and for tests.

:class:`LocalSparkPost` is its SMTP relay alone. :class:`WholeSparkPost` has its HTTP API and its event webhooks beside
it. Every mail that is accepted is kept in a :class:`Mailbox`; what becomes of it is in :mod:`.fates`.
"""

from . import requirements  # noqa: F401  # first, for its error
from .answers import TOO_MANY_REQUESTS
from .answers import Answer as ApiAnswer
from .answers import Request as ApiRequest
from .certificate import Certificate, make_certificate
from .mailbox import Mailbox, ReceivedMail, count_copies, read_mailbox
from .posting import PostingOptions
from .replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Exchange, Raw, Script, Stage
from .rules import AccountRules
from .server import LocalSparkPost
from .suppression_list import COMPLIANCE
from .whole import WholeSparkPost

__all__ = [
    "COMPLIANCE",
    "HANG_UP",
    "KEEP_AND_HANG_UP",
    "SILENCE",
    "TOO_MANY_REQUESTS",
    "AccountRules",
    "ApiAnswer",
    "ApiRequest",
    "Certificate",
    "Exchange",
    "PostingOptions",
    "LocalSparkPost",
    "Mailbox",
    "Raw",
    "ReceivedMail",
    "Script",
    "Stage",
    "WholeSparkPost",
    "count_copies",
    "make_certificate",
    "read_mailbox",
]
