"""How fast it is, always beside what else there is: ``python -m benchmarks``, which ``make bench`` runs.

Each measurement is a module of its own (:data:`.__main__.MEASUREMENTS`). What is compared are the :mod:`.systems`, each
run as its users run it: :mod:`.agent` is the process that calls, :mod:`.stage` starts it with the workers. Mail goes to
Postfix's ``smtp-sink`` (:mod:`.sink`), where it is counted; in between there may be a long way (:mod:`.link`), and TLS
and a login (:mod:`.tls_front`).
"""
