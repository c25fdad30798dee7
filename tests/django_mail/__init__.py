"""Django's own tests of mail, over the queue: run by ``make django-mail`` with the sources of three versions."""
