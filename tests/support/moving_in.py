"""The pages of the documentation that lead a project away from what it sent its mail with before."""

from __future__ import annotations

#: Each page, and the heading with which the way ends; empty: with the page. Tests of tests/third_parties follow them.
PAGES = {
    "docs/how-to/from-anymail.md": "",
    "docs/how-to/from-celery-email.md": "",
    "docs/how-to/from-celery-task.md": "",
    "docs/how-to/from-django.md": "## What differs",
    "docs/how-to/from-django-mailer.md": "",
    "docs/how-to/from-post-office.md": "",
}
