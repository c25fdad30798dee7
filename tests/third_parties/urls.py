"""The pages of the site: those of the apps, and some on which things go wrong."""

from __future__ import annotations

import logging

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.mail import mail_admins
from django.db import connection, transaction
from django.db.utils import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from two_factor.urls import urlpatterns as two_factor_pages


def ask_the_database(request: HttpRequest) -> HttpResponse:
    """Count the users."""
    return HttpResponse(str(User.objects.count()))


@transaction.atomic
def break_the_transaction(request: HttpRequest) -> HttpResponse:
    """Have the database refuse a statement, report it while the transaction is broken, and fail."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM a_table_that_is_not_there")
    except DatabaseError:
        connection.needs_rollback = True
        logging.getLogger("django.request").exception("In a broken transaction")
        mail_admins("By hand", "In a broken transaction")
        raise
    return HttpResponse()


urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("auth/", include("django.contrib.auth.urls")),
    path("api/", include("djoser.urls")),
    path("cms/", include("wagtail.admin.urls")),
    path("documents/", include("wagtail.documents.urls")),
    path("newsletter/", include("newsletter.urls")),
    path("helpdesk/", include("helpdesk.urls", namespace="helpdesk")),
    path("", include(two_factor_pages)),
    path("users/", ask_the_database),
    path("broken/", break_the_transaction),
]
