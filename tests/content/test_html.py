"""The plain text of an HTML mail: what a reader needs, and nothing that a mail program hides."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.content.html import text_from_html

MAIL = """
<!DOCTYPE html>
<html lang="pt-br"><head><meta charset="utf-8"><title>Título que não aparece</title>
<style>body { color: red } .x > p { a: b }</style>
<style media="screen">@media (max-width: 600px) { .c { width: 100% !important } }</style>
<script>var x = "<b>script</b>";</script></head>
<body style="margin:0">
<!--[if mso]><table><tr><td>Só no Outlook<![endif]-->
<div style="display:none;max-height:0;overflow:hidden">Pré-cabeçalho &zwnj;&nbsp;</div>
<p hidden>Escondido</p><template>Modelo</template>
<table role="presentation" width="100%"><tr><td align="center"><table width="600"><tr><td>
<a href="https://congressy.example/"><img src="logo.png" alt="Congressy"></a></td></tr><tr><td>
<h1>Inscrição confirmada</h1>
<p>Olá, <strong>Ana &amp; Zé</strong>! Sua inscrição no
   <em>1&ordm; Congresso_de_Saúde*</em> foi confirmada.<br>Em <b>S&atilde;o&nbsp;Paulo</b> &mdash; 3 &lt; 5.</p>
<p><a href="https://congressy.example/v?x=1&amp;y=2" style="padding:4px"><b>Ver voucher</b></a></p>
<ul><li>Crachá</li><li>Certificado</li></ul>
<table><thead><tr><th>Item</th><th>Qtd.</th><th>Valor</th></tr></thead>
<tbody><tr><td>Inscrição de estudante</td><td>1</td><td>R$&nbsp;1.234,56</td></tr>
<tr><td>Minicurso #2 | noite</td><td>2</td><td>R$&nbsp;100,00</td></tr></tbody></table>
<pre>linha 1
  linha 2</pre>
<p>1. Não é lista. * estrela _sublinhado_ [colchetes] # 😀</p>
</td></tr></table></td></tr></table><img src="https://t.example/o.gif" width="1" height="1" alt="">
</body></html>
"""

TEXT = """\
Congressy <https://congressy.example/>

Inscrição confirmada

Olá, Ana & Zé! Sua inscrição no 1º Congresso_de_Saúde* foi confirmada.
Em São Paulo — 3 < 5.

Ver voucher <https://congressy.example/v?x=1&y=2>

- Crachá
- Certificado

Item                    Qtd.  Valor
Inscrição de estudante  1     R$ 1.234,56
Minicurso #2 | noite    2     R$ 100,00

linha 1
  linha 2

1. Não é lista. * estrela _sublinhado_ [colchetes] # 😀"""


def test_a_whole_mail() -> None:
    assert text_from_html(MAIL) == TEXT


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="https://a.example/x">Pagar</a>', "Pagar <https://a.example/x>"),
        ("<A HREF='https://a.example/x'>Pagar</A>", "Pagar <https://a.example/x>"),
        ("<a class=b href=https://a.example/x>Pagar</a>", "Pagar <https://a.example/x>"),
        ('<a title="1 > 0" href="https://a.example/x">Pagar</a>', "Pagar <https://a.example/x>"),
        ('<a href="https://a.example/x"><img src="y"></a>', "<https://a.example/x>"),
        ('<a href="https://a.example/&quot;&lt;b&gt;">x</a>', 'x <https://a.example/"%3Cb%3E>'),
        ('<a href="https://a.example/">https://a.example/</a>', "https://a.example/"),
        ('<a href="https://a.example/">a.example</a>', "a.example"),
        ('<a href="mailto:a@b.example">a@b.example</a>', "a@b.example"),
        ('<a href="mailto:a@b.example">Fale conosco</a>', "Fale conosco <a@b.example>"),
        ('<a href="#top">topo</a> <a name="x">n</a> <a href="">v</a>', "topo n v"),
        ('<a href="javascript:alert(1)">js</a> <a href="tel:+5511999">+55 11 999</a>', "js +55 11 999"),
        (
            '<a href="https://a.example/1">a<a href="https://a.example/2">b</a>',
            "a <https://a.example/1> b <https://a.example/2>",
        ),
        ('<abbr href="https://a.example/">x</abbr>', "x"),
        ('<!-- <a href="https://a.example/">x</a> --><p>y</p>', "y"),
        ("<p>\n  a<br/>\n  b\n<br>\n<b>c</b> <i>d</i></p><div>\n\te </div>", "a\nb\nc d\n\ne"),
        ("plain & simple", "plain & simple"),
        ("<p>&lt;script&gt; &amp;amp; &copy; &#128512;</p>", "<script> &amp; © 😀"),
        ("<nav>Menu</nav><form>Busca</form><footer>Rodapé</footer>", "Menu\n\nBusca\n\nRodapé"),
        ("<p>a</p>\n\n\n\n<br><br><br><p>b</p>", "a\n\nb"),
        ("%PDF-1.4 is how a PDF begins", "%PDF-1.4 is how a PDF begins"),
        ("\x01\x02\x03" * 50 + "a", "a"),
        ("", ""),
        ("<!-- -->", ""),
        ('<img src="cid:x">', ""),
    ],
)
def test_parts_of_a_mail(html: str, text: str) -> None:
    assert text_from_html(html) == text


#: A quarter of a megabyte each, with what a careless reader of HTML spends the square of its length on.
HOSTILE = {
    "nested blocks": "<div>" * 25_000 + "x" + "</div>" * 20_000,
    "nested tables": "<table><tr><td>" * 15_000 + "x",
    "nested lists": "<ol><li>x" * 25_000,
    "nested quotations": "<blockquote>x" * 17_500,
    "nested formatting": "<b>" * 37_500 + "x" + "</i>" * 25_000,
    "nested links": "<a href=https://a.example/>" * 5_000 + "x" + "</a>" * 25_000,
    "ends that reach out of a cell": "<i><table><td>" + "<b>" * 37_500 + "</i>" * 30_000,
    "megabytes": '<p>Olá <b>mundo</b> <a href="https://a.example/z">z</a></p>' * 5_000,
    "a wide and long table": "<table>" + "<tr><td>a</td></tr>" * 3_000 + "<tr><td>" + "b" * 225_000 + "</td></tr>",
    "a row of cells": "<table><tr>" + "<td>x</td>" * 25_000,
    "spans": "<table><tr>" + "<td colspan=1000000000 rowspan=1000000000>a" * 5_000,
    "references": "&#xD800; &#0; &#99999999999; &bogus; &amp &" * 5_000,
    "ampersands": "<a href='https://a.example/?" + "&a" * 112_500 + "'>x</a>",
    "a long number": "&#"
    + "9" * 100_000
    + "; &#x"
    + "f" * 100_000
    + '<a href="https://a.example/&#'
    + "9" * 5_000
    + '">',
    "NUL": "<p>a\x00b</p>" * 25_000,
    "surrogates": "<p>\ud800</p><a href='https://a.example/\ud800'>\udfff</a>" * 3_000,
    "opening brackets": "<" * 1_000_000,
    "open links": '<a "' * 62_500,
    "open addresses": "<a href='" * 25_000,
    "unclosed address": "<a href='" + "x" * 1_000_000,
    "attributes": "<a " + "href " * 50_000 + ">x</a>",
    "a long style": "<p style='" + "display:none;" * 17_500 + "'>x",
    "open comments": "<!--" * 62_500,
    "dashes": "<!--" + "-!" * 125_000,
    "open styles": "<style>" * 37_500,
    "open braces": "<style>" + "{" * 1_000_000,
    "open comments in a style": "<style>" + "/*" * 125_000,
    "a long selector": "<style>" + "a " * 22_500 + "{display:none}</style>" + "<a>" * 25_000,
    "many selectors": "<style>"
    + "".join(f".a.b{number} .c{{display:none}}" for number in range(2_500))
    + "</style>"
    + "<div>" * 3_000
    + "".join(f'<b class="c x{number}">' for number in range(7_500)),
    "open preformatted": "<pre>" * 50_000,
    "broken ends": "</a" * 83_250,
    "padding": "\u200c\xa0" * 125_000,
    "spaces": " " * 1_000_000,
    "lines": "\n" * 1_000_000,
}


@pytest.mark.parametrize("html", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_html_takes_time_and_space_in_proportion_to_its_length(html: str) -> None:
    began = time.process_time()
    text = text_from_html(html)
    # Each takes less than a second; one that goes back to the beginning again and again takes minutes.
    assert time.process_time() - began < 10
    assert len(text.encode()) < 8 * len(html)


PIECES = [
    *(
        "<a",
        " href=",
        '"',
        "'",
        "=",
        "/",
        ">",
        "</a>",
        "https://x",
        "<",
        "</",
        "&",
        "&#",
        "9",
        ";",
        "<!--",
        "-->",
        "<![if",
    ),
    *("<table>", "<tr>", "<td>", "<th>", "</td>", "</tr>", "</table>", "<caption>", "<tbody>", "<td colspan=3>"),
    *(
        "<ul>",
        "<ol start=9>",
        "<li>",
        "</li>",
        "</ul>",
        "</ol>",
        "<blockquote>",
        "</blockquote>",
        "<p>",
        "</p>",
        "</br>",
    ),
    *("<pre>", "</pre>", "<hr>", "<br>", "<dl>", "<dt>", "<dd>", "<div hidden>", "</div>", "<template>", "<img alt=b>"),
    *(
        "<style>",
        "</style>",
        ".c{display:none}",
        "p .c{font-size:0}",
        "@media",
        "{",
        "}",
        "<b class=c>",
        "</b>",
        "<title>",
    ),
    *('<b style="font-size:0">', '<i style="white-space:pre-line;display:block">', "</i>", "<a href=tel:9>"),
    *("\n", "\r\n", " ", "\xa0", "\u200c", "\x00", "\u2028", "\ud800", "é", "x"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_any_sequence_of_pieces_becomes_text(pieces: list[str]) -> None:
    text_from_html("".join(pieces)).encode()


@given(st.text())
def test_any_text_becomes_text(html: str) -> None:
    text_from_html(html).encode()


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30))
def test_words_are_kept(word: str) -> None:
    assert word in text_from_html(f"<table><tr><td><p>{word}</p></td></tr></table>")


@pytest.mark.parametrize(
    "button",
    [
        # Buttons that Outlook gets as a drawing: the link is hidden from Outlook alone.
        '<div><!--[if mso]><v:roundrect href="https://a.example/x"><center>Outlook</center></v:roundrect><![endif]-->'
        '<a href="https://a.example/x" style="background:#556;color:#fff;mso-hide:all;">Confirmar conta</a></div>',
        '<span class="msohide b" style="mso-hide:all;display:block">'
        '<a href="https://a.example/x">Confirmar conta</a></span>',
        '<!--[if !mso]><!--><a href="https://a.example/x">Confirmar conta</a><!--<![endif]-->',
        '<!--[if !mso]>--><a href="https://a.example/x">Confirmar conta</a><!-- <![endif] -->',
        '<![if !mso]><a href="https://a.example/x">Confirmar conta</a><![endif]>',
        '<a href="https://a.example/x"><!--[if mso]><i style="mso-font-width:300%" hidden>&emsp;</i><![endif]-->'
        "<span>Confirmar conta</span><!--[if mso]><i hidden>&emsp;&#8203;</i><![endif]--></a>",
        '<table><tr><td><a href="https://a.example/x"><table><tr><td>Confirmar conta</td></tr></table></a></table>',
        '<a href="https://a.example/x"><h2>Confirmar conta</h2></a>',
    ],
)
def test_a_button_keeps_its_label_and_its_link(button: str) -> None:
    text = text_from_html(f"<p>Olá</p>{button}<p>Até logo</p>")
    assert text == "Olá\n\nConfirmar conta <https://a.example/x>\n\nAté logo"


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("https://a.example/?id=1&timestamp=5", "https://a.example/?id=1&timestamp=5"),
        ("https://a.example/?id=1&region=BR&copy=2&lt=3&amp=4", "https://a.example/?id=1&region=BR&copy=2&lt=3&amp=4"),
        ("https://a.example/?a=1&amp;timestamp=5&amp;b", "https://a.example/?a=1&timestamp=5&b"),
        ("https://a.example/?x&notit;&times;&copy", "https://a.example/?x&notit;×©"),
        ("https://a.example/&#x2F;&#47;&#0000000000047;", "https://a.example////"),
        ("https://a.example/?q=John Smith&x=1", "https://a.example/?q=John%20Smith&x=1"),
        (" \n https://a.example/\n  very/\tlong ", "https://a.example/%20%20very/long"),
        ("https://a.example/\xa0\u200b", "https://a.example/%C2%A0%E2%80%8B"),
        ("https://a.example/inscrição?a=%20&b=+#c", "https://a.example/inscrição?a=%20&b=+#c"),
        ("HTTPS://A.example/B", "HTTPS://A.example/B"),
        ("//a.example/x", "//a.example/x"),
        ("tel:+5511999", "tel:+5511999"),
        ("sms:+5511999?body=oi", "sms:+5511999?body=oi"),
        ("whatsapp://send?text=oi&phone=55", "whatsapp://send?text=oi&phone=55"),
        ("congressy://ticket/1", "congressy://ticket/1"),
        ("mailto:a@b.example?subject=Sair da lista", "mailto:a@b.example?subject=Sair%20da%20lista"),
        ("*|UNSUB|*", "*|UNSUB|*"),
    ],
)
def test_a_link_arrives_as_it_stands_in_the_html(href: str, address: str) -> None:
    assert text_from_html(f'<a title="href=https://wrong.example" href="{href}">aqui</a>.') == f"aqui <{address}>."


@pytest.mark.parametrize(
    ("label", "href", "left_out"),
    [
        ("https://a.example/x", "https://a.example/x", True),
        ("a.example", "https://a.example/", True),
        ("A.example/x", "http://a.example/x", True),
        ("<b>https://a.example</b>/<wbr>x", "https://a.example/x", True),
        ("+55 (11) 99-9", "tel:+5511999", True),
        ("0800 123", "tel:0800%20123", True),
        ("Mais em https://a.example/x", "https://a.example/x", False),
        ("https://a.example/xyz", "https://a.example/x", False),
        ("https://a.example/X", "https://a.example/x", False),
        ("http://a.example/x", "https://a.example/x", False),
        ("www.a.example.br", "https://a.example", False),
        ("Escreva para info@a.example", "https://a.example", False),
        ("Ligue", "tel:+5511999", False),
        ("11 999", "tel:+5511999", False),
    ],
)
def test_a_link_is_left_out_only_where_its_label_is_that_link(label: str, href: str, left_out: bool) -> None:
    text = text_from_html(f'<p><a href="{href}">{label}</a></p>')
    assert text.endswith(f" <{href}>") is not left_out
    assert text.removesuffix(f" <{href}>") == text_from_html(label)


def test_areas_of_an_image_are_links() -> None:
    html = '<img src=x usemap="#m" alt="Mapa"><map name=m><area href="https://a.example/1" alt="Entrada"></map>'
    assert text_from_html(html) == "Mapa Entrada <https://a.example/1>"


@pytest.mark.parametrize(
    ("sheet", "attributes"),
    [
        ("", 'style="display:none"'),
        ("", 'style="DISPLAY : NONE !IMPORTANT"'),
        ("", 'style="visibility:hidden"'),
        ("", 'style="opacity:0"'),
        ("", 'style="max-height:0px;overflow:hidden"'),
        ("", 'style="height:0;overflow:hidden"'),
        ("", 'style="font-size:0"'),
        ("", 'style="font:0/0 a"'),
        ("", "hidden"),
        (".preheader { display: none }", 'class="preheader"'),
        (".x, span.preheader { color: red; display: none !important; }", 'class="a preheader"'),
        ("#preheader { opacity: 0.0 }", "id=preheader"),
        (".body td .preheader { visibility: hidden }", "class=preheader"),
        ("td > .preheader { font-size: 0px }", "class=preheader"),
        ("/* .x { */ .preheader { overflow: hidden; max-height: 0 } <!-- ", "class=preheader"),
        ("@media screen { .preheader { display:none } }", "class=preheader"),
        ("@media (max-width:600px) { .x { color:red } } .preheader { display:none }", "class=preheader"),
        ("@media (max-width:600px) { .preheader { display:block } } .preheader { display:none }", "class=preheader"),
        (".preheader { display:none !important }", 'class=preheader style="display:block"'),
    ],
)
def test_a_hidden_preheader_is_left_out(sheet: str, attributes: str) -> None:
    html = (
        f"<style>{sheet}</style><div class=body><table><tr><td><span {attributes}>Escondido <i>também</i></span>"
        "<p>Olá</p></td></tr></table></div>"
    )
    assert text_from_html(html) == "Olá"


@pytest.mark.parametrize(
    ("sheet", "attributes"),
    [
        ("@media (max-width:600px) { .x { display:none } }", "class=x"),
        ("@media only screen and (max-width:600px) { td .x { display:none !important } }", "class=x"),
        ("@media print { .x { display:none } }", "class=x"),
        ("@supports (display:grid) { .x { display:none } }", "class=x"),
        (".other .x, p.x, .x.y, .x:hover, u + .x, [class=x] { display:none }", "class=x"),
        (".x { display:none } .x { display:block }", "class=x"),
        (".x { display:none } span.x { display:inline }", "class=x"),
        (".x { display:none }", 'class=x style="display:inline"'),
        ("", 'style="mso-hide:all"'),
        ("", 'style="max-height:0"'),
        ("", 'style="overflow:hidden;max-height:40px"'),
        ("", 'style="opacity:.5;font-size:1px;color:#fff;text-decoration:none"'),
        ("", 'aria-hidden="true"'),
        ("", 'title="display:none" data-style="display:none" data-hidden'),
    ],
)
def test_what_a_wide_screen_shows_is_kept(sheet: str, attributes: str) -> None:
    assert text_from_html(f"<style>{sheet}</style><p><span {attributes}>Olá</span></p>") == "Olá"


def test_a_style_for_narrow_screens_or_paper_hides_nothing() -> None:
    html = "<style media='(max-width:600px)'>.x{display:none}</style><style media=print>p{display:none}</style>"
    assert text_from_html(f"{html}<p class=x>Olá</p>") == "Olá"


def test_a_font_size_of_zero_hides_text_but_neither_images_nor_text_with_a_size_of_its_own() -> None:
    """As in the cells of many templates, where it removes the gaps between images."""
    html = """
    <style>.column { font-size: 14px }</style>
    <td style="font-size:0px">nada <img src=x alt="Logotipo"> <b style="font-size:2em">nada</b>
    <div style="font-size:13px">Olá, <b>Ana</b></div><div class=column>Coluna</div> nada</td>
    """
    assert text_from_html(f"<table><tr>{html}</table>") == "Logotipo\nOlá, Ana\nColuna"


@pytest.mark.parametrize(
    "hidden",
    [
        "<p style='display:none'>x<div>Olá</div>",
        "<table><tr><td style='display:none'>x<td>Olá</table>",
        "<table><tr style='display:none'><td>x<tr><td>Olá</table>",
        "<ul><li hidden>x<li>Olá</ul>",
        "<div hidden><p>x<ul><li>x</div>Olá",
        "<div hidden><div>x</div>x</div>Olá",
        "<div hidden><table><tr><td></div>x</table></div>Olá",
        "<img style='display:none' alt=x>Olá",
        "<br hidden>Olá<img width=1 height=1 alt=x>",
    ],
)
def test_what_is_hidden_ends_where_its_element_ends(hidden: str) -> None:
    assert text_from_html(hidden).removeprefix("- ") == "Olá"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div>Prévia&zwnj;&nbsp;&zwnj;&nbsp;&#8203; &#847; &#8199;&#65279;&shy;</div>Olá", "Prévia\nOlá"),
        ("a&nbsp;&nbsp;b\xa0 c", "a b c"),
        (
            "نمی\u200cخواهم 👩\u200d💻 山田\u3000太郎 co\xadope\xadração",
            "نمی\u200cخواهم 👩\u200d💻 山田\u3000太郎 cooperação",
        ),
        ("<p dir=rtl>שלום\u200f, <b>דנה</b></p>", "שלום\u200f, דנה"),
        ("<b>a</b>b<i> c</i> , <u> d </u>e", "ab c , d e"),
        ("a<br>b<br><br><br>c<br></p><p>d", "a\nb\n\nc\n\nd"),
        ("<span style='display:block'>a</span><span style='display:block'>b</span>", "a\nb"),
        ("<p style='white-space:pre-line'>a  b\n  c\n\nd</p>", "a b\nc\n\nd"),
        ("<style>.m{white-space:pre-wrap}</style><p class=m>a  b\n  c</p>", "a  b\n  c"),
        ("<pre>\na\n\n  b &amp; <b>c</b>\r\nd</pre>e", "a\n\n  b & c\nd\n\ne"),
        (
            "<ol><li>a<ul><li>b<li><p>c</p><p>d</p></ul><li value=7>e<li>f</ol>",
            "1. a\n   - b\n\n   - c\n\n     d\n\n7. e\n8. f",
        ),
        ("<ol start=3><li>a</ol>", "3. a"),
        ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n>\n> b\n\nc"),
        ("<blockquote>a<blockquote>b</blockquote>c</blockquote>", "> a\n>\n> > b\n>\n> c"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("a<hr>b", "a\n----------\nb"),
        (
            "<img alt='a'><img alt='b'>c, <a href='https://a.example/'><img alt=''></a>d",
            "a b c, <https://a.example/> d",
        ),
        ("<a href='https://a.example/'></a><a href='https://b.example/'>&nbsp;</a>", "<https://b.example/>"),
        ("<table><a href='https://a.example/'><tr><td>a</table>b", "a <https://a.example/>\nb"),
        ("<p><a href='https://a.example/'></p><p>a</a></p>b", "a <https://a.example/>\n\nb"),
        ("<div><a href='https://a.example/'></div><img src=x alt=a>", "a <https://a.example/>"),
        ("<a href=https://a.example>a.example</a><a href=https://b.example>b.example</a>", "a.example b.example"),
        ("<a name=a></a>Ins<a name=b></a>crição", "Inscrição"),
        ("<a href='mailto:'>a</a> <a href='tel:'>b</a> <a href='https://'>c</a>", "a b c"),
        ("<form><input type=hidden value=a><input type=submit value=Enviar></form>", "Enviar"),
        ("1<sup>o</sup> H<sub>2</sub>O", "1o H2O"),
        ("3 < 5 <3 a<b>c", "3 < 5 <3 ac"),
        ("<p title=it's>a</p><p title='>'>b</p>", "a\n\nb"),
        ("a <!-- x > y -- z --> b<!----> c<!--> d --!> e", "a b c d --!> e"),
        ("<title>x</title><script>'</p>'</script><style>x</style><iframe>x</iframe>a", "a"),
        ("<o:p>a</o:p><?xml x?><!DOCTYPE x></ x>", "a"),
    ],
)
def test_what_flows_reads_as_a_mail_program_shows_it(html: str, text: str) -> None:
    assert text_from_html(html) == text


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("<tr><td>Data:<td>12/10<tr><td>Local:<td>São Paulo", "Data:   12/10\nLocal:  São Paulo"),
        ("<tr><th>Item<th>Valor<tr><td>Crachá<br>azul<td>R$ 1", "Item    Valor\nCrachá  R$ 1\nazul"),
        ("<tr><td>a<td><td>b<tr><td>c<td>&nbsp;<td>d", "a  b\nc  d"),
        ("<tr><td>a<td>b<td>1<tr><td colspan=2>Total<td>2", "a      b  1\nTotal     2"),
        (
            "<tr><td>" + "longo " * 12 + "<td>" + "texto " * 12,
            f"{'longo ' * 12}".strip() + "\n\n" + ("texto " * 12).strip(),
        ),
        ("<tr><td><p>a</p><p>b</p><td>c", "a\n\nb\n\nc"),
        ("<tr><td>a<tr><td><table><tr><td>b<td>c</table><tr><td>d", "a\nb  c\nd"),
        ("<caption>Pedido</caption><tr><td>a<td>b</tr>fora", "Pedido\nfora\na  b"),
    ],
)
def test_cells_with_data_stand_in_columns_and_those_of_a_layout_below_one_another(rows: str, text: str) -> None:
    assert text_from_html(f"<table>{rows}</table>") == text
