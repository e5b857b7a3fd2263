"""``rag-frozen train``: progress in the terminal, the result on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_training"]


def run_training(
    recipe: str, *, root: Path | None, overrides: Sequence[str], as_json: bool
) -> None:
    """Train, telling step, loss, rate and time left on stderr."""
    from rag_frozen.training.loop import Progress
    from rag_frozen.training.train import train

    def told(progress: Progress) -> None:
        metrics = ""
        if progress.metrics is not None:
            metrics = "  " + "  ".join(f"{k} {v:.1f}" for k, v in progress.metrics.items())
        print(
            f"step {progress.step:,}/{progress.n_steps:,}  loss {progress.loss:.3f}  "
            f"rate {progress.learning_rate:.1e}  {progress.examples_per_second:.1f} examples/s  "
            f"{progress.seconds_left:,.0f} s left{metrics}",
            file=sys.stderr,
            flush=True,
        )

    done = train(recipe, root=root, overrides=overrides, report=told)
    if as_json:
        row = {"folder": str(done.folder), "metrics": done.metrics, "seconds": done.seconds}
        print(json.dumps({**row, "reused": done.reused, "faults": list(done.faults)}))
        return
    print(f"{'Was there already' if done.reused else 'Trained'}: {done.folder}")
    for name, value in done.metrics.items():
        print(f"  {name}: {value:.4g}")
    for fault in done.faults:
        print(f"  not good: {fault}", file=sys.stderr)
