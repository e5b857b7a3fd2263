"""What is kept of a wiki: the settings that the dump reader's parts share.

Plain values; the recipe (``rag_frozen.recipes.index``) holds the same fields and their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DISAMBIGUATION_TEMPLATES", "DROPPED_SECTIONS", "INFOBOX_PREFIXES", "WikiOptions"]

DROPPED_SECTIONS = (
    "Bibliography",
    "External links",
    "Further reading",
    "Notes",
    "References",
    "See also",
    "Sources",
)
"""Sections of English articles that list other works and pages."""

DISAMBIGUATION_TEMPLATES = (
    "begriffsklärung",
    "dab",
    "desambiguación",
    "desambiguação",
    "disamb",
    "disambig",
    "disambigua",
    "disambiguation",
    "disambiguation page",
    "dp",
    "geodis",
    "hndis",
    "homonymie",
    "mathdab",
    "nūzeimu škiršona",
    "nuzeimu škiršona",
    "numberdis",
    "roaddis",
    "schooldis",
    "shipindex",
    "неоднозначность",
)
"""Templates, in lower case, that mark a page which only tells meanings of a name apart."""

INFOBOX_PREFIXES = (
    "automatic taxobox",
    "chembox",
    "drugbox",
    "geobox",
    "infobox",
    "infoskreine",
    "speciesbox",
    "taxobox",
)
"""How, in lower case, the names of templates begin that show a table of facts."""

LISTS_OF = (r"(List|Index|Outline|Lists) of ",)
"""Titles of pages that are lists; DPR's preprocessing (DrQA's) leaves them out."""


@dataclass(frozen=True, slots=True)
class WikiOptions:
    """Which pages of a wiki become articles, and what of their text stays.

    The defaults are DPR's (Karpukhin et al. 2020, 4.1): prose alone, no lists, tables, infoboxes,
    headings or disambiguation pages.

    Attributes:
        namespaces: numbers of the namespaces that are read; 0 holds the articles.
        lists: keep the items of lists and indented lines.
        infoboxes: keep the facts of infoboxes as sentences ``name: value.``
        headings: keep headings as paragraphs of their own.
        disambiguation: keep disambiguation pages.
        min_words: articles with fewer words are stubs and left out.
        skip_titles: regular expressions; pages whose titles match from the start are left out.
        drop_sections: headings of the sections that are left out with all below them, in any case.
        disambiguation_templates: names in lower case.
        infobox_prefixes: beginnings of names in lower case.
    """

    namespaces: tuple[int, ...] = (0,)
    lists: bool = False
    infoboxes: bool = False
    headings: bool = False
    disambiguation: bool = False
    min_words: int = 1
    skip_titles: tuple[str, ...] = LISTS_OF
    drop_sections: tuple[str, ...] = DROPPED_SECTIONS
    disambiguation_templates: tuple[str, ...] = DISAMBIGUATION_TEMPLATES
    infobox_prefixes: tuple[str, ...] = INFOBOX_PREFIXES
