"""What operators look at: the figures of the dashboard, and what their monitoring asks for.

:mod:`.figures` has what the workers have counted, :mod:`.queues` what waits, :mod:`.brokers` what the broker tells of
itself, and :mod:`.charts` draws.
"""
