"""A tiny Qwen2 folder in the layout of the released one, and a tiny rank file for CosyVoice's text."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tokenizers
import torch
from safetensors.torch import save
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from cosyflow.text.special_tokens import COSYVOICE2
from cosyflow.text.tokenizer import BYTE_ALPHABET

BPE_SIZE = 1400
# how Qwen2 cuts text into the pieces within which BPE merges: contractions, letters, single digits, punctuation, spaces
QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_OWN_TOKENS = COSYVOICE2[:3]  # the released folder has these; CosyVoice adds the others when it reads it


@dataclass(frozen=True)
class Qwen2Sizes:
    """Sizes of the tiny model, with the names of Qwen2's config.json; `conf/*.tiny.yaml` have the same."""

    vocab_size: int = 2048
    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 384


SETTINGS = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "use_cache": True,
}

TRAINING_TEXT = """
The harbour was quiet when the first boat came in, and nobody on the long pier asked what it carried.
She counted the lamps along the river: eleven, twelve, thirteen, and then a gap where the bridge had been.
"You will want a warmer coat," said the old guide, "because the wind on that side of the mountain has teeth."
It's not that we couldn't hear the bells; we'd simply stopped listening for them years ago.
In the spring of 1907 the railway reached our village, and with it newspapers, oranges and a great many opinions.
My grandmother kept bees behind the kitchen garden. They're calmer than people, she'd say, and they never borrow money.
A small machine hums in the corner of the workshop; it measures the thickness of paper to a thousandth of an inch.
They argued about the map until the candle went out, and then they argued about the candle.
When the rain began the children ran under the great oak tree and told each other stories of giants and foxes.
The doctor wrote slowly, folded the letter twice, and gave it to the youngest of the three sisters.
Nothing in the museum was older than the clock on the stairs, which had been late every day since it was built.
Perhaps tomorrow there will be snow, perhaps only more of this grey and patient fog over the fields.
He learned to read from the backs of seed packets: carrot, turnip, marrow, sweet pea, forget-me-not.
What would you do if a stranger knocked at midnight and asked for nothing but a glass of water?
The engineers tested the valve at low pressure, then at high pressure, and finally with the whole town watching.
Every house in the street has a blue door except the last, whose owner prefers to be found easily.
I've walked that road in every weather and I'm still surprised by the sea at the end of it.
Bread, salt, a little oil, two onions and the patience to wait an hour: that is the whole recipe.
The judge looked over her glasses and said that the question, however interesting, was not before the court.
At the edge of the forest stands a stone with seven names, six of them worn away by hands and weather.
Sailors speak of a green flash at sunset; most of them have never seen it, and all of them believe it.
Our teacher drew a circle on the blackboard without looking, turned around, and bowed to the applause.
The orchestra tuned, the audience coughed, the conductor raised his arms, and somewhere a telephone rang.
You can't hurry a river, they say here, but you can build a mill beside it and let it hurry for you.
Far below us the lights of the valley came on one after another, as though someone were lighting them by hand.
""".strip()


def make_qwen2_folder(folder: Path, seed: int) -> None:
    """Writes a Qwen2 folder: config.json, model.safetensors, vocab.json, merges.txt, tokenizer_config.json.

    The weights are drawn as Qwen2 is initialised (normal with a deviation of 0.02, norms one, biases zero), in float32;
    the input embedding serves as output too. The vocabulary is a byte-level BPE trained on a text of our own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _train_bpe()
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_settings(len(vocabulary)))
    end = len(vocabulary)
    _write_json(folder / "config.json", {**SETTINGS, **asdict(Qwen2Sizes()), "bos_token_id": end, "eos_token_id": end})
    weights = save(_random_weights(Qwen2Sizes(), seed), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(weights)


def make_whisper_ranks(path: Path) -> None:
    """Writes a rank file in Whisper's form (a token in base64 and its rank on each line) with the same vocabulary."""
    vocabulary, _ = _train_bpe()
    byte_of = {letter: byte for byte, letter in enumerate(BYTE_ALPHABET)}
    pieces = [bytes(byte_of[letter] for letter in token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]
    lines = [f"{base64.b64encode(piece).decode()} {rank}\n" for rank, piece in enumerate(pieces)]
    path.write_text("".join(lines), encoding="ascii")


def _train_bpe() -> tuple[dict[str, int], list[str]]:
    """Ids by token, first the 256 bytes and then the merged pieces; and the merge rules, "left right"."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_SIZE,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    engine.train_from_iterator(TRAINING_TEXT.splitlines(), trainer)
    trained = json.loads(engine.to_str())["model"]
    merges = [rule if isinstance(rule, str) else " ".join(rule) for rule in trained["merges"]]
    return trained["vocab"], merges


def _tokenizer_settings(first_id: int) -> dict[str, object]:
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(first_id + place): {"content": token, **form} for place, token in enumerate(QWEN2_OWN_TOKENS)}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(QWEN2_OWN_TOKENS[1:]),
        "eos_token": QWEN2_OWN_TOKENS[0],
        "pad_token": QWEN2_OWN_TOKENS[0],
        "model_max_length": SETTINGS["max_position_embeddings"],
    }


def _random_weights(sizes: Qwen2Sizes, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(shape, generator=generator)

    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    head = hidden // sizes.num_attention_heads
    widths = {"q": hidden, "k": head * sizes.num_key_value_heads, "v": head * sizes.num_key_value_heads}
    weights = {"model.embed_tokens.weight": normal(sizes.vocab_size, hidden)}
    for index in range(sizes.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, width in widths.items():
            weights[f"{layer}.self_attn.{name}_proj.weight"] = normal(width, hidden)
            weights[f"{layer}.self_attn.{name}_proj.bias"] = torch.zeros(width)
        weights[f"{layer}.self_attn.o_proj.weight"] = normal(hidden, hidden)
        weights[f"{layer}.mlp.gate_proj.weight"] = normal(inner, hidden)
        weights[f"{layer}.mlp.up_proj.weight"] = normal(inner, hidden)
        weights[f"{layer}.mlp.down_proj.weight"] = normal(hidden, inner)
        weights[f"{layer}.input_layernorm.weight"] = torch.ones(hidden)
        weights[f"{layer}.post_attention_layernorm.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    return weights


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
