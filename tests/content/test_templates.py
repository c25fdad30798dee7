"""Which files a template's name means, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import OperationalError
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import get_template
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from jinja2 import StrictUndefined

from congressy_mailer.content.templates import FoundParts, build_content, check, render, render_subject
from congressy_mailer.exceptions import ContentError, ContentNotReady, MailerError, TemplateNotFound
from congressy_mailer.mime.writer import MailContent

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, settings: Any) -> Write:
    """Writes template files, and nothing else is found."""
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path], "OPTIONS": {}}
    ]

    def write_files(**files: str) -> None:
        for name, content in files.items():
            path = tmp_path / "subscription" / f"paid{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    def write_all(files: dict[str, str]) -> None:
        write_files(**files)

    return write_all


def rendered(context: dict[str, Any] | None = None, **options: Any) -> MailContent:
    return render("subscription/paid", context or {}, **{"subject": "s", "language": "", "timezone": "", **options})


class Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __str__(self) -> str:
        raise self._error


# At the call


def test_a_template_that_exists_passes(write: Write) -> None:
    write({".html": "x", "_subject.txt": "s"})
    check("subscription/paid", subject_given=False, language="pt-br")


def test_text_alone_is_a_template_too(write: Write) -> None:
    write({".pt.txt": "x"})
    check("subscription/paid", subject_given=True, language="pt-br")


def test_a_missing_template_is_named_with_every_file_looked_for(write: Write) -> None:
    write({"_subject.txt": "s", ".en.html": "x"})
    with pytest.raises(TemplateNotFound) as caught:
        check("subscription/paid", subject_given=True, language="pt-br")
    assert isinstance(caught.value, TemplateDoesNotExist)
    assert isinstance(caught.value, MailerError)
    assert str(caught.value) == (
        "There is no template 'subscription/paid'. "
        "Looked for: subscription/paid.pt-br.html, subscription/paid.pt.html, "
        "subscription/paid.html, subscription/paid.pt-br.txt, subscription/paid.pt.txt, subscription/paid.txt; "
        f"in: {settings.TEMPLATES[0]['DIRS'][0]}."
    )


def test_a_project_without_directories_of_templates_is_told_so() -> None:
    django_engine = {"BACKEND": "django.template.backends.django.DjangoTemplates"}
    with override_settings(TEMPLATES=[django_engine]), pytest.raises(TemplateNotFound) as caught:
        check("paid", subject_given=True, language="")
    assert "paid.txt; in no directory. DIRS of TEMPLATES is empty" in str(caught.value)
    apps = {**django_engine, "APP_DIRS": True}
    with override_settings(TEMPLATES=[apps]), pytest.raises(TemplateNotFound) as caught:
        check("paid", subject_given=True, language="")
    assert "/django/contrib/admin/templates" in str(caught.value)
    assert "DIRS of TEMPLATES is empty" in str(caught.value)


def test_a_worker_says_where_it_looked_and_that_an_old_one_must_be_restarted(write: Write) -> None:
    write({".html": "{% extends 'base/mail.html' %}", "_subject.txt": "x"})
    for name in ("subscription/paid", "subscription/gone"):
        with pytest.raises(ContentNotReady) as caught:
            render(name, {}, subject="", language="", timezone="")
        assert f"in: {settings.TEMPLATES[0]['DIRS'][0]}." in str(caught.value)
        assert "A worker that is older than the file has to be restarted" in str(caught.value)


def test_a_missing_subject_is_named(write: Write) -> None:
    write({".html": "x"})
    check("subscription/paid", subject_given=True, language="pt")
    with pytest.raises(TemplateNotFound) as caught:
        check("subscription/paid", subject_given=False, language="pt")
    assert str(caught.value) == (
        "The template 'subscription/paid' has no subject: pass subject=, or add a file for it. Looked for: "
        f"subscription/paid.pt_subject.txt, subscription/paid_subject.txt; in: {settings.TEMPLATES[0]['DIRS'][0]}."
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("subscription/paid.html", "leave the extension out: 'subscription/paid'"),
        ("subscription/paid_subject.txt", "leave the extension out: 'subscription/paid'"),
        ("/subscription/paid", "relative to a directory of templates"),
        ("../subscription/paid", "relative to a directory of templates"),
        ("subscription/../paid", "relative to a directory of templates"),
        ("subscription//paid", "relative to a directory of templates"),
        ("subscription\\paid", "relative to a directory of templates"),
        ("subscription/", "relative to a directory of templates"),
        ("", "must be a text such as 'subscription/paid'"),
        (" subscription/paid", "must be a text such as 'subscription/paid'"),
        (Path("subscription/paid"), "must be a text such as 'subscription/paid'"),
        ("subscription/paid\x00", "printable"),
        ("a" * 256, "at most 255"),
    ],
)
def test_what_is_no_name_is_answered_clearly(write: Write, name: Any, said: str) -> None:
    write({".html": "x"})
    with pytest.raises(TemplateNotFound) as caught:
        check(name, subject_given=True, language="")
    assert said in str(caught.value)


def test_a_template_that_does_not_compile_is_told_at_the_call(write: Write) -> None:
    write({".html": "{% nonsense %}"})
    with pytest.raises(TemplateSyntaxError):
        check("subscription/paid", subject_given=True, language="")


# In the worker


def test_the_three_parts(write: Write) -> None:
    write({".html": "<p>{{ name }}</p>", ".txt": "Olá, {{ name }}", "_subject.txt": "\n  Olá,\n  {{ name }}\n"})
    assert rendered({"name": "Ana & <Zé>"}, subject="") == MailContent(
        "Olá, Ana & <Zé>", "Olá, Ana & <Zé>", "<p>Ana &amp; &lt;Zé&gt;</p>"
    )


def test_escaping_is_the_business_of_each_part(write: Write) -> None:
    part = "{{ safe }} {{ unsafe }} {{ unsafe|escape }} {% autoescape on %}{{ unsafe }}{% endautoescape %}"
    write({".html": part, ".txt": part, "_subject.txt": "{% include 'subscription/paid.txt' %}"})
    result = rendered({"safe": mark_safe("<b>"), "unsafe": "<i>"}, subject="")
    assert result.html == "<b> &lt;i&gt; &lt;i&gt; &lt;i&gt;"
    assert result.text == result.subject == "<b> <i> &lt;i&gt; &lt;i&gt;"


def test_text_is_made_from_the_html_where_there_is_none(write: Write) -> None:
    write({".html": '<p>Olá, {{ name }}</p><a href="https://a.example/v">Ver</a>'})
    assert rendered({"name": "Ana & Zé"}).text == "Olá, Ana & Zé\n\nVer <https://a.example/v>"


def test_a_text_of_nothing_but_blanks_is_none(write: Write) -> None:
    write({".html": "<p>Olá</p>", ".txt": "{% load i18n %}\n{% if False %}x{% endif %} \n"})
    assert rendered().text == "Olá"


def test_text_only(write: Write) -> None:
    write({".txt": "Olá"})
    assert rendered() == MailContent("s", "Olá", "")


def test_the_callers_subject_wins(write: Write) -> None:
    write({".txt": "x", "_subject.txt": "theirs"})
    assert rendered(subject="ours").subject == "ours"
    assert rendered(subject="").subject == "theirs"


@pytest.mark.parametrize(
    ("language", "found"),
    [
        ("pt-br", "pt-br"),
        ("pt-BR", "pt-br"),
        ("pt_BR", "pt-br"),
        ("pt-pt", "pt"),
        ("pt", "pt"),
        ("en", "any"),
        ("", "any"),
    ],
)
def test_the_file_nearest_to_the_language_wins(write: Write, language: str, found: str) -> None:
    for part in (".html", ".txt", "_subject.txt"):
        write({f"{code}{part}": code.strip(".") or "any" for code in ("", ".pt", ".pt-br")})
    assert rendered(subject="", language=language) == MailContent(found, found, found)


def test_each_part_is_looked_for_on_its_own(write: Write) -> None:
    write({".pt-br.html": "<p>pt-br</p>", ".html": "<p>any</p>", ".txt": "any", ".pt_subject.txt": "pt"})
    assert rendered(subject="", language="pt-br") == MailContent("pt", "any", "<p>pt-br</p>")


def test_language_and_time_zone_are_the_recipients_and_do_not_stay(write: Write) -> None:
    write(
        {
            ".html": "{% load i18n humanize %}{% translate 'Monday' %} {{ lazy }} {{ number|intcomma }} "
            "{{ at|date:'DATETIME_FORMAT' }} {{ at|naturalday }}",
            "_subject.txt": "{% load i18n humanize %}{% translate 'Monday' %} {{ number|intcomma }}",
        }
    )
    context = {"lazy": gettext_lazy("Tuesday"), "number": 1234567, "at": datetime(2026, 5, 11, 1, 30, tzinfo=UTC)}
    with translation.override("de"), timezone.override("Asia/Tokyo"):
        brazilian = rendered(context, subject="", language="pt-br", timezone="America/Sao_Paulo")
        english = rendered(context, subject="", language="en", timezone="UTC")
        assert (translation.get_language(), str(timezone.get_current_timezone())) == ("de", "Asia/Tokyo")
    assert brazilian.subject == "Segunda-feira 1.234.567"
    assert brazilian.html == "Segunda-feira Terça-feira 1.234.567 10 de Maio de 2026 às 22:30 10 de Maio de 2026"
    assert english.subject == "Monday 1,234,567"
    assert english.html.startswith("Monday Tuesday 1,234,567 May 11, 2026, 1:30 a.m.")


def test_a_template_is_compiled_once(write: Write) -> None:
    write({".html": "x"})
    rendered()
    compiled = get_template("subscription/paid.html").template  # type: ignore[attr-defined]
    rendered()
    assert get_template("subscription/paid.html").template is compiled  # type: ignore[attr-defined]


def test_mails_one_after_the_other_look_for_each_file_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write({".pt.html": "<p>Olá {{ name }}</p>", "_subject.txt": "Oi"})
    looked_for: list[str] = []

    def look(name: str) -> Any:
        looked_for.append(name)
        return get_template(name)

    monkeypatch.setattr("congressy_mailer.content.templates.get_template", look)
    found: FoundParts = {}
    htmls = [
        render("subscription/paid", {"name": name}, subject="", language="pt-br", timezone="", found=found).html
        for name in ("Ana", "Zé")
    ]
    assert htmls == ["<p>Olá Ana</p>", "<p>Olá Zé</p>"]
    assert len(looked_for) == len(set(looked_for))


def test_what_is_missing_is_waited_for(write: Write) -> None:
    with pytest.raises(ContentNotReady, match="no template 'subscription/paid' here"):
        rendered()
    write({".pt.html": "x"})
    with pytest.raises(ContentNotReady, match="no subject here"):
        rendered(subject="", language="pt")
    with pytest.raises(ContentNotReady, match="time zone 'Mars/Olympus'"):
        rendered(language="pt", timezone="Mars/Olympus")


@pytest.mark.parametrize("source", ["{% extends 'base.html' %}", "{% include 'base.html' %}"])
def test_a_missing_template_behind_the_template_is_waited_for(write: Write, source: str) -> None:
    write({".html": source})
    with pytest.raises(ContentNotReady, match=r"subscription/paid\.html needs 'base\.html'"):
        rendered()


def test_a_wrong_template_fails_with_its_place(write: Write) -> None:
    write({".html": "a\nb\n{% nonsense %}"})
    with pytest.raises(ContentError) as caught:
        rendered()
    assert str(caught.value).startswith("subscription/paid.html: TemplateSyntaxError: ")
    assert "Invalid block tag on line 3: 'nonsense'" in str(caught.value)


def test_a_failing_template_fails_with_its_innermost_place(write: Write) -> None:
    write({".txt": "a\n{% include 'subscription/paid.part' %}", ".part": "a\nb\n{{ value }}"})
    with pytest.raises(ContentError) as caught:
        rendered({"value": Failing(ValueError("wrong\nhere"))})
    assert str(caught.value) == "subscription/paid.part, line 3: ValueError: wrong here"


def test_the_error_is_short_and_does_not_repeat_the_context(write: Write) -> None:
    write({".html": "{% for one in nothing|slice:missing.deep %}{% endfor %}{{ value }}"})
    with pytest.raises(ContentError) as caught:
        rendered({"value": Failing(ValueError("x" * 10_000)), "password": "s3cret"})
    assert len(str(caught.value)) < 300
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("error", [OperationalError("away"), SoftTimeLimitExceeded(), MemoryError()])
def test_trouble_of_the_process_is_not_the_messages_fault(write: Write, error: Exception) -> None:
    write({".html": "{{ value }}"})
    with pytest.raises(type(error)):
        rendered({"value": Failing(error)})


def test_jinja2_escapes_html_and_nothing_else(tmp_path: Path, settings: Any) -> None:
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [tmp_path]}]
    for name in ("m.html", "m.txt", "m_subject.txt"):
        (tmp_path / name).write_text("{{ a }} {{ b }}")
    (tmp_path / "broken.html").write_text("{% include 'nowhere.html' %}")
    context = {"a": "Ana & Zé", "b": mark_safe("<b>")}
    for _ in range(2):
        assert render("m", context, subject="", language="", timezone="") == MailContent(
            "Ana & Zé <b>", "Ana & Zé <b>", "Ana &amp; Zé <b>"
        )
    with pytest.raises(ContentNotReady, match=r"nowhere\.html"):
        render("broken", {}, subject="s", language="", timezone="")
    (tmp_path / "wrong.html").write_text("{% nonsense %}")
    with pytest.raises(ContentError, match="nonsense"):
        render("wrong", {}, subject="s", language="", timezone="")


# Without what is one recipient's


def batch_subject(context: dict[str, Any]) -> str:
    return render_subject("subscription/paid", context, language="pt-br", timezone="", placeholders=True)


def test_a_placeholder_stands_for_what_a_subject_says_to_one_recipient(write: Write) -> None:
    write({"_subject.txt": "{{ nome|title }}{% if vip %} VIP{% endif %}: {{ evento.nome }}, {{ dia|default:'hoje' }}"})
    assert batch_subject({"evento": {"nome": "Ana & Zé"}}) == "…: Ana & Zé, hoje"
    assert batch_subject({"nome": "ana", "vip": True, "evento": {}, "dia": 3}) == "Ana VIP: …, 3"


def test_a_placeholder_stands_in_no_mail(write: Write) -> None:
    translated = "{% load i18n %}{% blocktranslate %}{{ nome }}, your order{% endblocktranslate %}"
    write({".txt": "x", "_subject.txt": translated})
    assert batch_subject({}) == "…, your order"
    assert rendered({}, subject="").subject == ", your order"


@pytest.mark.parametrize("options", [{}, {"autoescape": False}, {"undefined": StrictUndefined}])
def test_a_placeholder_stands_there_in_jinja2(tmp_path: Path, settings: Any, options: dict[str, Any]) -> None:
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [tmp_path], "OPTIONS": options}]
    subject = "{{ nome|title }}{% if vip %} VIP{% endif %}: {{ evento.nome }}, {{ a.b }}"
    (tmp_path / "subscription").mkdir()
    (tmp_path / "subscription" / "paid_subject.txt").write_text(subject)
    assert batch_subject({"evento": {"nome": "Ana & Zé"}}) == "…: Ana & Zé, …"
    assert batch_subject({"evento": {}, "nome": "eva", "vip": True, "a": {"b": 3}}) == "Eva VIP: …, 3"


# Without a template


def test_ready_content_is_kept_and_its_text_made_where_it_is_missing() -> None:
    assert build_content("a  b", "text", "<p>html</p>") == MailContent("a  b", "text", "<p>html</p>")
    assert build_content("s", "", "<p>html</p>") == MailContent("s", "html", "<p>html</p>")
    assert build_content("s", "", "") == MailContent("s", "", "")


# Subjects and byte order marks


@pytest.mark.parametrize(
    ("value", "message"),
    [("\x1b[2J", "must not hold line breaks or control"), ("a" * 2000, "has a word that is too long")],
)
def test_a_subject_out_of_a_template_is_checked_as_one_in_the_call(write: Write, value: str, message: str) -> None:
    write({".txt": "x", "_subject.txt": "Olá {{ x }}" if value[0] == "\x1b" else "{{ x }}"})
    with pytest.raises(ContentError, match=rf"paid_subject\.txt: The subject {message}"):
        rendered({"x": value}, subject="")


@pytest.mark.parametrize("subject", ["", " \n", "\ufeff\n", "{{ x }}"])
def test_a_subject_that_renders_to_nothing_fails_its_mail(write: Write, subject: str) -> None:
    write({".txt": "x", "_subject.txt": subject})
    with pytest.raises(ContentError, match=r"paid_subject\.txt renders to nothing"):
        rendered(subject="")


def test_byte_order_marks_of_files_are_left_out(write: Write) -> None:
    write({".html": "\ufeff<p>Olá</p>", ".txt": "\ufeffOlá\n\ufeffAté", "_subject.txt": "\ufeffAssunto\n"})
    assert rendered(subject="") == MailContent("Assunto", "Olá\nAté", "<p>Olá</p>")
    assert build_content("s", "\ufeff \n", "\ufeff<p>Olá</p>").text == "Olá"
