"""Django signals for a host that wants to know. Receivers run in the worker; what one raises is logged, and no more.

.. data:: transport_unavailable

   A mail backend can no longer be used; its mail stays queued. Sent once, when that begins. Arguments: ``using``
   (alias, empty for the default one), ``sender_domain`` (empty: no mail at all is taken, else only this domain is
   refused), ``reason`` (text for people).

.. data:: transport_available

   It can be used again. Arguments: ``using``, ``sender_domain``, and ``unavailable_for`` (``timedelta``).
"""

from __future__ import annotations

from django.dispatch import Signal

transport_unavailable = Signal()
transport_available = Signal()
