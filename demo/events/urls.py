"""Addresses of the pages."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("inscricao/<slug:code>/", views.registration, name="registration"),
    path("convites/", views.invite, name="invite"),
    path("senha/", views.PasswordReset.as_view(), name="password_reset"),
    path("senha/enviada/", views.PasswordResetSent.as_view(), name="password_reset_sent"),
    path("senha/nova/<uidb64>/<token>/", views.NewPassword.as_view(), name="new_password"),
    path("senha/pronta/", views.NewPasswordSet.as_view(), name="new_password_set"),
]
