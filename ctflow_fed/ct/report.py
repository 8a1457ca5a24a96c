"""Radiology reports -> tokens that the network attends to."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ctflow_fed.errors import MissingExtraError, PackageError, SettingsError
from ctflow_fed.files import digest_of
from ctflow_fed.shapes import TokenMask, Tokens
from ctflow_fed.weights import weights_digest

__all__ = [
    "TOKEN_FEATURES",
    "CTCLIPReportEncoder",
    "HashingReportEncoder",
    "ReportEncoder",
    "ReportTokens",
    "encoder_named",
    "sentences_of",
]

TOKEN_FEATURES = 768
"""The width of a token: BERT's, hence CT-CLIP's."""

LONGEST = 48
"""The most tokens of a report; 3 in 100 reports of CT-RATE have more sentences."""

NGRAM_WEIGHTS = (1.0, 0.7, 0.5)
TOPIC_WEIGHT = 0.5

SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[;\n\"]+")
CLAUSE_END = re.compile(r"[,:]\s|\b(?:but|however|although|except)\b")
WORD = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+")
NEGATION = re.compile(r"no|not|nor|none|without|absent|neither|never|negative|free")
FILLER = re.compile(
    r"an?|and|are|as|at|be|been|by|for|from|has|have|in|is|its?|of|on|or|th(at|e|ere|is)"
    r"|to|was|were|which|with|evidence|signs?|observed|detected|seen"
)


CLASS_TOKEN = "class:"
"""A name that begins so asks for CT-CLIP's class token alone."""

CTCLIP_PREFIX = "text_transformer."
CTCLIP_LENGTH = 512
CTCLIP_BATCH = 8

RULES = (SENTENCE_END, CLAUSE_END, WORD, NEGATION, FILLER)


@dataclass(frozen=True)
class ReportTokens:
    """Reports as tokens, padded with zeros to the longest of the batch.

    Every report has at least one token, so that no row of ``mask`` is empty and an
    attention over it is defined.
    """

    tokens: Tokens
    mask: TokenMask


@runtime_checkable
class ReportEncoder(Protocol):
    """What makes tokens of reports; equal ``encoder_id`` means equal tokens."""

    @property
    def encoder_id(self) -> str:
        """What the tokens depend on, as a digest."""
        ...

    def encode(self, texts: Sequence[str]) -> ReportTokens:
        """Encode reports, each by itself, to tokens of 768 features."""
        ...


class HashingReportEncoder:
    """The embedded default: one token a sentence, its word n-grams hashed.

    The words, pairs and triples of a sentence are hashed with a sign to 768 features,
    and the sum is scaled to length 1. What a negation governs is hashed under another
    name, so that "no pleural effusion" is far from "pleural effusion" and yet nearer to
    it than to another topic. Numbers stay as they are written. A report without a word
    is one token of zeros; a report of more than 48 sentences has neighbours joined.
    """

    def __init__(self) -> None:
        self.encoder_id = digest_of(
            ["hashing", LONGEST, NGRAM_WEIGHTS, TOPIC_WEIGHT]
            + [rule.pattern for rule in RULES]
        )

    def encode(self, texts: Sequence[str]) -> ReportTokens:
        """Encode reports; see `ReportEncoder`."""
        reports = [_joined(sentences_of(text)) for text in texts]
        length = max((len(report) for report in reports), default=1)
        tokens = np.zeros((len(texts), length, TOKEN_FEATURES), np.float32)
        mask = np.zeros((len(texts), length), bool)
        for row, report in enumerate(reports):
            mask[row, : len(report)] = True
            for column, sentence in enumerate(report):
                tokens[row, column] = _hashed(sentence)
        return ReportTokens(torch.from_numpy(tokens), torch.from_numpy(mask))


class CTCLIPReportEncoder:
    """CT-CLIP's text tower: CXR-BERT, every token of its last layer.

    With ``class_token`` it is the first of them alone, which stands for the whole
    report: it is what the released CTFlow network was trained with.

    Args:
        folder: holds ``config.json`` and ``vocab.txt`` of CXR-BERT, and the weights as
            ``model.safetensors``: those of the tower, or a whole CT-CLIP checkpoint
            with the tower under ``text_transformer.``.
        class_token: whether to give the first token only.

    Raises ``PackageError`` when something of that is missing or does not fit, and
    ``MissingExtraError`` when transformers is not installed. A report is cut after 512
    tokens.
    """

    def __init__(self, folder: str, *, class_token: bool = False) -> None:
        self._given = slice(1 if class_token else None)
        self._tower = _text_tower(Path(folder))
        self._tokenizer = _tokenizer(Path(folder), self._tower.config.vocab_size)
        weights = weights_digest(self._tower.state_dict())
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        parts = ["ctclip", weights, vocabulary, CTCLIP_LENGTH]
        self.encoder_id = digest_of([*parts, "class"] if class_token else parts)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> ReportTokens:
        """Encode reports; see `ReportEncoder`."""
        words = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=CTCLIP_LENGTH,
            return_tensors="pt",
        )
        parts = [
            self._tower(input_ids=ids, attention_mask=mask)
            .last_hidden_state[:, self._given]
            .contiguous()
            for ids, mask in zip(
                torch.split(words["input_ids"], CTCLIP_BATCH),
                torch.split(words["attention_mask"], CTCLIP_BATCH),
                strict=True,
            )
        ]
        mask = words["attention_mask"][:, self._given].bool()
        return ReportTokens(torch.cat(parts) * mask[..., None], mask)


def encoder_named(name: str) -> ReportEncoder:
    """Return the encoder of a name: ``hashing``, or a folder of CT-CLIP's text tower.

    ``class:FOLDER`` gives that tower's class token alone. Raises
    ``SettingsError`` when the name is none of these.
    """
    if name == "hashing":
        return HashingReportEncoder()
    folder = name.removeprefix(CLASS_TOKEN)
    if not folder or not Path(folder).is_dir():
        raise SettingsError(
            "expected the report encoder hashing, or a folder of CT-CLIP's text tower, "
            "or class: and such a folder, got none of them"
        )
    return CTCLIPReportEncoder(folder, class_token=folder != name)


def sentences_of(text: str) -> list[str]:
    """Split a report into its sentences, lower case, at least one."""
    parts = (part.strip() for part in SENTENCE_END.split(text.lower()))
    return [part for part in parts if WORD.search(part)] or [""]


def _joined(sentences: list[str]) -> list[str]:
    """Join neighbours evenly, so that at most `LONGEST` sentences are left."""
    if len(sentences) <= LONGEST:
        return sentences
    groups = np.array_split(np.array(sentences, dtype=object), LONGEST)
    return [", ".join(group) for group in groups]


def _hashed(sentence: str) -> np.ndarray:
    """Return the token of one sentence: float32 [768], of length 1 or all zero."""
    token = np.zeros(TOKEN_FEATURES, np.float32)
    for name, weight in _ngrams(sentence):
        place, sign = _place(name)
        token[place] += sign * weight
    return token / max(float(np.linalg.norm(token)), 1e-6)


def _ngrams(sentence: str) -> Iterator[tuple[str, float]]:
    """Yield the hashed names of a sentence, each with its weight."""
    for clause in CLAUSE_END.split(sentence):
        words = WORD.findall(clause)
        telling = [word for word in words if not NEGATION.fullmatch(word)]
        negated = len(telling) < len(words)
        stems = [_stem(word) for word in telling if not FILLER.fullmatch(word)]
        for count, weight in enumerate(NGRAM_WEIGHTS, start=1):
            for start in range(len(stems) - count + 1):
                name = " ".join(stems[start : start + count])
                yield (f"not {name}" if negated else name), weight
                if negated and count == 1:
                    yield name, TOPIC_WEIGHT


def _stem(word: str) -> str:
    """Drop the plural's s: effusions and effusion are one word, focus is not two."""
    plural = len(word) > 4 and word[-1] == "s" and word[-2] not in "ius"
    return word[:-1] if plural else word


@lru_cache(maxsize=2**16)
def _place(name: str) -> tuple[int, int]:
    """Return the feature and the sign of a name: the same on every machine."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
    return number // 2 % TOKEN_FEATURES, 1 if number % 2 else -1


def _text_tower(folder: Path) -> Any:  # noqa: ANN401 - transformers is not typed
    """Load the tower, frozen and in float32, from safetensors alone."""
    transformers = _transformers()
    weights = _tower_weights(folder / "model.safetensors")
    try:
        config = transformers.BertConfig.from_pretrained(folder, local_files_only=True)
        tower = transformers.BertModel(config, add_pooling_layer=False).float()
        tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    except (OSError, ValueError, RuntimeError, KeyError, TypeError):
        raise PackageError(
            "expected config.json and model.safetensors of one CXR-BERT, found files "
            "that are missing or do not fit each other; take both from one checkpoint"
        ) from None
    width, length = config.hidden_size, config.max_position_embeddings
    if width != TOKEN_FEATURES or length < CTCLIP_LENGTH:
        raise PackageError(
            f"expected a text tower of width {TOKEN_FEATURES} for {CTCLIP_LENGTH} "
            f"tokens, got width {width} for {length}; take CT-CLIP's"
        )
    return tower.requires_grad_(False).eval()


def _tower_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights by the names that BERT itself has for them."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError):
        raise PackageError(
            "expected the weights of CT-CLIP as model.safetensors, found none that can "
            "be read; a .pt file is never loaded, because it can run code: convert it "
            "with safetensors.torch.save_file where its origin is trusted"
        ) from None
    inside = {k: v for k, v in weights.items() if k.startswith(CTCLIP_PREFIX)}
    return {k.removeprefix(CTCLIP_PREFIX): v for k, v in (inside or weights).items()}


def _tokenizer(folder: Path, words: int) -> Any:  # noqa: ANN401 - not typed
    """Load the tokenizer of the tower, which knows ``words`` words."""
    # Without its files transformers makes a tokenizer that knows no word at all.
    there = (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file()
    try:
        tokenizer: Any = _transformers().BertTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
    except Exception:  # noqa: BLE001 - the Rust tokenizer raises no narrower class
        there = False
    if not there or max(tokenizer.get_vocab().values()) >= words:
        raise PackageError(
            "expected vocab.txt or tokenizer.json of the text tower beside its "
            "weights, got none or another one's; take it from the same checkpoint"
        )
    return tokenizer


def _transformers() -> Any:  # noqa: ANN401 - transformers is not typed
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "pretrained") from None
    return transformers
