"""Cut documents into passages of about 100 words, as DPR does (Karpukhin et al. 2020, 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rag_frozen.errors import InputError
from rag_frozen.types import Passage

__all__ = ["DPR_WORDS", "chunk_documents", "chunk_text"]

DPR_WORDS = 100
"""Words a passage in DPR's Wikipedia."""


def chunk_text(
    text: str, *, n_words: int = DPR_WORDS, at_sentences: bool = False, wrap: bool = False
) -> list[str]:
    """Cut a text into disjoint blocks of ``n_words`` words, words being runs without white space.

    A last block of fewer than a tenth of ``n_words`` joins the one before it. With
    ``at_sentences`` a block ends at the last sentence end within a fifth before its last word,
    where there is one. With ``wrap`` the last block is filled with words from the text's start, as
    DPR's last passages of articles are; a text shorter than one block stays as it is. That is not
    the default: the repeated words make a second passage on the article's first sentence, which
    takes a place in rankings and in the reader's window.

    >>> chunk_text("one two three four five", n_words=2)
    ['one two', 'three four', 'five']
    >>> chunk_text("One two. Three four five six.", n_words=5, at_sentences=True)
    ['One two. Three four five', 'six.']
    >>> chunk_text("one two three four five", n_words=2, wrap=True)
    ['one two', 'three four', 'five one']

    Raises:
        InputError: for fewer than one word a block.
    """
    if n_words < 1:
        raise InputError(f"A passage needs at least 1 word, not {n_words}.")
    words = text.split()
    blocks: list[list[str]] = []
    start = 0
    while start < len(words):
        stop = min(start + n_words, len(words))
        if at_sentences and stop < len(words):
            earliest = start + n_words - n_words // 5
            ends = [i for i in range(earliest, stop + 1) if words[i - 1][-1] in ".!?"]
            stop = ends[-1] if ends else stop
        blocks.append(words[start:stop])
        start = stop
    if wrap and len(blocks) > 1:
        blocks[-1] += words[: n_words - len(blocks[-1])]
    elif len(blocks) > 1 and len(blocks[-1]) * 10 < n_words:
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [" ".join(block) for block in blocks]


def chunk_documents(
    documents: Iterable[Passage], *, n_words: int = DPR_WORDS, at_sentences: bool = False
) -> Iterator[Passage]:
    """Cut documents into passages; each keeps its document's title and is named ``<id>-<n>``.

    >>> [p.id for p in chunk_documents([Passage("7", "T", "a b c")], n_words=2)]
    ['7-0', '7-1']
    """
    for document in documents:
        blocks = chunk_text(document.text, n_words=n_words, at_sentences=at_sentences)
        for number, block in enumerate(blocks):
            yield Passage(f"{document.id}-{number}", document.title, block)
