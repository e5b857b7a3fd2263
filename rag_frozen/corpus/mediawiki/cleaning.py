"""Small repairs to text that lost its markup: quotes before parsing, brackets and spaces after.

Knows strings only.
"""

from __future__ import annotations

import re

__all__ = ["HIDDEN_MARK", "balance_quotes", "clean_paragraph", "without_hidden", "without_tables"]

HIDDEN_MARK = "\x03"
"""Stands where a tag was taken out of a line's start; XML allows no such character in a dump."""

_HIDDEN_TAGS = (
    "categorytree", "ce", "charinsert", "chem", "gallery", "graph", "hiero", "imagemap",
    "includeonly", "indicator", "inputbox", "mapframe", "maplink", "math", "ref", "references",
    "score", "source", "syntaxhighlight", "templatedata", "templatestyles", "timeline",
)  # fmt: skip
_COMMENT_LINES = re.compile(r"\n[ \t]*(?:<!--(?:(?!-->).)*-->[ \t]*)+(?=\n)", re.DOTALL)
_HIDDEN = re.compile(
    r"<(?P<shown>nowiki|pre)\b[^<>]*(?<!/)>.*?</(?P=shown)\s*>"
    r"|<!--.*?-->"
    rf"|<(?P<tag>{'|'.join(_HIDDEN_TAGS)})\b(?:[^<>]*/>|[^<>]*>.*?</(?P=tag)\s*>)",
    re.DOTALL | re.IGNORECASE,
)

_QUOTES = re.compile("'{2,}")
_SPACES = re.compile("[\\s\u200b\ufeff]+")
_SWITCH = re.compile(r"__[^\W\d_]+(?:_[^\W\d_]+)*__")  # __NOTOC__, in any language
_LEFTOVER = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|\{\||\|\}|</?ref\b[^<>]*/?>|<!--|-->")
_TABLE_END = re.compile(r"\s*\|\}(?!\})")
_TABLE_BEGIN = re.compile(r"[\s:]*\{\|")
_TABLE_LINE = re.compile(r"\s*\|")
_EMPTY_BRACKETS = re.compile(r"\(\s*(?:[,;:/·–—-]\s*)*\)|\[\s*\]|（\s*）")
_BRACKET_START = re.compile(r"\(\s*(?:[,;:]\s*)+")
_BRACKET_END = re.compile(r"(?:\s*[,;:])*\s+\)|[,;:]+\)")
_REPEATED = re.compile(r"([,;])(?:\s*[,;])+")
_BEFORE_MARK = re.compile(r"\s+([,.;])(?=\s|$)")


def balance_quotes(wikitext: str) -> str:
    r"""Remove the quotes of bold and italic text, line by line, and keep apostrophes.

    MediaWiki reads runs of 2, 3 and 5 quotes as italic, bold and both; of 4 the first is an
    apostrophe, as are all but 5 of longer runs. When a line opens both and closes neither, one run
    of 3 is an apostrophe and italic: the first after a one-letter word, else after a longer word.

    >>> balance_quotes("the '''bold''' and ''italic'' writer's l'''amour''")
    "the bold and italic writer's l'amour"
    """
    if "''" not in wikitext:
        return wikitext
    return "\n".join(_without_quotes(line) for line in wikitext.split("\n"))


def clean_paragraph(text: str) -> str:
    r"""Return a paragraph in one line: white space as single spaces, no leftover markup, no
    brackets that lost what they held, no spaces before commas and full stops.

    >>> clean_paragraph("Ada  ( ; born 1815\n) wrote , as she said .__NOTOC__")
    'Ada (born 1815) wrote, as she said.'
    """
    if _TABLE_LINE.match(text):  # a row of a table that the parser could not close
        return ""
    text = _SWITCH.sub("", text)
    text = _LEFTOVER.sub(" ", text)
    text = _SPACES.sub(" ", text).strip()
    previous = None
    while "(" in text and previous != text:
        previous = text
        text = _EMPTY_BRACKETS.sub("", text)
        text = _BRACKET_START.sub("(", text)
        text = _BRACKET_END.sub(")", text)
    text = _REPEATED.sub(r"\1", text)
    text = _BEFORE_MARK.sub(r"\1", text)
    text = _SPACES.sub(" ", text).strip()
    return text if any(map(str.isalnum, text)) else ""


def without_hidden(wikitext: str) -> str:
    """Remove comments and the tags whose contents are no wikitext or are shown elsewhere.

    MediaWiki too takes these out before it reads anything else: from the first ``<ref>`` to the
    next ``</ref>``, whatever stands between. It halves the parser's work, most of which are
    citations. What stands in ``nowiki`` and ``pre`` is left alone.

    >>> without_hidden("Ada<ref>{{cite|[[x]]}}</ref><ref name=a /> <nowiki><ref></nowiki> wrote.")
    'Ada <nowiki><ref></nowiki> wrote.'
    """
    if "<" not in wikitext:
        return wikitext
    text = _COMMENT_LINES.sub("", wikitext)
    return _HIDDEN.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    """A tag at the start of a line keeps what follows from becoming a list item or a heading."""
    if found["shown"]:
        return found[0]
    at_line_start = found.start() == 0 or found.string[found.start() - 1] == "\n"
    return HIDDEN_MARK if found["tag"] and at_line_start else ""


def without_tables(wikitext: str, *, unclosed: bool = False) -> str:
    r"""Remove tables by their first and last lines, which spares the parser most of its other work.

    With ``unclosed`` also those without an end, up to the next empty line: for the pages on which
    the parser gives up (broken HTML inside a table, mostly).

    >>> without_tables("before\n{|\n| a <td>\n|}\nafter")
    'before\nafter'
    """
    if "{|" not in wikitext:
        return wikitext
    kept: list[str] = []
    lines = wikitext.split("\n")
    at = 0
    while at < len(lines):
        after = at
        if _TABLE_BEGIN.match(lines[at]):
            after = _after_table(lines, at, unclosed=unclosed)
        if after == at:
            kept.append(lines[at])
        at = max(after, at + 1)
    return "\n".join(kept)


def _after_table(lines: list[str], at: int, *, unclosed: bool) -> int:
    """The line after the table that begins at ``at``; tables may stand in tables. ``at`` itself
    when it has no end."""
    depth, empty = 0, None
    for place in range(at, len(lines)):
        line = lines[place]
        if _TABLE_BEGIN.match(line):
            depth += 1
        elif _TABLE_END.match(line):
            depth -= 1
        elif not line.strip() and empty is None:
            empty = place
        if depth == 0:
            return place + 1
    if not unclosed:
        return at
    return len(lines) if empty is None else empty


def _without_quotes(line: str) -> str:
    runs = list(_QUOTES.finditer(line))
    if not runs:
        return line
    lengths = [_markup_length(run.end() - run.start()) for run in runs]
    bold = sum(length in (3, 5) for length in lengths)
    italic = sum(length in (2, 5) for length in lengths)
    if bold % 2 and italic % 2 and (spare := _apostrophe(line, runs, lengths)) is not None:
        lengths[spare] = 2
    parts, at = [], 0
    for run, length in zip(runs, lengths, strict=True):
        parts += [line[at : run.start()], "'" * (run.end() - run.start() - length)]
        at = run.end()
    return "".join(parts) + line[at:]


def _markup_length(run: int) -> int:
    return run if run in (2, 3, 5) else 3 if run == 4 else 5


def _apostrophe(line: str, runs: list[re.Match[str]], lengths: list[int]) -> int | None:
    """Which run of 3 begins with an apostrophe, in MediaWiki's order of preference."""
    bold = [place for place, length in enumerate(lengths) if length == 3]
    after_word = [p for p in bold if line[: runs[p].start()][-1:].strip()]
    after_letter = [p for p in after_word if not line[: runs[p].start()][-2:-1].strip()]
    return next(iter(after_letter + after_word + bold), None)
