"""What the tests of evaluation share."""

from __future__ import annotations

from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.types import Question


def data() -> ExampleSet:
    """Three questions for the pipeline of ``tests.test_pipeline``, the last without an answer."""
    examples = (
        Example(Question("1", "which city"), ("rome",), "p1", (("style", "search"),)),
        Example(Question("2", "which town"), ("Paris", "Lutetia"), "p2", (("style", "sentence"),)),
        Example(Question("3", "unknown"), ()),
    )
    return ExampleSet("tiny", examples, "0" * 64)
