"""A local server that speaks as SparkPost does, for the demo and for tests.

It knows SparkPost's SMTP relay; every mail that it accepts is kept in a :class:`Mailbox`.
"""

from .certificate import Certificate, make_certificate
from .mailbox import Mailbox, ReceivedMail, count_copies, read_mailbox
from .replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Exchange, Raw, Script, Stage
from .server import LocalSparkPost

__all__ = [
    "HANG_UP",
    "KEEP_AND_HANG_UP",
    "SILENCE",
    "Certificate",
    "Exchange",
    "LocalSparkPost",
    "Mailbox",
    "Raw",
    "ReceivedMail",
    "Script",
    "Stage",
    "count_copies",
    "make_certificate",
    "read_mailbox",
]
