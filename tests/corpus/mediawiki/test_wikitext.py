"""The prose of articles: what markup shows stays, what it hides goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.corpus.mediawiki.cleaning import balance_quotes, clean_paragraph
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.templates import expand_template
from rag_frozen.corpus.mediawiki.wikitext import LinkNames, article_text, link_target

pytest.importorskip("mwparserfromhell")

GERMAN = LinkNames(
    all=frozenset({"datei", "kategorie", "vorlage", "file", "category", "image", "template"}),
    silent=frozenset({"datei", "kategorie", "file", "category", "image"}),
)


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("A '''bold''' and ''italic'' word.", "A bold and italic word."),
        (
            "See [[Ada Lovelace]] and [[Charles Babbage|Babbage]]s.",
            "See Ada Lovelace and Babbages.",
        ),
        ("One.<ref>A book</ref> Two.<ref name=x /> Three.", "One. Two. Three."),
        ("Cited.<ref>{{cite web|title=[[A]]}}</ref>", "Cited."),
        ("High {{citation needed|date=May 2020}}tower.", "High tower."),
        ("<!-- a note -->Text.", "Text."),
        ("One\n<!-- a\nnote -->\ntwo.", "One two."),
        ("Where\n<math>x</math>; it is\n<ref>a</ref>* so.", "Where; it is * so."),
        ("A <nowiki><ref></nowiki> b<ref>c</ref>.", "A b."),
        ("A <REF name=x>b</ref>c<references><ref>d</ref></references>.", "A c."),
        ("__NOTOC__\nText.", "Text."),
        ("[[File:A.jpg|thumb|A [[tower]] seen]]Text.", "Text."),
        ("[[Datei:A.jpg|mini|Ein Turm]]Text.", "Text."),
        ("[[Attēls:A.jpg|thumb|250px|A tower]]Text.", "Text."),
        ("Text.\n\n[[Category:Towers]]\n[[Kategorie:Türme]]\n[[fr:Tour]]", "Text."),
        ("In [[:Category:Towers|towers]] and [[:de:Turm|Turm]].", "In towers and Turm."),
        ("{| class=wikitable\n|-\n! A !! B\n|-\n| 1 || 2\n|}\nText.", "Text."),
        ("{|\n| a\n{|\n| b\n|}\n| c\n|}\nText.", "Text."),
        ("{{Box|data=\n{|\n| a\n|}\n}}Text.", "Text."),
        ("{| class=wikitable\n<tr><td>A<td>B\n|}\nText.", "Text."),
        ("Text.\n{|\n| never closed <td>\n\nMore.", "Text.\nMore."),
        ("[http://example.org the site] and [http://example.org].", "the site and."),
        ("Water&nbsp;H<sub>2</sub>O &amp; salt.", "Water H2O & salt."),
        ("Where <math>x^2 = {y}</math> holds.", "Where holds."),
        ("One<br />two<br>three", "One two three"),
        ("<nowiki>[[kept]] ''as''</nowiki> it is", "kept as it is"),
        ("<gallery>\nA.jpg|One\n</gallery>Text.", "Text."),
        ("First line\nsame paragraph.\n\nSecond.", "First line same paragraph.\nSecond."),
        ("<div style='x'>Inside.</div>\nAfter.", "Inside.\nAfter."),
        ("Lost <font color=red>tag.", "Lost tag."),
        ("{{Infobox person|name=Ada|born=1815}}Text.", "Text."),
        ("* one\n* two\nText.\n: indented\n# first", "Text."),
        ("== Life ==\nShe lived.\n=== Death ===\nShe died.", "She lived.\nShe died."),
        ("A.\n== See also ==\nB.\n=== More ===\nC.\n== Works ==\nD.", "A.\nD."),
        ("The {{PAGENAME}} is it.", "The Here is it."),
        ("Ada ({{lang-en|Ada}}; {{IPAc-en|e}}, born 1815)", "Ada (Ada; born 1815)"),
        ("It is {{convert|324|m|ft}} high.", "It is 324 m high."),
        ("Is {{nowrap|[[Ada]] {{lang|la|regina}}}} here?", "Is Ada regina here?"),
        ("'''''{{unknown|x}}''''' so.", "so."),
        ("{{a|{{b|{{c}}}}}}Text {{{1|{{d}}}}} here {{{2}}}.", "Text here."),
        ("", ""),
        ("{{unclosed [[link", ""),
    ],
)
def test_markup_shows_what_a_reader_of_the_page_would_see(wikitext: str, expected: str) -> None:
    found = article_text(wikitext, names=GERMAN, title="Here").text
    if wikitext == "{{unclosed [[link":
        assert "{{" not in found
        assert "[[" not in found
    else:
        assert found == expected


def test_lists_headings_and_infoboxes_stay_where_they_are_asked_for() -> None:
    wikitext = (
        "{{Infobox person\n| name = [[Ada]]\n| birth_date = {{birth date|1815|12|10}}\n"
        "| image = Ada.jpg\n| empty =\n}}\nShe wrote.\n== Works ==\n* A ''note''\n** deeper\nEnd."
    )
    options = WikiOptions(lists=True, headings=True, infoboxes=True)
    assert article_text(wikitext, options).text.split("\n") == [
        "name: Ada.",
        "birth date: December 10, 1815.",
        "She wrote.",
        "Works",
        "A note",
        "deeper",
        "End.",
    ]
    assert article_text(wikitext).text == "She wrote.\nEnd."


def test_links_are_those_to_articles_each_once_without_sections() -> None:
    wikitext = (
        "[[ada lovelace]], [[Ada_Lovelace#Life|she]], [[Kategorie:X]], [[#Life|below]], "
        "[[fr:Ada]], [[Babbage]] {{nowrap|[[Inside]]}} [[Datei:A.jpg|mini|[[Caption]]]]"
    )
    found = article_text(wikitext, names=GERMAN)
    assert found.links == ("Ada lovelace", "Ada Lovelace", "Babbage", "Inside")
    assert link_target("#Life") == ""


@pytest.mark.parametrize(
    "template", ["{{disambig}}", "{{Disambiguation}}", "{{place disambiguation}}"]
)
def test_disambiguation_pages_are_told_by_their_template(template: str) -> None:
    assert article_text(f"'''Ada''' may be:\n* A\n{template}").disambiguation
    assert not article_text("Ada is a name.").disambiguation


words = st.text("abcdefgäßñжλ", min_size=1, max_size=8)
paragraphs = st.lists(st.lists(words, min_size=1, max_size=20), min_size=1, max_size=6)


@given(paragraphs, st.data())
def test_paragraphs_written_as_wikitext_come_back(
    text: list[list[str]], data: st.DataObject
) -> None:
    """Every word is written in a random dress, and hidden markup is put between the words."""
    dresses = [
        "{}",
        "'''{}'''",
        "''{}''",
        "[[{}]]",
        "[[target|{}]]",
        "<b>{}</b>",
        "{{{{nowrap|{}}}}}",
    ]
    hidden = ["", "<ref>no</ref>", "<!-- no -->", "{{fact}}", "[[File:x.jpg|thumb|no]]"]
    written = [
        " ".join(
            data.draw(st.sampled_from(dresses)).format(word) + data.draw(st.sampled_from(hidden))
            for word in paragraph
        )
        for paragraph in text
    ]
    found = article_text("\n\n".join(written)).text
    assert found == "\n".join(" ".join(paragraph) for paragraph in text)


@given(st.text("ab '[]{}|<>/=*#:;\n&-!", max_size=60))
def test_any_markup_gives_clean_lines_and_no_error(wikitext: str) -> None:
    for line in article_text(wikitext).text.split("\n"):
        assert line == " ".join(line.split())
        assert not any(mark in line for mark in ("{{", "}}", "[[", "]]", "\x01", "\x02"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("l'''amour'' et '''gras'''", "l'amour et gras"),
        ("''''four'''", "'four"),
        ("'''''five'''''", "five"),
        ("''''''six'''''", "'six"),
        ("it's", "it's"),
    ],
)
def test_quotes_become_markup_or_apostrophes_as_in_mediawiki(line: str, expected: str) -> None:
    assert balance_quotes(line) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada () wrote", "Ada wrote"),
        ("Ada ( , ; ) wrote", "Ada wrote"),
        ("Ada (; born 1815; ) wrote", "Ada (born 1815) wrote"),
        ("| a cell || another", ""),
        ("– : –", ""),
        ("the .NET runtime , and more .", "the .NET runtime, and more."),
    ],
)
def test_what_removed_markup_leaves_behind_is_repaired(text: str, expected: str) -> None:
    assert clean_paragraph(text) == expected


@pytest.mark.parametrize(
    ("key", "arguments", "expected"),
    [
        ("convert", {"1": "5", "2": "to", "3": "10", "4": "km"}, "5 to 10 km"),
        ("convert", {"1": "5", "2": "ft", "3": "3", "4": "in"}, "5 ft 3 in"),
        ("convert", {}, None),
        ("birth date and age", {"1": "1950", "2": "2", "3": "3", "df": "y"}, "3 February 1950"),
        ("start date", {"1": "1950"}, "1950"),
        ("as of", {"1": "2012", "2": "5"}, "As of May 2012"),
        ("as of", {"1": "2012", "lc": "y"}, "as of 2012"),
        ("frac", {"1": "3", "2": "1", "3": "2"}, "3 1/2"),
        ("circa", {"1": "1200", "2": "1250"}, "c. 1200–1250"),
        ("hlist", {"2": "b", "1": "a"}, "a, b"),
        ("lang", {"1": "fr", "2": "mot"}, "mot"),
        ("transl", {"1": "ar", "2": "ISO", "3": "kitab"}, "kitab"),
        ("us$", {"1": "5 million"}, "US$5 million"),
        ("formatnum:12,000", {}, "12,000"),
        ("val", {"1": "5.4", "e": "3", "u": "kg"}, "5.4 × 10^3 kg"),
        ("quote", {"text": "Be."}, "\nBe.\n"),
        ("navbox", {"1": "x"}, None),
    ],
)
def test_templates_within_sentences_keep_their_words(
    key: str, arguments: dict[str, str], expected: str | None
) -> None:
    assert expand_template(key, arguments) == expected
