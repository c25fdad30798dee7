"""The site as a process of its own: ``python -m demo.webserver --port 0``.

Its first line of output is a JSON object with the port. It is Django's development server without the reloader, bound
to 127.0.0.1; where the port is taken, the next free one is used.
"""

from __future__ import annotations

import argparse
import errno
import json

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

_HOST = "127.0.0.1"
_PORTS_TO_TRY = 100


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m demo.webserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="first TCP port to try; 0 (the default): any free one")
    server = _listen(parser.parse_args().port)
    from .project.wsgi import application

    server.set_app(application)
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()


def _listen(first: int) -> ThreadedWSGIServer:
    last = first + _PORTS_TO_TRY if first else 0
    for port in range(first, last + 1):
        try:
            return ThreadedWSGIServer((_HOST, port), WSGIRequestHandler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == last:
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
