"""Delivery over Django's SMTP backend with pipelining (RFC 2920).

:mod:`.transport` takes the mails (:mod:`.source`) and divides them over its connections; how many there are is decided
in :mod:`.connections`, and :mod:`.lane` is one of them. On each, a :mod:`.session` speaks: envelopes ahead of contents
(:mod:`.envelopes`, where :mod:`.pipelining` allows it), in round trips that go on at once (:mod:`.round_trips`), over
bytes (:mod:`.stream`, :mod:`.reply_parser`). What a server has said of a mail is an :mod:`.attempt`, and then one of
the :mod:`.outcomes`.
"""
