"""The voucher that a person shows at the entrance."""

from __future__ import annotations

import unicodedata

from django.utils import formats, timezone
from fpdf import FPDF

from .models import Registration

#: Width and height in millimetres.
_A5 = (148, 210)
_INDIGO = (67, 56, 202)
_GREY = (90, 96, 110)


def voucher_pdf(registration: Registration) -> bytes:
    """One page of A5 with the event, the person and the code, as text and as a bar code (Code 39)."""
    event = registration.event
    starts_at = timezone.localtime(event.starts_at)
    page = FPDF(format=_A5)
    page.set_title(_latin(f"Voucher {registration.code}"))
    page.set_lang("pt-BR")
    page.set_margins(15, 9)
    page.add_page()
    page.set_fill_color(*_INDIGO)
    page.rect(0, 0, page.w, 34, style="F")
    page.set_text_color(255, 255, 255)
    page.set_font("Helvetica", size=11)
    page.cell(text="VOUCHER DE INSCRIÇÃO", new_x="LMARGIN", new_y="NEXT")
    page.set_font("Helvetica", style="B", size=14)
    page.multi_cell(0, 7, text=_latin(event.name), new_x="LMARGIN", new_y="NEXT")
    page.set_y(46)
    for label, value in (
        ("Participante", registration.person),
        ("Data", formats.date_format(starts_at, r"j \d\e F \d\e Y, H:i").lower()),
        ("Local", f"{event.venue}, {event.city}"),
        ("Código", registration.code),
    ):
        page.set_text_color(*_GREY)
        page.set_font("Helvetica", size=9)
        page.cell(text=label, new_x="LMARGIN", new_y="NEXT")
        page.set_text_color(20, 20, 30)
        page.set_font("Helvetica", style="B", size=13)
        page.multi_cell(0, 7, text=_latin(value), new_x="LMARGIN", new_y="NEXT")
        page.ln(4)
    page.set_fill_color(0, 0, 0)
    page.code39(f"*{registration.code}*", x=15, y=page.get_y() + 4, w=1.8, h=18)
    return bytes(page.output())


def _latin(text: str) -> str:
    """What the fonts of every PDF reader can show: Latin-1; other letters lose their marks, or become ``?``."""
    shown = []
    for letter in text:
        if ord(letter) > 0xFF:
            letter = unicodedata.normalize("NFKD", letter)[0]
        shown.append(letter if ord(letter) <= 0xFF else "?")
    return "".join(shown)
