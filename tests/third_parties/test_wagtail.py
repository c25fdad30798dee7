"""Wagtail tells those who are to approve a page, one after the other over a connection that it has opened."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import Group, User
from django.db import transaction

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail


def test_those_who_approve_a_page_are_told(arrived: Callable[..., list[ReceivedMail]]) -> None:
    from wagtail.models import GroupApprovalTask, Locale, Page, Workflow, WorkflowTask

    Locale.objects.get_or_create(language_code="en")
    root = Page.get_first_root_node() or Page.add_root(title="Root", slug="root")
    editor = User.objects.create_user("editor", "editor@example.com", "a secret")
    approvers = Group.objects.create(name="Approvers")
    for name in ("bia", "caio"):
        user = User.objects.create_user(name, f"{name}@example.com", "a secret")
        user.groups.add(approvers)
    task = GroupApprovalTask.objects.create(name="Approve", active=True)
    task.groups.add(approvers)
    workflow = Workflow.objects.create(name="One step", active=True)
    WorkflowTask.objects.create(workflow=workflow, task=task)
    page = root.add_child(instance=Page(title="Programação", slug="programacao", live=False))
    page.save_revision(user=editor)

    with transaction.atomic():
        workflow.start(page, editor)
    mails = arrived(2)
    assert sorted(mail.recipients for mail in mails) == [("bia@example.com",), ("caio@example.com",)]
    assert all("Programação" in mail.message["Subject"] for mail in mails)
