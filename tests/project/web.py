"""The host project behind a web server: ``wsgi`` and ``asgi``, and Python's own server for the first of them."""

from __future__ import annotations

import sys
from wsgiref.simple_server import make_server

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

wsgi = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), wsgi).serve_forever()
