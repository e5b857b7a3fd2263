"""Load small models without a progress bar of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_loading"]


@contextmanager
def quiet_loading(*, report: bool = True) -> Iterator[None]:
    """Silence transformers' bar over the tensors of a model, and restore it afterwards.

    Without ``report`` its table of tensors that the checkpoint lacks is silenced too: for a model
    whose new parts are about to be trained.
    """
    from transformers.utils import logging

    was_on, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if not report:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if was_on:
            logging.enable_progress_bar()
