"""Templates that are part of a sentence: what a reader of the page would see of them.

Most templates (navigation, citations, maintenance) show nothing that belongs to the prose and are
removed. Some dress or hold words of a sentence, a measure, a date or a foreign word, and a sentence
without them has a hole where its answer stood: "The tower is high." These are English Wikipedia's
most used ones, expanded without their pages, so in simplified form. Knows names and arguments;
nothing about the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["Arguments", "expand_template", "template_key", "template_shows", "without_templates"]

_FLAT = re.compile(r"(?<!\{)\{\{([^{}|]*)(?:\|[^{}]*)?\}\}(?!(?:\}\})*\}(?!\}))")
"""A template without braces inside; three braces in a row are an argument's, not a template's."""
_PASSES = 3  # over templates in templates, from the inside out

Arguments = Mapping[str, str]
"""A template's arguments as plain text: ``1``, ``2``, … and names in lower case."""

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_RANGE_WORDS = {
    "-": "–", "–": "–", "and": " and ", "by": " by ", "or": " or ", "to": " to ", "x": " × ",
    "×": " × ", "*": " × ",
}  # fmt: skip
_FIRST = (
    "abbr", "angbr", "angle bracket", "as written", "bdi", "big", "bigger", "center",
    "citation needed span", "em", "flag", "flagcountry", "flagu", "formatnum", "gaps", "highlight",
    "hilite", "iast", "ill", "interlanguage link", "keypress", "large", "larger", "lc", "mvar",
    "nbr", "nihongo", "nihongo foot", "no wrap", "nobold", "nobr", "nobreak", "noitalic",
    "not a typo", "nowrap", "nowraplinks", "nts", "proper name", "resize", "respell", "ruby",
    "sclass", "ship name", "sic", "small", "smallcaps", "smalldiv", "smaller", "strong", "sub",
    "sup", "title-link", "tooltip", "uc", "ucfirst", "unicode", "url", "vanchor", "var",
    "visible anchor", "wikt-lang",
)  # fmt: skip
_QUOTES = ("blockquote", "bquote", "cquote", "quotation", "quote", "quote box", "rquote")
_LISTS = ("flatlist", "hlist", "plainlist", "ubl", "ublist", "unbulleted list")
_FIXED = {
    "!": "|",
    "'": "'",
    "'s": "'s",
    "=": "=",
    "ayin": "ʿ",
    "ditto": "",
    "en dash": "–",
    "em dash": "—",
    "hamza": "ʾ",
    "mdash": "—",
    "nbsp": " ",
    "ndash": "–",
    "okina": "ʻ",
    "pipe": "|",
    "snd": " – ",
    "spaced en dash": " – ",
    "spaced ndash": " – ",
    "spnd": " – ",
    "spaces": " ",
    "thinsp": " ",
    "thin space": " ",
    "wbr": "",
    "·": " · ",
    "•": " • ",
    "–": "–",
    "—": "—",
}
_CURRENCIES = {
    "a$": "A$", "aud": "A$", "brl": "R$", "cad": "C$", "cny": "¥", "eur": "€", "euro": "€",
    "gbp": "£", "hk$": "HK$", "indian rupee": "₹", "inr": "₹", "inrconvert": "₹", "jpy": "¥",
    "nz$": "NZ$", "pound sterling": "£", "rs": "₹", "us$": "US$", "usd": "US$", "£": "£", "€": "€",
    "¥": "¥", "₹": "₹",
}  # fmt: skip


def template_key(name: str) -> str:
    """Return a template's name as the rules know it.

    >>> template_key(" Birth_date\\n")
    'birth date'
    >>> template_key("Template:Lang")
    'lang'
    """
    key = " ".join(name.replace("_", " ").split()).lower()
    return key.removeprefix("template:").strip()


def template_shows(key: str) -> bool:
    """Whether a template of this name can show something in a sentence.

    >>> template_shows("lang"), template_shows("cite web")
    (True, False)
    """
    return (
        key in _RULES
        or key in _FIXED
        or key in _CURRENCIES
        or key.startswith(("lang-", "formatnum:"))
    )


def without_templates(wikitext: str, keeps: Callable[[str], bool]) -> str:
    """Remove templates that hold no other braces, from the inside out, where ``keeps`` of their key
    is false. Most are citations, and the parser spends most of its time on them; what is left, with
    all that is nested or unbalanced, is the parser's.

    >>> without_templates("Ada{{cite|a{{!}}b}} is {{lang|la|magna}}.{{x|{{y}}}}", template_shows)
    'Ada{{cite|a{{!}}b}} is {{lang|la|magna}}.'
    """

    def replaced(found: re.Match[str]) -> str:
        return found[0] if keeps(template_key(found[1])) else ""

    for _ in range(_PASSES):
        before = len(wikitext)
        wikitext = _FLAT.sub(replaced, wikitext)
        if len(wikitext) == before:
            break
    return wikitext


def expand_template(key: str, arguments: Arguments) -> str | None:
    """Return what a template shows in a sentence, or None when it shows nothing there.

    >>> expand_template("convert", {"1": "324", "2": "m", "3": "ft"})
    '324 m'
    >>> expand_template("birth date", {"1": "1815", "2": "12", "3": "10"})
    'December 10, 1815'
    >>> expand_template("cite web", {"title": "A page"}) is None
    True
    """
    if key in _FIXED:
        return _FIXED[key]
    if key in _RULES:
        return _RULES[key](arguments)
    if key.startswith("lang-"):
        return arguments.get("1")
    if key.startswith("formatnum:"):
        return key.removeprefix("formatnum:").strip()
    if key in _CURRENCIES and arguments.get("1"):
        return _CURRENCIES[key] + arguments["1"]
    return None


def _first(arguments: Arguments) -> str | None:
    return arguments.get("1")


def _last(arguments: Arguments) -> str | None:
    numbered = sorted(int(name) for name in arguments if name.isascii() and name.isdigit())
    return arguments[str(numbered[-1])] if numbered else None


def _second(arguments: Arguments) -> str | None:
    return arguments.get("2") or arguments.get("text")


def _measure(arguments: Arguments) -> str | None:
    """``convert``: the measure as given; the conversion needs the template's tables."""
    parts = [arguments.get(str(number), "") for number in range(1, 12)]
    value, rest = parts[0], parts[1:]
    while len(rest) > 2 and rest[0] in _RANGE_WORDS:
        value += _RANGE_WORDS[rest[0]] + rest[1]
        rest = rest[2:]
    if not value:
        return None
    unit = rest[0]
    if len(rest) > 2 and rest[1] and _is_number(rest[1]) and rest[2]:  # 5|ft|3|in
        return f"{value} {unit} {rest[1]} {rest[2]}"
    return f"{value} {unit}".strip()


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("-−").isdigit()


def _date(arguments: Arguments) -> str | None:
    """Year, month and day as ``Month D, Y``, or ``D Month Y`` with ``df``; what is missing stays
    out. A first argument with more than a year is a date written out."""
    year, month, day = (arguments.get(place, "") for place in ("1", "2", "3"))
    if not year.isdigit():
        return year or None
    if not (month.isdigit() and 1 <= int(month) <= 12):
        return " ".join(filter(None, (day, month, year)))
    name = _MONTHS[int(month) - 1]
    if not day.isdigit():
        return f"{name} {year}"
    if arguments.get("df", "").lower() in ("y", "yes", "1"):
        return f"{int(day)} {name} {year}"
    return f"{name} {int(day)}, {year}"


def _as_of(arguments: Arguments) -> str | None:
    if "alt" in arguments:
        return arguments["alt"]
    word = "As of" if arguments.get("lc", "") not in ("y", "yes") else "as of"
    date = _date({**arguments, "df": arguments.get("df", "yes")})
    return f"{word} {date}" if date else None


def _fraction(arguments: Arguments) -> str | None:
    parts = [arguments[place] for place in ("1", "2", "3") if arguments.get(place)]
    match parts:
        case [bottom]:
            return f"1/{bottom}"
        case [top, bottom]:
            return f"{top}/{bottom}"
        case [whole, top, bottom]:
            return f"{whole} {top}/{bottom}"
    return None


def _years(word: str) -> Callable[[Arguments], str | None]:
    def expand(arguments: Arguments) -> str | None:
        shown = "–".join(arguments[place] for place in ("1", "2") if arguments.get(place))
        return f"{word} {shown}".rstrip()

    return expand


def _listed(arguments: Arguments) -> str | None:
    places = sorted((int(name) for name in arguments if name.isdigit()), key=int)
    return ", ".join(filter(None, (arguments[str(place)] for place in places))) or None


def _quote(arguments: Arguments) -> str | None:
    text = arguments.get("text") or arguments.get("quote") or arguments.get("1")
    return f"\n{text}\n" if text else None


def _height(arguments: Arguments) -> str | None:
    shown = [f"{arguments[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if unit in arguments]
    return " ".join(shown) or None


def _value(arguments: Arguments) -> str | None:
    number, unit = arguments.get("1"), arguments.get("u") or arguments.get("ul") or ""
    power = f" × 10^{arguments['e']}" if arguments.get("e") else ""
    return f"{number}{power} {unit}".rstrip() if number else None


_RULES: dict[str, Callable[[Arguments], str | None]] = {
    **dict.fromkeys(_FIRST, _first),
    **dict.fromkeys(_QUOTES, _quote),
    **dict.fromkeys(_LISTS, _listed),
    **dict.fromkeys(("lang", "color", "font color", "colored text", "script"), _second),
    **dict.fromkeys(("transl", "transliteration", "translit"), _last),
    **dict.fromkeys(("convert", "cvt"), _measure),
    **dict.fromkeys(
        (
            "birth date", "birth date and age", "bda", "dob", "death date", "death date and age",
            "dda", "dts", "end date", "film date", "release date", "start date",
            "start date and age", "birth-date", "death-date", "birth-date and age", "date",
        ),
        _date,
    ),
    **dict.fromkeys(("as of", "asof"), _as_of),
    **dict.fromkeys(("frac", "fraction", "sfrac"), _fraction),
    **dict.fromkeys(("c.", "ca.", "circa"), _years("c.")),
    **dict.fromkeys(("fl.", "floruit"), _years("fl.")),
    **dict.fromkeys(("reign", "r."), _years("r.")),
    **dict.fromkeys(("b.", "born in", "born-in"), _years("b.")),
    **dict.fromkeys(("d.", "died in", "died-in"), _years("d.")),
    "height": _height,
    "val": _value,
}  # fmt: skip
