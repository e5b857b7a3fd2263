"""What the trainings of reranker and retriever have in common, as frozen models."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.training.settings import PassageSource, ReadingSource

__all__ = ["HeldOut", "LoraSettings", "RankingData"]


class HeldOut(BaseModel):
    """The validation split: all questions about ``n_titles`` titles of one file, and ``n_rows``
    rows of another. Equal files, numbers and seed give the equal split, whatever is trained and
    whatever else it is trained on; the questions leave every training source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    titles: ReadingSource
    rows: ReadingSource
    n_titles: int = Field(4, ge=1)
    n_rows: int = Field(500, ge=1)
    seed: int = 13
    """The pocket reader's seed, whose split this is."""
    candidates: str | None = None
    """A mined file with candidates of the held-out rows (``rag-frozen mine``); without it they are
    BM25's first hits over ``passages``."""
    limit: int = Field(200, ge=1)
    """Held-out questions that are measured at each validation."""
    depth: int = Field(20, ge=2)
    """Candidates of each."""


class RankingData(BaseModel):
    """Questions with passages that answer each, and passages near them that do not.

    A mined row (``rag-frozen mine``) brings the texts of its ``positives`` and ``negatives``.
    Negatives of other rows are looked up by ``neg_pids`` and searched by BM25 in ``passages``,
    which are read only where a source needs them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = None
    passages: PassageSource
    questions: tuple[ReadingSource, ...] = Field(min_length=1)
    held_out: HeldOut
    harder: str | None = None
    """A file mined with a model of an earlier round: its negatives of a question come before the
    question's own, and of those only as many more as ``most_negatives`` leaves room for."""
    mined: int = Field(30, ge=1)
    """BM25 hits from which negatives are taken for rows that bring none."""
    most_negatives: int = Field(16, ge=1)
    """Negatives of a question that are kept."""


class LoraSettings(BaseModel):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on all linear layers of the encoder:
    the weights change by alpha / rank times a product of two matrices of this rank."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
