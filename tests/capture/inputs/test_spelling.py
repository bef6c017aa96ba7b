"""Token ids as a reader sees them: nothing lost, nothing invented, whatever alphabet the tokenizer uses inside."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from superscope.capture import pocket
from superscope.capture.inputs.spelling import pieces, spelling


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return pocket.load()[1]


@pytest.fixture(scope="module")
def sentence_piece() -> Any:
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in ("▁the", "▁cat", "cat", "▁", "s"))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


HOSTILE = "naïve 漢字 🙂🙃 </script> a\u2028b \u202eright to left\u202c e\u0301\t\n\n  end"


def test_pieces_join_to_the_text(byte_level: Any) -> None:
    ids = byte_level(HOSTILE)["input_ids"]
    shown = pieces(byte_level, ids)
    assert len(shown) == len(ids)
    assert "".join(shown) == HOSTILE


@given(st.text(max_size=30))
def test_pieces_join_to_any_text(text: str) -> None:
    tokenizer = pocket.load()[1]
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    # A lone U+FFFD in the text looks like a piece of a character, and is kept as one.
    assert "".join(pieces(tokenizer, ids)) == text


def test_a_character_cut_at_either_end_is_marked(byte_level: Any) -> None:
    ids = byte_level("🙂")["input_ids"]
    assert len(ids) > 1
    assert "".join(pieces(byte_level, ids[:-1])).endswith("\N{REPLACEMENT CHARACTER}")
    assert pieces(byte_level, ids[:-1], spelling(byte_level)) == pieces(byte_level, ids[:-1])
    assert len(pieces(byte_level, ids[1:])) == len(ids) - 1


def test_leading_spaces_are_kept(byte_level: Any, sentence_piece: Any) -> None:
    texts = spelling(byte_level)
    assert len(texts) == len(byte_level)
    assert texts[byte_level(" self")["input_ids"][0]] == " self"
    assert spelling(sentence_piece)[1:4] == [" the", " cat", "cat"]
    assert "".join(pieces(sentence_piece, sentence_piece("the cats")["input_ids"])) == " the cats"


def test_word_pieces_keep_their_mark() -> None:
    vocabulary = {"[UNK]": 0, "play": 1, "##ing": 2}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")), unk_token="[UNK]"
    )
    assert spelling(tokenizer) == ["[UNK]", "play", "##ing"]
