"""A project with django-tenants, made by the page on it: two tenants whose rows have the same keys share one outbox."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from testbed.processes import free_port
from testbed.servers.postgresql import PostgreSQL
from tests.conftest import wait_for
from tests.deploying.files import started_by
from tests.deploying.site import START, Site, arrives, here, wait_for_port, wait_for_worker
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "django-tenants.md"
#: The project's own app, which the page takes for granted.
_MODELS = """
from django.db import models

class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField()

class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE)
"""
_ROWS = """
from django.contrib.auth.models import User
from django_tenants.utils import schema_context
from shop.models import Customer, Order
for schema, name in {"acme": "Ana", "globex": "Bruno"}.items():
    with schema_context(schema):
        User.objects.create_superuser("staff", password="any")
        customer = Customer.objects.create(name=name, email=f"{name.lower()}@example.com")
        Order.objects.create(customer=customer)
User.objects.create_superuser("operator", password="any")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, smtp: LocalSparkPost) -> Iterator[Site]:
    page = list(blocks(PAGE))
    [settings] = [block.text for block in page if block.file == "project/settings.py"]
    with (
        PostgreSQL() as database,
        closing(Site(tmp_path_factory.mktemp("site"), database.port, smtp, settings=settings)) as one,
    ):
        one.environment["ALLOWED_HOSTS"] = ".example.com"
        for app in ("customers", "shop"):
            (one.folder / app).mkdir()
            (one.folder / app / "__init__.py").touch()
        (one.folder / "shop" / "models.py").write_text(_MODELS)
        for block in page:
            if block.file and block.file not in ("project/settings.py", "tenants.py"):
                file = one.folder / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
        manage(one, "makemigrations", "shop")
        for command in (command for block in page for command in block.commands):
            python, file, *arguments = shlex.split(command)
            assert (python, file) == ("python", "manage.py")
            manage(one, *arguments)
        [tenants] = [block.text for block in page if block.file == "tenants.py"]
        shell(one, tenants)
        shell(one, _ROWS)
        yield one


@pytest.fixture(scope="module")
def worker(site: Site) -> Iterator[None]:
    process = site.start(here(started_by("mailer.service")))
    wait_for_worker(process)
    yield
    process.stop(START)
    assert "Traceback" not in process.output()


def manage(site: Site, *arguments: str) -> str:
    done = site.run("python", "manage.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(site: Site, code: str) -> str:
    return manage(site, "shell", "--no-imports", "-c", code)


def values(site: Site, code: str) -> Any:
    """What some code of the project's has in ``answer`` in the end."""
    output = shell(site, f"import json\n{code}\nprint('ANSWER', json.dumps(answer, default=str))")
    return json.loads(output.partition("ANSWER ")[2])


def test_two_tenants_have_mail_from_their_own_rows(site: Site, smtp: LocalSparkPost, worker: None) -> None:
    port = free_port()
    web = site.start(here(started_by("web.service"), port))
    wait_for_port(web, port)
    ids = {}
    for tenant, name in (("acme", "Ana"), ("globex", "Bruno")):
        host = f"{tenant}.example.com"
        ids[tenant] = site.get(port, "orders/1/confirm/", host=host)
        assert site.get(port, "orders/1/confirm/", host=host) == ids[tenant]
        [mail] = arrives(smtp, f"Order 1 of {name}")
        assert mail.recipients == (f"{name.lower()}@example.com",)
        assert f"Hello {name}, your order 1 is confirmed." in str(mail.message)
        shown = manage(site, "mailer", "show", ids[tenant])
        assert f"{name.lower()}@example.com" in shown
    assert len(set(ids.values())) == 2
    assert "2" in manage(site, "mailer", "status")
    # A mail of one tenant is not about another's object with the same key.
    about = """
from congressy_mailer import mails_about
from congressy_mailer.models import Message
from django_tenants.utils import schema_context
from shop.models import Order
answer = {}
for schema in ("acme", "globex"):
    with schema_context(schema):
        answer[schema] = [mail.pk for mail in mails_about(Order.objects.get(pk=1))]
"""
    assert values(site, about) == {tenant: [key] for tenant, key in ids.items()}
    web.stop()


def test_a_batch_and_a_link_to_unsubscribe(site: Site, smtp: LocalSparkPost, worker: None) -> None:
    sending = """
from congressy_mailer import Recipient, send_bulk
from django_tenants.utils import schema_context
from shop.models import Order
for schema in ("acme", "globex"):
    with schema_context(schema):
        order = Order.objects.select_related("customer").get(pk=1)
        to = [Recipient(to=order.customer.email, context={"order": order})]
        to += [Recipient(to=f"{schema}-{number}@example.com", context={"order": order}) for number in range(20)]
        send_bulk(to, template="shop/confirmed", subject=f"News of {schema}", transactional=False, key="news")
"""
    shell(site, sending)
    port = free_port()
    web = site.start(here(started_by("web.service"), port))
    wait_for_port(web, port)
    for schema, name in (("acme", "Ana"), ("globex", "Bruno")):
        mails = arrives(smtp, f"News of {schema}", 21)
        assert all(f"Hello {name}" in str(mail.message) for mail in mails)
        link = "".join(str(mails[0].message["List-Unsubscribe"]).split()).strip("<>")
        site_url = "https://www.example.com/"
        assert link.startswith(f"{site_url}mailer/")
        assert "form" in site.get(port, link.removeprefix(site_url), host="www.example.com")
    web.stop()


def test_a_transaction_of_a_tenant(site: Site, smtp: LocalSparkPost, worker: None) -> None:
    sending = """
from congressy_mailer import send_mail
from django.db import transaction
from django_tenants.utils import schema_context
from shop.models import Order
def fail(subject):
    try:
        with transaction.atomic():
            send_mail(subject, "Hello.", to="ana@example.com")
            raise LookupError
    except LookupError:
        pass
with schema_context("acme"):
    fail("Rolled back")
    with transaction.atomic():
        fail("Rolled back within")
        order = Order.objects.get(pk=1)
        send_mail(subject="Committed", template="shop/confirmed", context={"order": order}, to="ana@example.com")
with schema_context("globex"), transaction.atomic():
    order = Order.objects.get(pk=1)
    with schema_context("acme"):
        send_mail(subject="Nested", template="shop/confirmed", context={}, to="ana@example.com")
"""
    shell(site, sending)
    [mail] = arrives(smtp, "Committed")
    assert "Hello Ana" in str(mail.message)
    arrives(smtp, "Nested")
    assert not [mail for mail in smtp.mailbox if "Rolled back" in mail.message["Subject"]]


def test_a_tenant_whose_schema_is_gone_fails_its_mail(site: Site, worker: None) -> None:
    sending = """
from customers.models import Client
from congressy_mailer import send_mail
from congressy_mailer.models import Message
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from django_tenants.utils import schema_context
tenant = Client.objects.create(schema_name="gone", name="Gone")
with schema_context("gone"):
    user = User.objects.create(username="who")
    later = timezone.now() + timedelta(seconds=3)
    message = send_mail("x", template="shop/confirmed", context={"user": user}, to="ana@example.com", send_at=later)
assert User.objects.filter(pk=user.pk).exists(), "the public schema has a row of that key"
tenant.delete(force_drop=True)
answer = message.pk
"""
    key = values(site, sending)
    asked = f"""
from congressy_mailer.models import Message
answer = Message.objects.values_list("state", "reason").get(pk="{key}")
"""
    state, reason = wait_for(lambda: (found := values(site, asked))[0] == "failed" and found, START, "the failure")
    assert (state, reason) == ("failed", "The tenant's schema 'gone' no longer exists.")


def test_events_find_the_mail_of_each_tenant(site: Site, smtp: LocalSparkPost, worker: None) -> None:
    sending = """
from congressy_mailer import send_mail
from django_tenants.utils import schema_context
answer = {}
for schema in ("acme", "globex"):
    with schema_context(schema):
        answer[schema] = send_mail("Events of " + schema, "Hello.", to=f"{schema}-events@example.com").pk
"""
    ids = values(site, sending)
    for schema in ids:
        arrives(smtp, f"Events of {schema}")
    posting = f"""
import json
from django.conf import settings
from django.test import Client, override_settings
from django_tenants.utils import schema_context
from congressy_mailer.sparkpost import MESSAGE_KEY
ids = {ids!r}
events = [
    {{"msys": {{"message_event": {{
        "type": kind, "event_id": kind + schema, "timestamp": "1780000000", "message_id": schema,
        "rcpt_to": schema + "-events@example.com", "rcpt_meta": {{MESSAGE_KEY: ids[schema].replace("-", "")}}, **more,
    }}}}}}
    for schema, kind, more in [
        ("acme", "delivery", {{}}), ("globex", "bounce", {{"bounce_class": "10", "raw_reason": "550 no such user"}}),
    ]
]
with override_settings(CONGRESSY_MAILER={{**settings.CONGRESSY_MAILER, "WEBHOOK_SECRETS": ["bearer a-token"]}}):
    answer = Client(headers={{"host": "www.example.com", "authorization": "Bearer a-token"}}).post(
        "/mailer/sparkpost/events/", json.dumps(events), content_type="application/json"
    ).status_code
"""
    assert values(site, posting) == 200
    asked = f"""
from congressy_mailer import suppressions
from congressy_mailer.models import Message, RecipientStatus
from django_tenants.utils import schema_context
ids = {ids!r}
with schema_context("acme"):
    told = [RecipientStatus.objects.filter(message_id=ids[schema]).values_list("arrival", flat=True).first()
            for schema in ("acme", "globex")]
    answer = [*told, suppressions.is_suppressed("globex-events@example.com")]
"""
    found = ["delivered", "bounced", True]
    assert wait_for(lambda: values(site, asked) == found, START, "the events of both tenants")


def test_a_tenants_staff_sees_no_mail_of_others(site: Site) -> None:
    looking = """
from django.contrib.auth.models import User
from django.test import Client
from django_tenants.utils import schema_context
answer = {}
for schema, host, name in [("acme", "acme", "staff"), ("public", "www", "operator")]:
    client = Client(headers={"host": f"{host}.example.com"})
    with schema_context(schema):
        client.force_login(User.objects.get(username=name))
    names = "message batch suppression suppression/add pause pause/add webhookbatch dashboard".split()
    paths = ["", "congressy_mailer/", *(f"congressy_mailer/{name}/" for name in names)]
    pages = {path: client.get(f"/admin/{path}") for path in paths}
    answer[schema] = {path: page.status_code for path, page in pages.items()}
    answer[f"{schema} index"] = "congressy_mailer" in pages[""].content.decode()
"""
    answer = values(site, looking)
    tenant, public = answer["acme"], answer["public"]
    assert answer["public index"]
    assert not answer["acme index"]
    assert tenant.pop("") == public.pop("") == 200
    assert {status for path, status in tenant.items()} <= {403, 404}
    assert set(public.values()) == {200}


def test_the_app_among_those_of_tenants_is_a_warning(site: Site) -> None:
    assert "W010" not in site.run("python", "manage.py", "check").stderr
    file = site.folder / "project" / "settings.py"
    before = file.read_text()
    file.write_text(f'{before}\nTENANT_APPS.append("congressy_mailer")\n')
    try:
        assert "congressy_mailer.W010" in site.run("python", "manage.py", "check").stderr
    finally:
        file.write_text(before)
