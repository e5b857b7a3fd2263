"""The one place where embeddings are joined: padding never comes between prompt and tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.prompting.inject import prepend_to_left_padded, prepend_to_right_padded

shapes = st.tuples(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 5))


def rows(lengths: list[int], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    size = max(lengths)
    embeds, mask = torch.full((len(lengths), size, 2), -9.0), torch.zeros(len(lengths), size).long()
    for row, length in enumerate(lengths):
        place = slice(size - length, size) if left else slice(0, length)
        embeds[row, place] = torch.arange(length).float()[:, None] + 10 * row
        mask[row, place] = 1
    return embeds, mask


@given(shapes)
def test_the_soft_prompt_touches_the_first_real_token(shape):
    lengths, n = shape
    soft = torch.rand(len(lengths), n, 2)
    embeds, mask = rows(lengths, left=True)
    joined, seen = prepend_to_left_padded(soft, embeds, mask)
    right, _ = rows(lengths, left=False)
    joined_right, new_lengths = prepend_to_right_padded(soft, right, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        wanted = torch.cat([soft[row], right[row, :length]])
        assert torch.equal(joined[row, -(n + length) :], wanted)
        assert seen[row].tolist() == [0] * (max(lengths) - length) + [1] * (n + length)
        assert torch.equal(joined_right[row, : n + length], wanted)
        assert int(new_lengths[row]) == n + length


def test_a_prompt_of_another_width_or_batch_is_refused():
    embeds, mask = rows([2, 3], left=True)
    for shape in ((2, 4, 3), (1, 4, 2)):
        with pytest.raises(InputError, match="does not fit"):
            prepend_to_left_padded(torch.zeros(shape), embeds, mask)
