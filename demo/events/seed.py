"""What a fresh demo knows: one event, the person who runs it, and a few people with an account."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from decimal import Decimal

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.crypto import get_random_string

from .models import Event

ADMIN = "admin"
#: People who will have forgotten their password.
FORGETFUL = ("Helena Prado", "Caio Menezes", "Beatriz Fontoura")


def seed(admin_password: str) -> None:
    """Fill an empty database.

    Args:
        admin_password: of the user ``admin``, who may do everything.
    """
    day = timezone.localdate() + timedelta(days=45)
    starts_at = timezone.make_aware(datetime.combine(day, time(8, 30)))
    Event.objects.create(
        name="12º Congresso Brasileiro de Energia Solar",
        summary=(
            "Três dias de palestras, minicursos e visitas técnicas sobre geração fotovoltaica, "
            "armazenamento e redes inteligentes."
        ),
        starts_at=starts_at,
        ends_at=starts_at + timedelta(days=2, hours=9, minutes=30),
        venue="Centro de Convenções",
        city="Goiânia, GO",
        price=Decimal("1250.00"),
        organiser="Associação Brasileira de Energia Solar",
        organiser_email="organizacao@congresso-solar.example",
    )
    User.objects.create_superuser(ADMIN, "admin@congresso-solar.example", admin_password)
    # One slow hash for all of them: nobody logs in as one of these before having set another password.
    unknown = make_password(get_random_string(20))
    for name in FORGETFUL:
        first, last = name.split()
        email = f"{first.lower()}@participantes.example"
        User.objects.create(username=email, email=email, first_name=first, last_name=last, password=unknown)
