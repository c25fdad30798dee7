"""When a task comes to its end: with its time slice, with the lease of its claims, or because its process is ended."""

from __future__ import annotations

from ..conf import mailer_settings
from ..models import clock

#: Seconds after which a slice ends even if nothing else waits.
LONGEST_SLICE = 30.0
# Of a lease, and of ``TIME_LIMIT``, it is at most this share.
_LONGEST_SHARE = 0.25

# The share of a lease in which work goes on. Not to the last moment: another worker may take the message then.
_LEASE_USED = 0.9


class Deadlines:
    """Times of one task, all of them by :func:`congressy_mailer.models.clock.elapsed`.

    A machine that is suspended wakes up with its time over: by :func:`time.monotonic`, which stands still meanwhile on
    Linux, it would send what others have taken from it long ago.
    """

    def __init__(self) -> None:
        conf = mailer_settings()
        now = clock.elapsed()
        self._lease = conf.LEASE.total_seconds()
        self._time_slice = conf.TIME_SLICE.total_seconds()
        self._first_slice_ends = self._slice_ends = now + self._time_slice
        self._slice_ended = False
        longest = min(LONGEST_SLICE, _LONGEST_SHARE * self._lease, _LONGEST_SHARE * conf.TIME_LIMIT.total_seconds())
        self._last_slice_ends = now + longest
        #: When nothing more may be begun, since another worker may take what was claimed first.
        self.lease_ends = now + self._lease * _LEASE_USED
        #: When another worker may take what is in a server's hands.
        self.claims_end = self.lease_ends
        #: From when on the claims on what is handed over are to be extended.
        self.extend_at = now + self._lease / 2
        #: The process is to end.
        self.stopped = False

    @property
    def slice_ends(self) -> float:
        """When the time slice is over; 0 where it is to end at once."""
        return 0.0 if self._slice_ended else self._slice_ends

    @property
    def may_be_prolonged(self) -> bool:
        """Whether the slice may end later than it does now."""
        return not self._slice_ended and self._slice_ends < self._last_slice_ends

    def prolong_slice(self) -> None:
        """Have the slice begin anew at this moment, but go on for no more than half a minute in all."""
        ends = min(clock.elapsed() + self._time_slice, self._last_slice_ends)
        self._slice_ends = max(self._slice_ends, ends)

    def end_prolonging(self) -> None:
        """Have the slice end as if it had not been prolonged: now, where it would have ended before."""
        self._slice_ends = min(self._slice_ends, max(self._first_slice_ends, clock.elapsed()))

    @property
    def slice_is_over(self) -> bool:
        return clock.elapsed() > self.slice_ends

    @property
    def slice_left(self) -> float:
        """Seconds until the slice is over."""
        return max(self.slice_ends - clock.elapsed(), 0.0)

    @property
    def claims_left(self) -> float:
        """Seconds until the claims are over, unless they are extended."""
        return max(self.claims_end - clock.elapsed(), 0.0)

    @property
    def extension_is_due(self) -> bool:
        """Half of a lease is over."""
        return clock.elapsed() > self.extend_at

    @property
    def lease_is_over(self) -> bool:
        return clock.elapsed() > self.lease_ends

    def may_begin(self) -> bool:
        """Whether a mail that was pulled earlier may still be begun."""
        return not self.stopped and not self.lease_is_over

    def end_slice(self) -> None:
        """Begin nothing more."""
        self._slice_ended = True

    def stop(self) -> None:
        """Begin nothing more, also what has been pulled."""
        self.end_slice()
        self.stopped = True

    def claims_extended(self, since: float) -> None:
        """The claims have been extended by a lease.

        Args:
            since: when that was asked for.
        """
        self.extend_at = since + self._lease / 2
        self.claims_end = since + self._lease * _LEASE_USED
