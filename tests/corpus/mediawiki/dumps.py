"""Dumps as MediaWiki writes them, made from (title, wikitext) for tests."""

from __future__ import annotations

import bz2
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

NAMESPACES = {-2: "Media", -1: "Special", 0: "", 1: "Talk", 4: "Wikipedia", 6: "File",
              10: "Template", 14: "Category"}  # fmt: skip


@dataclass(frozen=True)
class MadePage:
    """A page to write. ``xml`` in place of it writes that."""

    title: str
    text: str = ""
    id: int = 0
    ns: int = 0
    redirect: str | None = None
    model: str = "wikitext"
    xml: str | None = None


def header(version: str = "0.10") -> str:
    """The beginning of a dump up to its first page."""
    names = "".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>\n'
        for key, name in NAMESPACES.items()
    )
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{version}/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="http://www.mediawiki.org/xml/export-{version}/ '
        f'http://www.mediawiki.org/xml/export-{version}.xsd" version="{version}" xml:lang="en">\n'
        "  <siteinfo>\n    <sitename>Test</sitename>\n    <dbname>testwiki</dbname>\n"
        "    <base>https://example.org/wiki/Main</base>\n"
        "    <generator>MediaWiki 1.40</generator>\n"
        f"    <case>first-letter</case>\n    <namespaces>\n{names}    </namespaces>\n"
        "  </siteinfo>\n"
    )


def page_xml(page: MadePage, number: int, version: str = "0.10") -> str:
    """One page element; its id is its number where it has none."""
    if page.xml is not None:
        return page.xml
    redirect = f"    <redirect title={quoteattr(page.redirect)} />\n" if page.redirect else ""
    text = page.text or (f"#REDIRECT [[{page.redirect}]]" if page.redirect else "")
    size = len(text.encode())
    if version == "0.11":
        origin = f"      <origin>{number}</origin>\n"
        attributes = f'bytes="{size}" sha1="abc123" xml:space="preserve"'
    else:
        origin, attributes = "", 'xml:space="preserve"'
    return (
        f"  <page>\n    <title>{escape(page.title)}</title>\n    <ns>{page.ns}</ns>\n"
        f"    <id>{page.id or number}</id>\n{redirect}"
        f"    <revision>\n      <id>{number + 1000}</id>\n"
        "      <parentid>5</parentid>\n      <timestamp>2020-01-02T03:04:05Z</timestamp>\n"
        "      <contributor><username>A &amp; B</username><id>7</id></contributor>\n"
        f"      <comment>[[x]]</comment>\n{origin}      <model>{page.model}</model>\n"
        f"      <format>text/x-wiki</format>\n      <text {attributes}>{escape(text)}</text>\n"
        "      <sha1>abc123</sha1>\n    </revision>\n  </page>\n"
    )


def dump_parts(pages: Iterable[MadePage], version: str = "0.10") -> Iterator[str]:
    """The pieces of a dump in order: header, pages, end."""
    yield header(version)
    for number, page in enumerate(pages, 1):
        yield page_xml(page, number, version)
    yield "</mediawiki>\n"


def dump_text(pages: Iterable[MadePage], version: str = "0.10") -> str:
    """A whole dump."""
    return "".join(dump_parts(pages, version))


def multistream(pages: Iterable[MadePage], version: str = "0.10", each: int = 3) -> bytes:
    """A dump as several bzip2 streams in one file: header, ``each`` pages a stream, end."""
    first, *parts, last = dump_parts(pages, version)
    groups = ["".join(parts[at : at + each]) for at in range(0, len(parts), each)]
    return b"".join(bz2.compress(part.encode()) for part in (first, *groups, last))
