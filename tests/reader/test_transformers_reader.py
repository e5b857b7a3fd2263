"""Readers of transformers: what they load, how they stop, and the probabilities they state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError, ModelError
from rag_frozen.models.digest import folder_digest
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.transformers_reader import TransformersReader
from rag_frozen.types import Context, Kept, Question
from tests.tiny import SPECIAL, save_bart, save_bert, save_gpt2, save_llama, save_t5

SAVE = {"llama": save_llama, "gpt2": save_gpt2, "t5": save_t5, "bart": save_bart}
CAUSAL = {"llama", "gpt2"}
PROMPTS = (
    "question: who wrote hamlet",
    "the nile",
    "question: when was radium discovered in paris passage: curie discovered radium in 1898 .",
)
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
    "{% if enable_thinking is defined and enable_thinking %}long{% endif %}"
)


@dataclass(frozen=True)
class FixedPrompt:
    vectors: torch.Tensor

    @property
    def length(self) -> int:
        return self.vectors.shape[0]

    def generate(self, contexts: Sequence[Context]) -> torch.Tensor:
        return self.vectors.expand(len(contexts), -1, -1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(root / name) for name, save in SAVE.items()}


def reader(folder: Path, kind: str = "greedy", **options) -> TransformersReader:
    causal = any(name in folder.name for name in CAUSAL)
    names = {"temperature", "top_p", "seed", "length_penalty", "n_beams", "max_new_tokens"}
    search = {name: options.pop(name) for name in names & set(options)}
    search.setdefault("max_new_tokens", 6)
    return TransformersReader(
        folder, kind="causal" if causal else "seq2seq", decoding=Decoding(kind, **search), **options
    )


def contexts(prompts: Sequence[str] = PROMPTS, *, question: str = "who") -> list[Context]:
    return [
        Context(Question(str(number), question), prompt, 0, (Kept("p", 1),))
        for number, prompt in enumerate(prompts)
    ]


@torch.inference_mode()
def next_logprobs(made: TransformersReader, prompt: str, answer: list[int]) -> torch.Tensor:
    """Log-probabilities ``[V]`` of the next token, without cache, padding or batch."""
    [ids] = made._tokens.encode([prompt])
    if made.kind == "causal":
        logits = made.model(input_ids=torch.tensor([[*ids, *answer]])).logits
    else:
        begun = torch.tensor([[*made._starts, *answer]])
        logits = made.model(input_ids=torch.tensor([ids]), decoder_input_ids=begun).logits
    return torch.log_softmax(logits[0, -1], dim=-1)


def written_ids(made: TransformersReader, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Fills with the tokens of each answer that the reader writes."""
    rows: list[list[int]] = []
    cut = made._cut

    def seen(ids):
        rows.append(cut(ids)[0])
        return cut(ids)

    monkeypatch.setattr(made, "_cut", seen)
    return rows


@pytest.mark.parametrize("name", SAVE)
def test_greedy_equals_a_loop_without_a_cache(saved, name, monkeypatch):
    made = reader(saved[name])
    rows = written_ids(made, monkeypatch)
    for prompt in PROMPTS:
        [generation] = made.generate(contexts([prompt]))
        answer: list[int] = []
        total = 0.0
        while len(answer) < 6 and not (answer and answer[-1] in made._ends):
            scores = next_logprobs(made, prompt, answer)
            answer.append(int(scores.argmax()))
            total += float(scores[answer[-1]])
            if made._tokens.breaks_line(answer[-1]):
                break
        assert rows[-1] == answer
        assert generation.n_tokens == len(answer)
        assert generation.logprob == pytest.approx(total, abs=1e-4)


def test_an_answer_begins_with_the_token_that_the_model_forces(saved, monkeypatch):
    from transformers import BartForConditionalGeneration

    made = reader(saved["bart"], max_new_tokens=4)
    rows = written_ids(made, monkeypatch)
    theirs = BartForConditionalGeneration.from_pretrained(saved["bart"])
    for prompt in PROMPTS:
        made.generate(contexts([prompt]))
        ids = torch.tensor(made._tokens.encode([prompt]))
        wanted = theirs.generate(ids, max_new_tokens=6, num_beams=1, do_sample=False)[0].tolist()
        assert wanted[: 2 + len(rows[-1])] == [1, 4, *rows[-1]]


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sample", {"temperature": 0.5, "top_p": 0.9}),
        ("beam", {"n_beams": 3}),
        ("beam", {"n_beams": 3, "length_penalty": 1.0}),
    ],
)
def test_the_score_is_the_models_own_log_probability(saved, name, kind, options, monkeypatch):
    made = reader(saved[name], kind, token_budget=1, **options)  # one row a batch, longest first
    rows = written_ids(made, monkeypatch)
    generations = made.generate(contexts())
    longest_first = sorted(range(3), key=lambda n: -made.count_tokens(PROMPTS)[n])
    for number, answer in zip(longest_first, rows, strict=True):
        total = sum(
            float(next_logprobs(made, PROMPTS[number], answer[:place])[token])
            for place, token in enumerate(answer)
        )
        assert generations[number].logprob == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("name", SAVE)
def test_an_empty_soft_prompt_changes_nothing(saved, name):
    plain = reader(saved[name])
    nothing = FixedPrompt(torch.zeros(0, plain.embedding_width))
    soft = reader(saved[name], prompt_generator=nothing).generate(contexts())
    for ours, theirs in zip(soft, plain.generate(contexts()), strict=True):
        assert (ours.text, ours.stop) == (theirs.text, theirs.stop)
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_a_conditioned_batch_gives_what_one_by_one_gives(saved, name, kind):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    made = reader(saved[name], kind, prompt_generator=FixedPrompt(vectors))
    for context, together in zip(contexts(), made.generate(contexts()), strict=True):
        [alone] = made.generate([context])
        assert (alone.text, alone.stop) == (together.text, together.stop)
        assert alone.logprob == pytest.approx(together.logprob, abs=1e-4)
    assert made.generate(contexts()) != reader(saved[name], kind).generate(contexts())


@pytest.mark.parametrize(
    ("token", "stop", "n_tokens", "text"),
    [("</s>", "end", 1, ""), ("\n", "length", 6, ""), ("nile", "length", 6, "nile " * 6)],
)
@pytest.mark.parametrize("kind", ["greedy", "sample"])
def test_an_answer_stops_at_its_end_a_line_break_or_the_limit(
    tmp_path, token, stop, n_tokens, text, kind
):
    folder = save_gpt2(tmp_path / "gpt2", always=token)
    for generation in reader(folder, kind).generate(contexts()):
        assert (generation.stop, generation.n_tokens) == (stop, n_tokens)
        assert generation.text == text.strip()


def test_the_authors_own_generation_settings_are_not_used(tmp_path):
    folder = save_gpt2(tmp_path / "gpt2", always="nile")
    file = folder / "generation_config.json"
    wishes = {"repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "do_sample": True, "top_k": 3}
    file.write_text(json.dumps({**json.loads(file.read_text()), **wishes}))
    [generation] = reader(folder).generate(contexts(PROMPTS[:1]))
    assert generation.text == "nile nile nile nile nile nile"
    kept = reader(folder, "sample").model.generation_config
    assert kept.repetition_penalty in (None, 1.0)


def test_the_same_question_gets_different_samples_in_every_batch(saved):
    made = reader(saved["gpt2"], "sample", token_budget=16, temperature=2.0)
    texts = [g.text for g in made.generate(contexts(PROMPTS[:1] * 12))]
    assert len(set(texts)) > 6
    assert texts == [g.text for g in made.generate(contexts(PROMPTS[:1] * 12))]
    other = reader(saved["gpt2"], "sample", token_budget=16, temperature=2.0, seed=1)
    assert texts != [g.text for g in other.generate(contexts(PROMPTS[:1] * 12))]


def test_top_p_leaves_unlikely_tokens_out(saved):
    narrow = reader(saved["llama"], "sample", top_p=1e-6).generate(contexts())
    greedy = reader(saved["llama"]).generate(contexts())
    assert [g.text for g in narrow] == [g.text for g in greedy]


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_a_prompt_beyond_the_window_is_refused(saved, name):
    made = reader(saved[name], window=100_000)
    assert made.window == 256  # the model's own positions are a hard limit
    fits = 256 - (6 if made.kind == "causal" else 0)
    assert made.generate(contexts([" ".join(["nile"] * fits)]))[0].n_tokens >= 1
    with pytest.raises(InputError, match=rf"'0' takes {fits + 1} tokens.* Pack fewer"):
        made.generate(contexts([" ".join(["nile"] * (fits + 1))]))
    with pytest.raises(InputError, match="soft prompt of 1 "):
        reader(saved[name], prompt_generator=FixedPrompt(torch.zeros(1, 32))).generate(
            contexts([" ".join(["nile"] * fits)])
        )


def chatting(folder: Path, at: Path) -> Path:
    shutil.copytree(folder, at)
    (at / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return at


def token_id(made: TransformersReader, token: str) -> int:
    return int(made._tokens._tokenizer.convert_tokens_to_ids(token))


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("token", ["<|user|>", "</s>", "<|USER|>", "<|<|user|>"])
def test_special_tokens_in_a_passage_are_plain_text(saved, tmp_path, chat, token):
    made = reader(chatting(saved["llama"], tmp_path / "llama"), chat_template=chat)
    special = {token_id(made, "<|user|>"), token_id(made, "</s>")}
    [plain, attacked] = made._tokens.encode(["the nile", f"the {token} nile"])
    assert [t for t in attacked if t in special] == [t for t in plain if t in special]
    assert len(attacked) > len(plain)
    assert made.count_tokens([f"the {token} nile"]) == [len(attacked)]


@pytest.fixture(scope="module")
def llama_tokens(saved):
    return reader(saved["llama"])._tokens


@given(st.lists(st.sampled_from(["the", "nile", "<|user|>", "</s>", "<", "|", "user", ">"])))
def test_no_text_at_all_makes_a_special_token(llama_tokens, pieces):
    assert not {0, 1, 3} & set(llama_tokens.encode(["".join(pieces)])[0])


def test_a_chat_template_frames_the_prompt_and_asks_for_no_thinking(saved, tmp_path):
    made = reader(chatting(saved["llama"], tmp_path / "llama"), chat_template=True)
    whole = made._tokens._tokenizer("<|user|>the nile</s>answer:", add_special_tokens=False)[
        "input_ids"
    ]
    assert made._tokens.encode(["the nile"]) == [whole]
    assert made.count_tokens([""]) == [len(whole) - 2]
    assert len(made.generate(contexts())) == 3


def test_a_model_without_a_usable_chat_template_is_refused(saved, tmp_path):
    with pytest.raises(ModelError, match="has no chat template"):
        reader(saved["llama"], chat_template=True)
    for template, reason in [("hello", "leaves the message out"), ("{% if %}", "fails")]:
        folder = chatting(saved["llama"], tmp_path / reason / "llama")
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(ModelError, match=reason):
            reader(folder, chat_template=True)


def test_a_tokenizer_that_loses_spelling_gives_the_passages_own(tmp_path):
    folder = save_gpt2(tmp_path / "gpt2", always="nile")
    passages = "question: the nile? passage: the river NILE is long"
    [whole] = contexts([passages], question="the nile?")
    [one] = reader(folder, max_new_tokens=1).generate([whole])
    assert one.text == "NILE"
    [none] = reader(folder, max_new_tokens=1).generate(contexts(["question: a river"]))
    assert none.text == "nile"


def test_a_tokenizer_that_keeps_spelling_is_left_alone(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from rag_frozen.reader.prompt_tokens import PromptTokens

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({char: n for n, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokens = PromptTokens(PreTrainedTokenizerFast(tokenizer_object=made), name="bytes")
    answer = " o ' Brien , 283 , 846 \n junk"
    [ids] = tokens.encode([answer])
    assert tokens.text(ids, "O ' BRIEN , 283 , 846") == "o ' Brien , 283 , 846"
    assert [answer[n] for n, token in enumerate(ids) if tokens.breaks_line(token)] == ["\n"]


def test_a_sharded_checkpoint_is_the_same_model(saved, tmp_path):
    whole = reader(saved["llama"])
    whole.model.save_pretrained(tmp_path / "llama", max_shard_size="20KB")
    for file in saved["llama"].glob("token*.json"):
        shutil.copy(file, tmp_path / "llama")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) > 1
    sharded = reader(tmp_path / "llama")
    assert sharded.digest == whole.digest
    assert sharded.generate(contexts()) == whole.generate(contexts())
    assert folder_digest(tmp_path / "llama") == folder_digest(saved["llama"])


def changed(folder: Path, at: Path) -> Path:
    shutil.copytree(folder, at)
    return at


def test_what_cannot_be_a_reader_is_refused_with_the_reason(saved, tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded as a causal reader"):
        TransformersReader(saved["t5"], kind="causal", decoding=Decoding())
    with pytest.raises(ModelError, match="cannot be loaded as a seq2seq reader"):
        TransformersReader(saved["gpt2"], kind="seq2seq", decoding=Decoding())
    encoder = save_bert(tmp_path / "bert")
    roles = zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)
    special = {f"{role}_token": token for role, token in roles}
    (encoder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    with pytest.raises(ModelError, match="weights of a causal reader"):
        TransformersReader(encoder, kind="causal", decoding=Decoding())
    torn = changed(saved["gpt2"], tmp_path / "torn-gpt2") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:2_000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        reader(torn.parent)
    garbled = changed(saved["gpt2"], tmp_path / "garbled-gpt2") / "tokenizer.json"
    garbled.write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        reader(garbled.parent)


def test_pickled_weights_and_foreign_code_are_never_read(saved, tmp_path):
    pickled = changed(saved["gpt2"], tmp_path / "pickled-gpt2")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(ModelError, match="cannot be loaded"):
        reader(pickled)
    foreign = changed(saved["gpt2"], tmp_path / "foreign-gpt2")
    config = json.loads((foreign / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {
        "AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model",
    }}  # fmt: skip
    (foreign / "config.json").write_text(json.dumps(config))
    (foreign / "own.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        reader(foreign)


def test_line_breaks_before_the_answer_do_not_end_it(saved):
    made = reader(saved["gpt2"])
    [[line_break, nile, _], [end]] = made.encode_answers(["\n nile", ""])
    assert made._cut([line_break, nile, line_break, nile]) == (
        [line_break, nile, line_break],
        "newline",
    )
    assert made._cut([line_break, nile, end, nile]) == ([line_break, nile, end], "end")
    assert made._tokens.text([line_break, nile], "the river nile") == "nile"
