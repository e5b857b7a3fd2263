"""Every error that rag-frozen raises on purpose.

    RagFrozenError                 exit code 1
    ├── InputError                 exit code 2   a question, a file or an option cannot be used
    │   ├── DataFormatError                      a data file is malformed (names file and line)
    │   └── UnknownPassageError                  an id that the corpus does not hold
    ├── RecipeError                exit code 2   a recipe is wrong (names file, path, nearest field)
    ├── ArtifactError              exit code 3   an artifact cannot be used
    │   ├── ArtifactMissingError                 nothing is there; says what builds it
    │   ├── ArtifactDamagedError                 truncated, changed, foreign or of an older schema
    │   └── ArtifactMismatchError                two artifacts that do not belong together
    ├── ModelError                 exit code 4   a model cannot be used
    │   ├── ModelMissingError                    not at hand; says how to get it
    │   └── FrozenWeightsChangedError            the frozen weights are not what they were
    ├── MissingPackageError        exit code 4   an optional package; says the pip command
    ├── StorageError               exit code 5   a disk that is full, a folder that is read-only
    └── CheckFailedError           exit code 6   a score outside its expected range, a failed proof

A message says what happened, the values seen, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ArtifactDamagedError",
    "ArtifactError",
    "ArtifactMismatchError",
    "ArtifactMissingError",
    "CheckFailedError",
    "DataFormatError",
    "FrozenWeightsChangedError",
    "InputError",
    "MissingPackageError",
    "ModelError",
    "ModelMissingError",
    "RagFrozenError",
    "RecipeError",
    "StorageError",
    "UnknownPassageError",
]


class RagFrozenError(Exception):
    """Base of all errors of this package. ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(RagFrozenError):
    """A question, a file or an option that cannot be used."""

    exit_code = 2


class DataFormatError(InputError):
    """A data file is malformed; the message names the file and the line."""


class UnknownPassageError(InputError):
    """A passage id that the corpus does not hold."""


class RecipeError(RagFrozenError):
    """A recipe is wrong; the message names the file, the path in it and the nearest valid field."""

    exit_code = 2


class ArtifactError(RagFrozenError):
    """An artifact (corpus, index, head, model, run) cannot be used."""

    exit_code = 3


class ArtifactMissingError(ArtifactError):
    """There is no such artifact; the message says what builds it."""


class ArtifactDamagedError(ArtifactError):
    """An artifact is truncated, changed, of another kind, or of another schema version."""


class ArtifactMismatchError(ArtifactError):
    """Two artifacts that do not belong together, such as an index and another corpus."""


class ModelError(RagFrozenError):
    """A model cannot be used."""

    exit_code = 4


class ModelMissingError(ModelError):
    """A model is not at hand; the message says how to get it."""


class FrozenWeightsChangedError(ModelError):
    """The frozen weights are not what they were at load."""


class MissingPackageError(RagFrozenError):
    """An optional package is not installed; the message gives the pip command."""

    exit_code = 4


class StorageError(RagFrozenError):
    """A disk that is full or a folder that cannot be written."""

    exit_code = 5


class CheckFailedError(RagFrozenError):
    """A score outside its expected range, or a proof that failed."""

    exit_code = 6
