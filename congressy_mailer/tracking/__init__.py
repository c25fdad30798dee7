"""What SparkPost tells of mails that were sent, and what follows from it.

A post comes in by :mod:`.webhook` and is stored by :mod:`.inbox`; a worker takes it from there and goes through its
events (:mod:`.processing`). Each one is written down by :mod:`.recording`: it changes what became of a recipient and of
the message (:mod:`.statuses`), and may suppress an address (:mod:`.bounces`) or bring one back (:mod:`.returns`).
"""
