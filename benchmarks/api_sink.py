"""The HTTP server that mail is sent to: the local SparkPost's API, which throws mail away and counts recipients."""

from __future__ import annotations

import time

from congressy_mailer.testing.local_sparkpost.answers import Answer, Request
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost

from .sink import NotAcceptedError

_POLL_SECONDS = 0.002


class ApiSink(WholeSparkPost):
    """SparkPost's API, as a context manager."""

    def start(self) -> None:
        #: When each recipient was accepted, as ``time.monotonic()`` has it.
        self.accepted: list[float] = []
        self.api.script = self._accept
        super().start()

    def _accept(self, request: Request) -> Answer | None:
        """What a transmission is answered; reading its body is all that it costs here."""
        # django-anymail writes it with a slash at its end.
        if request.path.rstrip("/") != "/transmissions":
            return None
        count = len(request.json()["recipients"])
        # What was sent is not kept.
        self.api.requests.clear()
        self.accepted += [time.monotonic()] * count
        return Answer(
            200,
            {
                "results": {
                    "total_accepted_recipients": count,
                    "total_rejected_recipients": 0,
                    "id": "11668787484950529",
                }
            },
        )

    def wait_for(self, count: int, seconds: float) -> float:
        """Wait until so many recipients have been accepted since the start; returns when the last one was.

        Raises:
            NotAcceptedError: the time was over.
        """
        deadline = time.monotonic() + seconds
        while len(self.accepted) < count:
            if time.monotonic() > deadline:
                missing = count - len(self.accepted)
                raise NotAcceptedError(f"{missing} of the mails were not accepted within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        return self.accepted[count - 1]
