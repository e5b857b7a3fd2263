"""A trained question encoder over an index that plain vectors were built for.

Passages keep the encoder that the index was built with; questions are encoded by adapters over it
that were trained against those very vectors. Nothing is encoded again: the index is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_frozen.errors import ArtifactMismatchError, ModelError
from rag_frozen.models.device import DtypeName
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts
from rag_frozen.models.source import ModelFolder
from rag_frozen.models.text_tower import Vectors
from rag_frozen.retrieval.dense_encoders import SentenceEncoder
from rag_frozen.retrieval.minilm_adapter import is_adapter, passages_digest
from rag_frozen.types import Passage

if TYPE_CHECKING:
    import torch

__all__ = ["QuestionTower"]


class QuestionTower:
    """A pair of encoders: adapters for questions, the plain encoder for passages.

    ``digest`` is the passage encoder's, which an index is checked against; ``question_digest`` is
    the adapters'. The passage encoder is loaded only when a passage has to be encoded.
    """

    def __init__(
        self,
        questions: ModelFolder,
        passages: ModelFolder,
        *,
        device: str | None = None,
        dtype: DtypeName = "auto",
    ) -> None:
        """Load the question encoder.

        Args:
            questions: adapters that ``rag-frozen train`` wrote with ``towers: question``.
            passages: the encoder that the index was built with.
            device, dtype: where and in what they run.

        Raises:
            ModelError: when ``questions`` is no question encoder of this form.
            ArtifactMismatchError: when it was trained against another encoder's vectors.
        """
        declared = passages_digest(questions.path) if is_adapter(questions.path) else None
        if declared is None:
            raise ModelError(
                f"{questions.name} is no question encoder beside a passage encoder that stays. "
                "Train one with: rag-frozen train pocket-question-encoder"
            )
        self.digest = folder_digest(passages.path)
        if declared != self.digest:
            raise ArtifactMismatchError(
                f"The question encoder {questions.name} was trained against vectors of an encoder "
                f"with digest {declared[:12]}…, the index's encoder {passages.name} has "
                f"{self.digest[:12]}…. Leave question_encoder out, or name an index built with "
                "that encoder."
            )
        self.name = f"{questions.name} + {passages.name}"
        self.question_digest = folder_digest(questions.path)
        self._device = device
        self._dtype: DtypeName = dtype
        self._questions = SentenceEncoder(questions, device=device, dtype=dtype, questions=True)
        self._passages_from = passages
        self._passages: SentenceEncoder | None = None

    @property
    def width(self) -> int:
        """Length d of the vectors."""
        return self._questions.width

    @property
    def tokens_read(self) -> int:
        """Tokens of questions read so far."""
        return self._questions.tokens_read

    @property
    def model(self) -> torch.nn.Module:
        """The question encoder's transformer."""
        return self._questions.model

    def parameter_counts(self) -> ParameterCounts:
        """The question encoder's weights, and those outside of embedding tables."""
        return self._questions.parameter_counts()

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Return ``[n, d]``."""
        return self._questions.encode_questions(texts)

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return ``[n, d]``."""
        if self._passages is None:
            self._passages = SentenceEncoder(
                self._passages_from, device=self._device, dtype=self._dtype
            )
        return self._passages.encode_passages(passages)
