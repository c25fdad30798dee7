"""Nothing lost, nothing twice: thousands of mails while everything around them is broken on purpose.

``python -m tests.chaos`` runs on every database; :mod:`.run` is one run, :mod:`.faults` what goes wrong during it and
:mod:`.tally` what must hold afterwards.
"""
