"""Messages in the admin: searching for them, and the fate of each."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from ..exceptions import MailerError
from ..models import Message
from . import handling, viewing
from .content import render_subjects, shown_title
from .filters import AboutFilter, BatchFilter, StatusFilter
from .lists import FastList, PeriodFilter, ReadOnly, short_time
from .status import status_badge

# Much of a row that no list shows.
_LARGE = (
    "mime", "context", "html", "text", "alternatives", "headers",
    "batch__context", "batch__html", "batch__text", "batch__alternatives", "batch__headers", "batch__problems",
)  # fmt: skip
_PAGES = {"frame": viewing.frame, "raw": viewing.raw}


class MessageList(ChangeList):
    """One page of messages, with the subjects that their templates have."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        render_subjects(self.result_list)


@admin.register(Message)
class MessageAdmin(FastList, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and pages of messages."""

    list_display = ("recipient_list", "title", "status", "stored", "about_name")
    list_filter = (StatusFilter, PeriodFilter, BatchFilter, AboutFilter)
    # Shows the field; what is searched is in get_search_results().
    search_fields = ("address",)
    search_help_text = _(
        "An address or its beginning, the name of a recipient or of what the mail is about, an id or a Message-ID; "
        "else a part of the subject of one of the newest messages."
    )
    actions = ("retry_selected", "release_selected", "cancel_selected", "resend_selected", "suppress_selected",
               "unsuppress_selected")  # fmt: skip

    class Media:
        css = {"all": ["congressy_mailer/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).select_related("batch")

    def get_changelist(self, request: HttpRequest, **options: Any) -> Any:
        return MessageList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        """By the indexes that are there for it."""
        queryset = queryset.defer(*_LARGE)
        if not search_term.strip():
            return queryset, False
        from ..outbox.search import find, find_by_subject

        return queryset.filter(id__in=find(search_term) or find_by_subject(search_term)), False

    # Columns

    @admin.display(description=_("recipients"))
    def recipient_list(self, message: Message) -> str:
        shown = message.recipients[:3]
        further = len(message.recipients) - len(shown)
        return ", ".join(shown) + (f" (+{further})" if further else "")

    @admin.display(description=_("subject"))
    def title(self, message: Message) -> str:
        return shown_title(message)

    @admin.display(description=_("state"))
    def status(self, message: Message) -> str:
        return status_badge(message)

    @admin.display(description=_("when"))
    def stored(self, message: Message) -> str:
        return short_time(message.created_at)

    # Pages

    def get_urls(self) -> list[Any]:
        pages = [
            path("<path:object_id>/content/", self._page(self.content_view), name=self._name("content")),
            path("<path:object_id>/act/", self._page(self.act_view), name=self._name("act")),
            path("<path:object_id>/files/<int:number>/", self._page(self.file_view), name=self._name("file")),
            *(
                path(f"<path:object_id>/{name}/", self._page(partial(self.bare_view, page)), name=self._name(name))
                for name, page in _PAGES.items()
            ),
        ]
        return [*pages, *super().get_urls()]

    def _page(self, view: Any) -> Any:
        return self.admin_site.admin_view(view)

    def _name(self, page: str) -> str:
        return f"congressy_mailer_message_{page}"

    def _message(self, request: HttpRequest, object_id: str) -> Message:
        message: Message | None = self.get_object(request, unquote(object_id))
        if message is None:
            raise Http404
        if not self.has_view_permission(request, message):
            raise PermissionDenied
        return message

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of a message: what became of it, for whom, and what may be done."""
        if request.method != "GET":
            raise PermissionDenied
        # Loaded where it is looked at: every process of the host has the admin's classes.
        from .message_page import page_context

        message = self._message(request, object_id)
        context = self._context(request, message) | page_context(request, message) | (extra_context or {})
        return TemplateResponse(request, "congressy_mailer/admin/message.html", context)

    def _context(self, request: HttpRequest, message: Message) -> dict[str, Any]:
        render_subjects([message])
        return {
            **self.admin_site.each_context(request),
            "title": shown_title(message) or gettext("Message"),
            "subtitle": None,
            "opts": self.opts,
            "original": message,
            "message": message,
            "media": self.media,
            "has_view_permission": True,
        }

    @sensitive_variables()
    def content_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The message's content: headers, frames with HTML and text, and attachments."""
        from .preview import preview

        message = self._message(request, object_id)
        viewing.check_may_view(request, message)
        viewing.log(request, [message], gettext("Viewed the content."))
        context = self._context(request, message) | {
            "preview": preview(message),
            "token": viewing.frame_token(request, message),
            "images": "yes" if request.GET.get("images") == "yes" else "",
        }
        return TemplateResponse(request, "congressy_mailer/admin/content.html", context)

    @sensitive_variables()
    def bare_view(self, page: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """What a frame or a file holds."""
        message = self._message(request, object_id)
        viewing.check_may_view(request, message)
        response: HttpResponse = page(request, message)
        return response

    @sensitive_variables()
    def file_view(self, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
        """One of its attachments."""
        message = self._message(request, object_id)
        viewing.check_may_view(request, message)
        return viewing.attachment(request, message, number)

    # Actions

    def act_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Do something with one message, and go back to its page."""
        if request.method != "POST":
            raise PermissionDenied
        message = self._message(request, object_id)
        back = HttpResponseRedirect(reverse("admin:congressy_mailer_message_change", args=[quote(message.pk)]))
        name = request.POST.get("action", "")
        if name == "resend_to":
            return self._resend_to(request, message) or back
        action = handling.ACTIONS.get(name)
        if action is None or not action.is_allowed(request):
            raise PermissionDenied
        count, problems = handling.run(request, action, [message])
        for problem in problems:
            self.message_user(request, problem, messages.ERROR)
        if count:
            self.message_user(request, str(action.done), messages.SUCCESS)
        elif not problems:
            self.message_user(request, gettext("Nothing had to be changed."), messages.WARNING)
        return back

    def _resend_to(self, request: HttpRequest, message: Message) -> HttpResponse | None:
        if not request.user.has_perm("congressy_mailer.resend_message"):
            raise PermissionDenied
        from ..mail import resend_to

        try:
            copy = resend_to(message, request.POST.get("address", "").strip())
        except MailerError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        viewing.log(request, [message, copy], gettext("Had it sent to another address."))
        self.message_user(request, gettext("This is the new mail."), messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:congressy_mailer_message_change", args=[quote(copy.pk)]))

    def _run_on_selected(self, request: HttpRequest, chosen: QuerySet[Message], name: str) -> None:
        selected = list(chosen[: handling.MOST_AT_ONCE + 1])
        if len(selected) > handling.MOST_AT_ONCE:
            too_many = gettext("At most %(most)d messages at once.") % {"most": handling.MOST_AT_ONCE}
            self.message_user(request, too_many, messages.ERROR)
            return
        count, problems = handling.run(request, handling.ACTIONS[name], selected)
        self.message_user(request, handling.summary(count), messages.SUCCESS if count else messages.WARNING)
        for problem in problems[:5]:
            self.message_user(request, problem, messages.WARNING)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["retry"].is_allowed(request)

    def has_release_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["release"].is_allowed(request)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["cancel"].is_allowed(request)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["resend"].is_allowed(request)

    def has_suppress_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["suppress"].is_allowed(request)

    def has_unsuppress_permission(self, request: HttpRequest) -> bool:
        return handling.ACTIONS["unsuppress"].is_allowed(request)

    @admin.action(description=_("Try again"), permissions=["retry"])
    def retry_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "retry")

    @admin.action(description=_("Release held messages"), permissions=["release"])
    def release_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "release")

    @admin.action(description=_("Cancel"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "cancel")

    @admin.action(description=_("Send once more"), permissions=["resend"])
    def resend_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "resend")

    @admin.action(description=_("Suppress the recipients"), permissions=["suppress"])
    def suppress_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "suppress")

    @admin.action(description=_("Take the recipients off the suppression list"), permissions=["unsuppress"])
    def unsuppress_selected(self, request: HttpRequest, chosen: QuerySet[Message]) -> None:
        self._run_on_selected(request, chosen, "unsuppress")
