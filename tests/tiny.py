"""Tiny real models, made in a test and saved in the formats that the loaders read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "question", "passage", "answer", "who", "what", "when", "where", "wrote", "painted",
    "discovered", "the", "of", "in", "a", "hamlet", "shakespeare", "radium", "curie", "paris",
    "london", "play", "river", "nile", "long", "is", "was", "king", "france", "germany", "war",
    "peace", "1898", "1603", "title", "text", "moon", "sun", "star", "red", "blue", "green",
    "one", "two", "three", "four", "five",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,:?-'\"()")


def wordpiece() -> Tokenizer:
    """An uncased WordPiece tokenizer over a few words and all letters."""
    pieces = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def save_bert(folder: Path, *, kind: str = "BertModel", width: int = 32, seed: int = 0) -> Path:
    """Save a tiny BERT-shaped model of transformers with its tokenizer."""
    import transformers

    tokenizer = wordpiece()
    sizes = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
    }
    config_class = transformers.DPRConfig if kind.startswith("DPR") else transformers.BertConfig
    if kind.endswith("SequenceClassification"):
        sizes["num_labels"] = 1
    torch.manual_seed(seed)
    getattr(transformers, kind)(config_class(**sizes)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _fast(folder: Path, *, unknown: bool = True) -> None:
    """Save a word-level tokenizer with end, padding and line-break tokens."""
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "<|user|>", *WORDS, "\n", *LETTERS]
    made = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, unk_token="<unk>")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Punctuation(),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens=["<|user|>"],
    ).save_pretrained(folder)  # fmt: skip


def save_llama(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny decoder-only model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _fast(folder)
    torch.manual_seed(seed)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=120, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            eos_token_id=1, pad_token_id=0, bos_token_id=None, initializer_range=0.5,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_t5(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny encoder-decoder model."""
    from transformers import T5Config, T5ForConditionalGeneration

    _fast(folder)
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=120, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            eos_token_id=1, pad_token_id=0, decoder_start_token_id=0, initializer_factor=4.0,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, *, seed: int = 0, always: str | None = None) -> Path:
    """Save a tiny decoder-only model with learned absolute positions.

    ``always`` names a token that it then writes whatever it reads.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    _fast(folder)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=1,
            bos_token_id=None, pad_token_id=0, initializer_range=0.5,
        )
    )  # fmt: skip
    if always is not None:
        token = PreTrainedTokenizerFast.from_pretrained(folder).convert_tokens_to_ids(always)
        with torch.no_grad():
            model.transformer.ln_f.weight.zero_()
            model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[token] * 3)
    model.save_pretrained(folder)
    return folder


def save_bart(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny encoder-decoder model with absolute positions and a forced first token."""
    from transformers import BartConfig, BartForConditionalGeneration

    _fast(folder)
    torch.manual_seed(seed)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=120, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, max_position_embeddings=256, eos_token_id=1, pad_token_id=0,
            bos_token_id=4, decoder_start_token_id=1, init_std=0.5, scale_embedding=True,
        )
    )  # fmt: skip
    model.generation_config.forced_bos_token_id = 4
    model.generation_config.forced_eos_token_id = 1
    model.save_pretrained(folder)
    return folder


COLOURS = {"sun": "red", "moon": "blue"}


def save_reader_and_rows(home: Path) -> None:
    """Save a tiny reader and encoder, two models of transformers, and rows whose label follows
    from one word of the text."""
    from rag_frozen.reader.prefix_lm import PrefixLMConfig
    from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, save_trained

    encoder = save_bert(home / "encoder")
    torch.manual_seed(3)
    config = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 128)
    model = begin_from_minilm(encoder, config)
    with torch.no_grad():  # larger weights, so that what is read matters for what is written
        for weight in model.layers.parameters():
            if weight.dim() == 2:
                weight.mul_(12)
    save_trained(model, home / "reader", int8=False)
    save_llama(home / "llama")
    save_t5(home / "t5")
    rows = [
        {"text": f"the {thing} is {word}", "label": thing}
        for thing in COLOURS
        for word in ("one", "two", "three", "four", "five", "long", "war", "peace") * 3
    ]
    (home / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = [
        {"question": f"who was king {n}", "answers": [a], "title": "t", "text": f"the king was {a}"}
        for n, a in enumerate(["shakespeare", "curie", "paris", "london", "hamlet", "radium"] * 2)
    ]
    (home / "reading.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reading))
