"""The demonstration: build, ask, evaluate, with nothing but what the package ships."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

__all__ = ["DEMO_QUESTIONS", "run_demo"]

DEMO_QUESTIONS = (
    "how deep is lake baikal",
    "Which physicist discovered X-rays in 1895?",
    "when did the berlin wall fall",
    "What is the Nepali name of Mount Everest?",
    "who drew the border between india and pakistan",
    "Who was the last doge of Venice?",
)
_CHUNK = 64  # questions between two looks at the running score


def run_demo(root: Path | None) -> None:
    """Build what is missing, answer the demo's questions, evaluate all embedded ones."""
    began = time.monotonic()
    console = Console(highlight=False)
    console.print("Loading the pocket pipeline (the first time, its indexes are built) …")
    console.file.flush()
    from rag_frozen.build import load_pipeline
    from rag_frozen.cli.display import print_answer, print_result
    from rag_frozen.cli.progress import stages

    with stages() as report:
        pipeline = load_pipeline("pocket", root=root, report=report)
    console.print(
        f"Ready after {time.monotonic() - began:.1f} s: {len(pipeline.store):,} passages."
    )
    for number, question in enumerate(DEMO_QUESTIONS):
        console.print()
        console.print(Text(f"? {question}", style="bold cyan"))
        print_answer(pipeline.ask(question), console=console)
        if number == 0:
            console.print(f"  (first answer {time.monotonic() - began:.1f} s after the start)")
    console.print()
    from rag_frozen.cli.evaluate import evaluate_with_progress
    from rag_frozen.evaluation.datasets import read_pocket_examples

    data = read_pocket_examples()
    console.print(f"Evaluating all {len(data.examples)} embedded questions …")
    print_result(evaluate_with_progress(pipeline, data, chunk_size=_CHUNK), console=console)
    console.print(f"Done in {time.monotonic() - began:.0f} s. Ask your own question with:")
    console.print('  .venv/bin/rag-frozen ask "how tall is mount everest"')
