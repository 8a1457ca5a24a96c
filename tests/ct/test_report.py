"""The report encoders: what is near, what is far, and what they refuse to load."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from ctflow_fed.ct.report import (
    CTCLIPReportEncoder,
    HashingReportEncoder,
    encoder_named,
    sentences_of,
)
from ctflow_fed.errors import MissingExtraError, PackageError, SettingsError


def cosine(one, other):
    """Compare two reports of one sentence each."""
    tokens = HashingReportEncoder().encode([one, other]).tokens
    assert tokens.shape[1] == 1
    return float(tokens[0, 0] @ tokens[1, 0])


def test_a_report_has_a_token_of_length_one_a_sentence():
    encoded = HashingReportEncoder().encode(["Heart is large. A 3.5 mm nodule; scars"])

    assert encoded.tokens.shape == (1, 3, 768)
    assert encoded.mask.all()
    assert torch.allclose(encoded.tokens.norm(dim=-1), torch.ones(1, 3))


def test_shorter_reports_are_padded_with_zeros_that_the_mask_leaves_out():
    encoded = HashingReportEncoder().encode(["One. Two. Three.", "One."])

    assert encoded.mask.tolist() == [[True, True, True], [True, False, False]]
    assert (encoded.tokens[1, 1:] == 0).all()
    assert torch.equal(encoded.tokens[0, 0], encoded.tokens[1, 0])


@pytest.mark.parametrize("text", ["", "  \n", "...", "—"])
def test_a_report_without_a_word_is_one_token_of_zeros(text):
    encoded = HashingReportEncoder().encode([text])

    assert encoded.mask.tolist() == [[True]]
    assert (encoded.tokens == 0).all()


def test_no_reports_are_no_tokens():
    assert HashingReportEncoder().encode([]).tokens.shape[0] == 0


@pytest.mark.parametrize(
    ("stated", "denied"),
    [
        ("pleural effusion", "no pleural effusion"),
        ("Pleural effusion was observed.", "Pleural effusion was not observed."),
        (
            "There is a consolidation in the lower lobe of the right lung",
            "There is no consolidation in the lower lobe of the right lung",
        ),
    ],
)
def test_what_is_denied_is_far_from_what_is_stated(stated, denied):
    assert cosine(stated, denied) < 0.5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("No pleural effusion", "There is no evidence of a pleural effusion."),
        ("Pleural effusion was not observed", "no pleural effusion"),
        ("Pleural effusions", "pleural effusion is seen"),
        ("Nodule in the right lung", "There are nodules in the right lung"),
    ],
)
def test_a_paraphrase_is_near(one, other):
    assert cosine(one, other) > 0.8


def test_a_negation_reaches_no_further_than_its_clause():
    both = "No pleural effusion, cardiomegaly"

    assert cosine(both, "cardiomegaly") > cosine(both, "no cardiomegaly")


def test_the_size_of_a_nodule_makes_a_difference_but_not_another_topic():
    near = cosine(
        "A nodule of 5 mm in the right lung", "A nodule of 8 mm in the right lung"
    )

    assert 0.5 < near < 0.9


def test_sentences_end_at_full_stops_but_not_within_numbers():
    text = 'A 3.5 mm nodule, stable. No change? "Scars" • none\nEnd.'

    assert sentences_of(text) == [
        "a 3.5 mm nodule, stable",
        "no change",
        "scars",
        "• none",
        "end",
    ]


def test_a_long_report_is_joined_evenly_so_that_its_end_still_counts():
    sentences = [f"Word{chr(97 + index % 26)} number {index}" for index in range(100)]
    encoder = HashingReportEncoder()

    whole = encoder.encode([". ".join(sentences)])
    without_end = encoder.encode([". ".join(sentences[:-1])])
    assert whole.tokens.shape == (1, 48, 768)
    assert not torch.equal(whole.tokens[0, -1], without_end.tokens[0, -1])


def test_the_tokens_are_the_same_on_every_machine():
    tokens = HashingReportEncoder().encode(["Emphysema. No emphysema."]).tokens[0]

    stated, denied = tokens
    assert stated.nonzero().flatten().tolist() == [51]
    assert denied.nonzero().flatten().tolist() == [51, 635]
    assert denied[[51, 635]].tolist() == pytest.approx([-(0.2**0.5), 0.8**0.5])


def test_hashing_has_its_name():
    assert isinstance(encoder_named("hashing"), HashingReportEncoder)


@pytest.mark.parametrize(
    "name", ["hash", "no/such/folder", "", "class:", "class:hashing"]
)
def test_a_name_that_is_no_encoder_is_refused(name):
    with pytest.raises(SettingsError, match="expected the report encoder hashing"):
        encoder_named(name)


def test_without_transformers_ctclip_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(MissingExtraError, match=r"ctflow-fed\[pretrained\]"):
        CTCLIPReportEncoder(str(tmp_path))


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["no", "pleural", "effusion", "heart", "is", "large", "."]


def save_tower(folder, prefix="", **changes):
    """Save a random text tower of CXR-BERT's layout: one narrow layer, 12 words."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(WORDS),
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "intermediate_size": 16,
    }
    config = BertConfig(**{**sizes, **changes})
    tower = BertModel(config, add_pooling_layer=False).eval()
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    weights = {prefix + name: value for name, value in tower.state_dict().items()}
    weights["to_text_latent.weight"] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors")
    return tower


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "text_transformer."])
def test_ctclip_gives_the_last_layer_of_its_text_tower(tmp_path, prefix):
    tower = save_tower(tmp_path, prefix)

    encoded = CTCLIPReportEncoder(str(tmp_path)).encode(
        ["No pleural effusion.", "Heart is large. " * 300]
    )

    ids = [2, 5, 6, 7, 11, 3]
    with torch.no_grad():
        expected = tower(input_ids=torch.tensor([ids])).last_hidden_state
    assert encoded.tokens.shape == (2, 512, 768)
    assert encoded.mask.sum(1).tolist() == [len(ids), 512]
    assert torch.allclose(encoded.tokens[0, : len(ids)], expected[0], atol=1e-5)
    assert (encoded.tokens[0, len(ids) :] == 0).all()


@pytest.mark.slow
def test_the_id_of_ctclip_is_that_of_its_tower_and_vocabulary(tmp_path):
    for name in ("tower", "checkpoint", "words"):
        (tmp_path / name).mkdir()
    save_tower(tmp_path / "tower")
    save_tower(tmp_path / "checkpoint", "text_transformer.")
    save_tower(tmp_path / "words")
    (tmp_path / "words" / "vocab.txt").write_text("\n".join([*WORDS[:-1], "lung"]))

    tower, checkpoint, words = (
        encoder_named(str(tmp_path / name)).encoder_id
        for name in ("tower", "checkpoint", "words")
    )
    assert tower == checkpoint
    assert tower != words


@pytest.mark.slow
def test_the_class_token_is_the_first_token_of_ctclip_alone(tmp_path):
    save_tower(tmp_path)
    texts = ["No pleural effusion.", "Heart is large. " * 300]

    every, first = (
        encoder_named(name).encode(texts)
        for name in (f"{tmp_path}", f"class:{tmp_path}")
    )

    assert first.tokens.shape == (2, 1, 768)
    assert first.mask.tolist() == [[True], [True]]
    assert torch.equal(first.tokens, every.tokens[:, :1])


@pytest.mark.slow
def test_an_encoder_of_class_tokens_has_an_id_of_its_own(tmp_path):
    save_tower(tmp_path)

    every, first, again = (
        encoder_named(name).encoder_id
        for name in (f"{tmp_path}", f"class:{tmp_path}", f"class:{tmp_path}")
    )
    assert every != first
    assert first == again


@pytest.mark.slow
def test_a_checkpoint_that_is_a_pickle_is_not_loaded(tmp_path):
    save_tower(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "CT-CLIP_v2.pt")

    with pytest.raises(PackageError, match="convert it"):
        CTCLIPReportEncoder(str(tmp_path))


@pytest.mark.slow
def test_files_of_a_tower_that_do_not_fit_are_refused(tmp_path):
    save_tower(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 13}))
    with pytest.raises(PackageError, match="do not fit each other"):
        CTCLIPReportEncoder(str(tmp_path))

    save_tower(tmp_path, hidden_size=384)
    with pytest.raises(PackageError, match="width 768"):
        CTCLIPReportEncoder(str(tmp_path))

    save_tower(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(PackageError, match=r"vocab\.txt"):
        CTCLIPReportEncoder(str(tmp_path))
