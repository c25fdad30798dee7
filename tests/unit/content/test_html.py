"""The plain text of an HTML mail: what a reader needs, and nothing that a mail program hides."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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
<div style="mso-hide: all">Pré-cabeçalho do Outlook</div><p hidden>Escondido</p><template>Modelo</template>
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
        ('<a href="mailto:a@b.example?subject=x">a@b.example</a>', "a@b.example"),
        ('<a href="mailto:a@b.example">Fale conosco</a>', "Fale conosco <a@b.example>"),
        ('<a href="#top">topo</a> <a name="x">n</a> <a href="">v</a>', "topo n v"),
        ('<a href="javascript:alert(1)">js</a> <a href="tel:+5511999">+55 11 999</a>', "js +55 11 999"),
        ('<a href="https://a.example/1">a<a href="https://a.example/2">b</a>', "ab <https://a.example/2>"),
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


HOSTILE = {
    "nested blocks": "'<div>' * 10_000 + 'x' + '</div>' * 10_000",
    "nested tables": "'<table><tr><td>' * 10_000 + 'x'",
    "nested lists": "'<ul><li>' * 10_000 + 'x'",
    "nested quotations": "'<blockquote>' * 10_000 + 'x'",
    "nested formatting": "'<b>' * 100_000 + 'x'",
    "nested links": "'<a href=https://a.example/>' * 50_000 + 'x' + '</a>' * 50_000",
    "megabytes": "'<p>Olá <b>mundo</b> <a href=\"https://a.example/z\">z</a></p>' * 100_000",
    "a wide and long table": "'<table>' + '<tr><td>a</td></tr>' * 3_000 + '<tr><td>' + 'b' * 100_000 + '</td></tr>'",
    "a row of cells": "'<table><tr>' + '<td>x</td>' * 100_000",
    "spans": "'<table><tr><td colspan=1000000000 rowspan=1000000000>a</table>'",
    "entities": "'&#xD800; &#0; &#99999999999; &bogus; &amp &' * 10_000",
    "NUL": "'<p>a\\x00b</p>' * 10_000",
    "surrogates": "'<p>\\ud800</p>'",
    "opening brackets": "'<' * 1_000_000",
    "open links": "'<a \"' * 300_000",
    "open addresses": "'<a href=\\'' * 200_000",
    "unclosed address": "'<a href=\\'' + 'x' * 1_000_000",
    "attributes": "'<a ' + 'href ' * 200_000 + '>x</a>'",
    "open comments": "'<!--' * 250_000",
    "open styles": "'<style>' * 150_000",
    "open preformatted": "'<pre>' * 200_000",
    "broken ends": "'</a' * 1_000_000",
    "spaces": "' ' * 1_000_000",
    "lines": "'\\n' * 1_000_000",
}


@pytest.mark.parametrize("html", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_html_neither_crashes_the_process_nor_hangs(html: str) -> None:
    """In a process of its own: an overflowing stack in compiled code would end it without an exception."""
    script = f"""
        from congressy_mailer.content.html import text_from_html
        assert isinstance(text_from_html({html}), str)
        print("alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@given(
    st.lists(st.sampled_from(["<a", " href=", '"', "'", ">", "</a>", "https://x", "<", "&", "<b>", "<!--", "\n", "é"]))
)
def test_any_sequence_of_pieces_becomes_text(pieces: list[str]) -> None:
    text_from_html("".join(pieces))


@given(st.text())
def test_any_text_becomes_text(html: str) -> None:
    text_from_html(html).encode()


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30))
def test_words_are_kept(word: str) -> None:
    assert word in text_from_html(f"<table><tr><td><p>{word}</p></td></tr></table>")
