"""A whole SparkPost as a process: ``python -m congressy_mailer.testing.local_sparkpost --port 0 --directory mails``.

Its first line of output is a JSON object with all that a client needs: host, port, user and password of
SMTP (the password is the API key, too), host of the HTTP API, and the file to name in ``SSL_CERT_FILE`` and
``REQUESTS_CA_BUNDLE``. It ends on SIGTERM, on Ctrl-C, and with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from pathlib import Path

from .lifetime import die_with_parent
from .posting import PostingOptions
from .rules import AccountRules
from .whole import WholeSparkPost


def main() -> None:
    """Serve until a signal."""
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m congressy_mailer.testing.local_sparkpost", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 (the default): any free one")
    parser.add_argument("--api-port", type=int, default=0, help="the same for the HTTP API")
    parser.add_argument("--directory", type=Path, help="where accepted mail is stored; nowhere if left out")
    parser.add_argument("--password", help="the only password accepted; made up if left out")
    parser.add_argument("--seed", type=int, default=0, help="of how events are posted")
    parser.add_argument("--idle-seconds", type=float, default=60, help="a connection may be silent so long")
    parser.add_argument("--suppression", choices=["asynchronous", "inline"], default="asynchronous")
    parser.add_argument("--listed-categories", choices=["hard", "hard and admin"], default="hard")
    parser.add_argument("--list-unsubscribe", choices=["one-click", "mailto"], default="one-click")
    parser.add_argument(
        "--transactional-unsub", action="store_true", help="List-Unsubscribe in transactional mail, too"
    )
    options = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    die_with_parent(parent)
    with WholeSparkPost(
        smtp_port=options.port,
        api_port=options.api_port,
        key=options.password,
        directory=options.directory,
        idle_seconds=options.idle_seconds,
        posting=PostingOptions(seed=options.seed),
        rules=AccountRules(
            suppression=options.suppression,
            listed_categories=options.listed_categories,
            list_unsubscribe=options.list_unsubscribe,
            transactional_unsub=options.transactional_unsub,
        ),
    ) as server:
        connection = {
            "host": server.smtp.host,
            "port": server.smtp.port,
            "user": server.smtp.user,
            "password": server.account.key,
            "api_host": server.api.address,
            "certificate": str(server.certificate.authority),
        }
        print(json.dumps(connection), flush=True)
        stopping.wait()


if __name__ == "__main__":
    main()
