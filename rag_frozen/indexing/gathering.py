"""What a change of an index adds and deletes: read once, checked, and put on disk.

Memory holds a batch of passages, 8 bytes for each added id, and the deleted ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rag_frozen.corpus import ArrowPassageStore
from rag_frozen.corpus.ids import SeenIds
from rag_frozen.corpus.store_writing import write_store
from rag_frozen.errors import InputError, UnknownPassageError
from rag_frozen.types import Passage

__all__ = ["Change", "gather_change"]

_NAMED_AT_MOST = 5
BATCH = 4_096
"""Added passages that are looked at together."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is added, as a store of its own where anything is, and the ids that are deleted."""

    added: ArrowPassageStore | None
    deleted: tuple[str, ...]

    @property
    def n_added(self) -> int:
        """Passages added."""
        return 0 if self.added is None else len(self.added)

    def passages(self) -> Iterator[Passage]:
        """The added passages in order."""
        if self.added is not None:
            for batch in self.added.iter_passages(BATCH):
                yield from batch

    def ids(self) -> Iterator[str]:
        """Their ids in order."""
        if self.added is not None:
            for batch in self.added.iter_ids():
                yield from batch


def gather_change(
    store: ArrowPassageStore,
    work: Path,
    *,
    add: Iterable[Passage],
    delete: Sequence[str],
    replace: bool,
) -> Change:
    """Read the added passages once into ``work``, and check what is asked.

    Args:
        store: of the corpus that is changed.
        work: an empty folder; the added passages stand there as a store.
        add, delete, replace: as of :func:`rag_frozen.indexing.changes.change_index`.

    Raises:
        InputError: when there is nothing to change, an added id is there already or comes twice,
            an added passage has no text, or nothing would be left.
        UnknownPassageError: when an id to delete is not there.
    """
    if unknown := [one for one, held in zip(delete, store.holds(delete), strict=True) if not held]:
        raise UnknownPassageError(
            f"Nothing was changed: the corpus of {len(store):,} passages holds no "
            f"{_named(unknown)}. Name ids as they stand in the file that the corpus was built from."
        )
    deleted = dict.fromkeys(delete)
    summary = write_store(work, _checked(store, add, deleted, replace))
    if not summary.n_passages and not deleted:
        raise InputError("Nothing is to be added or deleted. Name passages or ids.")
    if len(store) - len(deleted) + summary.n_passages == 0:
        raise InputError("Nothing would be left of the corpus. Remove its folder instead.")
    added = ArrowPassageStore(work) if summary.n_passages else None
    return Change(added, tuple(deleted))


def _checked(
    store: ArrowPassageStore, add: Iterable[Passage], deleted: dict[str, None], replace: bool
) -> Iterator[Passage]:
    """The added passages; with ``replace`` those that are there go into ``deleted``."""
    seen = SeenIds()
    stream = iter(add)
    while batch := list(islice(stream, BATCH)):
        ids = [passage.id for passage in batch]
        if twice := [one for one, new in zip(ids, seen.add(ids), strict=True) if not new]:
            raise InputError(f"Ids come twice among the added passages: {_named(twice)}.")
        there = [one for one, held in zip(ids, store.holds(ids), strict=True) if held]
        if replace:
            deleted.update(dict.fromkeys(there))
        elif taken := [one for one in there if one not in deleted]:
            raise InputError(
                f"The corpus holds passages of these ids already: {_named(taken)}. To replace "
                "them, say so: rag-frozen index add RECIPE FILE --replace"
            )
        if empty := [passage.id for passage in batch if not passage.text.strip()]:
            raise InputError(f"Passages without text cannot be found: {_named(empty)}.")
        yield from batch


def _named(ids: Sequence[str]) -> str:
    named = ", ".join(repr(one) for one in ids[:_NAMED_AT_MOST])
    return named if len(ids) <= _NAMED_AT_MOST else f"{named} and {len(ids) - _NAMED_AT_MOST} more"
