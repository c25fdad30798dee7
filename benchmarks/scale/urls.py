"""The pages that are measured."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("mailer/", include("congressy_mailer.urls"))]
