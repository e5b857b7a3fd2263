"""The parts of an answer, put together from what the stages gave. Knows values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rag_frozen.reader.spelling import occurrences
from rag_frozen.types import Answer, Evidence, Generation, Hit, Passage, Ranking, sort_hits

__all__ = ["before", "evidence_of", "final_ranking", "withheld"]


def before(retrieved: Ranking, parts: Mapping[str, Ranking]) -> tuple[tuple[str, Ranking], ...]:
    """What came before the final ranking; a stored run may tell what was retrieved for it."""
    made = {name: part for name, part in parts.items() if name not in ("retrieve", "rerank")}
    return (*made.items(), ("retrieve", parts.get("retrieve", retrieved)))


def evidence_of(
    generation: Generation,
    passage_ids: Sequence[str],
    passages: Mapping[str, Passage],
    stages: Mapping[str, Ranking],
) -> tuple[Evidence, ...]:
    """The passages that were read, as they stood in the prompt; those that were read one by one as
    they agree with the answer."""
    own = {one.passage_id: one for one in generation.alone}
    scores = {name: {hit.passage_id: hit.score for hit in hits} for name, hits in stages.items()}
    return tuple(
        Evidence(
            passage=passages[passage_id],
            scores=tuple(
                (name, of_stage[passage_id])
                for name, of_stage in scores.items()
                if passage_id in of_stage
            ),
            offsets=occurrences(generation.text, passages[passage_id].text),
            own=own.get(passage_id),
        )
        for passage_id in own or passage_ids
    )


def withheld(answer: Answer) -> Answer:
    """The answer's place without its text: what would have been said stays in ``generation``."""
    evidence = tuple(replace(one, offsets=()) for one in answer.evidence)
    return replace(answer, text="", abstained=True, evidence=evidence)


def final_ranking(retrieved: Ranking, reranked: Ranking) -> Ranking:
    """The reranked hits, then the rest in the retrieval's order.

    The rest keeps its order by scores that fall by one a rank below the lowest reranked score.
    """
    first = {hit.passage_id for hit in reranked}
    rest = [hit for hit in retrieved if hit.passage_id not in first]
    floor = min((hit.score for hit in reranked), default=0.0)
    below = [Hit(hit.passage_id, floor - rank) for rank, hit in enumerate(rest, 1)]
    return sort_hits([*reranked, *below])
