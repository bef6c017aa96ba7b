from __future__ import annotations

import json
import os
import sys

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from pyarrow import parquet

from superscope.capture import Corpus, Document, documents, tokens
from superscope.core import FormatError, ShapeError

from ..conftest import TEXTS, make_tokenizer


def corpus_texts(corpus: Corpus, tokenizer) -> dict[str, str]:
    """Each document put together again from its windows."""
    made = {}
    for document in corpus.document.unique().tolist():
        mine = (corpus.document == document).nonzero()[:, 0]
        mine = mine[corpus.start[mine].argsort()]
        ids = [i for sequence in mine for i in corpus.ids[sequence][corpus.keep[sequence]].tolist()]
        made[corpus.names[document]] = tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    return made


# --- documents ------------------------------------------------------------------------------------------------------


def test_a_list_is_the_texts_themselves():
    assert documents(["a", "  \n", "b"]) == (Document("text 0", "a"), Document("text 2", "b"))
    assert documents([Document("x", "y")]) == (Document("x", "y"),)


def test_files_of_every_kind(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffGrüße\r\nzwei".encode())
    (tmp_path / "b.md").write_text("# b")
    (tmp_path / "noext").write_text("plain")
    (tmp_path / "c.jsonl").write_text(
        '{"text": "one\\u2028still"}\n\n"two"\n{"text": " ", "id": 3}\n', encoding="utf-8"
    )
    parquet.write_table(pa.table({"text": ["p", None, "q"], "other": [1, 2, 3]}), tmp_path / "d.parquet")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "e.py").write_text("x = 1")
    (tmp_path / ".hidden").write_text("secret")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    (tmp_path / "empty.txt").write_text("")
    assert documents(tmp_path / "a.txt") == (Document("a.txt", "Grüße\nzwei"),)
    assert documents(str(tmp_path)) == (
        Document("a.txt", "Grüße\nzwei"),
        Document("b.md", "# b"),
        Document("c.jsonl:1", "one\u2028still"),
        Document("c.jsonl:3", "two"),
        Document("d.parquet:0", "p"),
        Document("d.parquet:2", "q"),
        Document("deep/e.py", "x = 1"),
        Document("noext", "plain"),
    )


def test_the_text_python_carries():
    found = documents(None)
    assert len(found) > 100
    assert {"topics/with"} <= {document.name for document in found}
    assert found == documents()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*nothing\.txt'.*goes in a list"):
        documents(tmp_path / "nothing.txt")
    with pytest.raises(FileNotFoundError, match="goes in a list"):
        documents("A text that was meant as text. " * 200)
    with pytest.raises(FileNotFoundError, match="goes in a list"):
        documents("nul\x00nul")


def test_empty_text(tmp_path):
    (tmp_path / "empty.txt").write_text("  \n\n")
    with pytest.raises(ValueError, match=r"empty\.txt' holds no text, only blanks"):
        documents(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="the list holds no text"):
        documents([])
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="has no text file"):
        documents(tmp_path / "folder")
    (tmp_path / "folder" / "x.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"has no text file \(1 files in all"):
        documents(tmp_path / "folder")


def test_binary_and_broken_files(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"abc\x00def")
    with pytest.raises(FormatError, match="looks like a binary file"):
        documents(tmp_path / "x.txt")
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(FormatError, match="not text in UTF-8"):
        documents(tmp_path / "latin.txt")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(FormatError, match=r"line 2 of .* is not JSON"):
        documents(tmp_path / "bad.jsonl")
    (tmp_path / "field.jsonl").write_text('{"content": "fine"}\n')
    with pytest.raises(FormatError, match=r"line 1 of .* has no string under 'text'"):
        documents(tmp_path / "field.jsonl")
    (tmp_path / "bin.jsonl").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="one JSON object a line"):
        documents(tmp_path / "bin.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(FormatError, match="not a Parquet file"):
        documents(tmp_path / "bad.parquet")
    parquet.write_table(pa.table({"content": ["x"]}), tmp_path / "field.parquet")
    with pytest.raises(FormatError, match="no column 'text', only content"):
        documents(tmp_path / "field.parquet")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="checks that a pipe is refused; this system has none")
def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="a device or a pipe"):
        documents(tmp_path / "pipe")


def test_wrong_types():
    with pytest.raises(TypeError, match="text is a int"):
        documents(5)
    with pytest.raises(TypeError, match="item 1 of the list of texts is a bytes"):
        documents(["a", b"b"])


class Rows(list):
    """What we use of a `datasets` Dataset: rows, and the names of its columns."""

    column_names = ("id", "text")


def test_a_dataset():
    assert documents(Rows([{"id": 1, "text": "a"}, {"id": 2, "text": "b"}])) == (
        Document("row 0", "a"),
        Document("row 1", "b"),
    )
    other = Rows([{"id": 1}])
    other.column_names = ("id",)
    with pytest.raises(FormatError, match="no column 'text', only id"):
        documents(other)
    splits = Rows()
    splits.column_names = {"train": ["text"], "test": ["text"]}
    with pytest.raises(ValueError, match=r"several splits \(train, test\)"):
        documents(splits)


def test_a_dataset_by_name(monkeypatch):
    asked = []

    class Library:
        @staticmethod
        def load_dataset(name, split):
            asked.append((name, split))
            if name == "gone":
                raise ConnectionError("no route\nmore")
            return Rows([{"text": "a"}])

    monkeypatch.setitem(sys.modules, "datasets", Library)
    assert documents("datasets:some/name:test[:10]") == documents("datasets:some/name")
    assert asked == [("some/name", "test[:10]"), ("some/name", "train")]
    with pytest.raises(ValueError, match=r"'gone' \(split 'train'\) could not be loaded: ConnectionError: no route"):
        documents("datasets:gone")
    with pytest.raises(ValueError, match="names no dataset"):
        documents("datasets:")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"superscope\[models\]"):
        documents("datasets:some/name")


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_windows_hold_the_whole_text_once(tokenizer):
    corpus = tokens(tokenizer, TEXTS, context=24)
    assert corpus_texts(corpus, tokenizer) == {f"text {i}": text for i, text in enumerate(TEXTS)}
    assert corpus.n_tokens == sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)


@given(
    texts=st.lists(st.text(max_size=80), min_size=1, max_size=6),
    context=st.integers(3, 9),
    limit=st.none() | st.integers(1, 60),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws_of_windows(texts, context, limit, seed, tokenizer):
    total = sum(
        len(tokenizer(text.encode("utf-8", "replace").decode(), split_special_tokens=True)["input_ids"])
        for text in texts
    )
    if total < context - 1:
        with pytest.raises(ValueError, match="fewer than"):
            tokens(tokenizer, texts, context=context, limit=limit, seed=seed)
        return
    corpus = tokens(tokenizer, texts, context=context, limit=limit, seed=seed)
    assert corpus.ids.shape == corpus.keep.shape == (len(corpus), context)
    assert corpus.n_tokens == (total if limit is None else min(limit, total))
    assert (corpus.ids[:, 0] == tokenizer.bos_token_id).all()
    assert not corpus.keep[:, 0].any()
    assert torch.equal(corpus.length, 1 + corpus.keep.sum(1))
    for row, length in zip(corpus.keep, corpus.length):
        assert row[1:length].all()
        assert not row[length:].any()
    assert (corpus.start % (context - 1) == 0).all()
    if limit is None:
        wanted = {f"text {i}": text.encode("utf-8", "replace").decode() for i, text in enumerate(texts)}
        assert corpus_texts(corpus, tokenizer) == {name: text for name, text in wanted.items() if text}
    json.dumps(corpus.policy)


def test_one_seed_one_corpus(tokenizer):
    one, same, other = (tokens(tokenizer, TEXTS, context=12, limit=90, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.start, same.start)
    assert not torch.equal(one.ids, other.ids)
    whole, again = (tokens(tokenizer, TEXTS, context=12, seed=seed) for seed in (1, 2))
    assert sorted(whole.ids.tolist()) == sorted(again.ids.tolist())


def test_a_text_that_spells_a_special_token_is_text(tokenizer):
    corpus = tokens(tokenizer, ["before <|endoftext|> after"], context=16)
    assert (corpus.ids[corpus.keep] != tokenizer.bos_token_id).all()
    assert corpus_texts(corpus, tokenizer) == {"text 0": "before <|endoftext|> after"}


def test_hostile_text_survives(tokenizer):
    hostile = [
        "\x00\x01\x7f",
        "<script>alert(1)</script>",
        "\u202e\u200b\ufeff\U0001f469\u200d\U0001f4bb" * 9,
        "\ud800lone",
        "a\r\nb",
    ]
    corpus = tokens(tokenizer, hostile, context=12)
    found = corpus_texts(corpus, tokenizer)
    assert found["text 1"] == hostile[1]
    assert found["text 2"] == hostile[2]
    assert found["text 3"] == "?lone"


def test_an_encoder_reads_between_cls_and_sep():
    tokenizer = make_tokenizer(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    corpus = tokens(tokenizer, TEXTS, context=12)
    for ids, keep, length in zip(corpus.ids, corpus.keep, corpus.length):
        assert ids[0] == tokenizer.cls_token_id
        assert ids[length - 1] == tokenizer.sep_token_id
        assert (ids[length:] == tokenizer.pad_token_id).all()
        assert keep.nonzero()[:, 0].tolist() == list(range(1, int(length) - 1))
    assert corpus.policy["before"] == ["[CLS]"]
    assert corpus.policy["after"] == ["[SEP]"]


def test_without_a_bos_the_first_token_is_text():
    corpus = tokens(make_tokenizer(), TEXTS, context=12)
    assert corpus.keep[:, 0].all()
    assert corpus.policy["before"] == []


def test_documents_are_not_all_read_under_a_limit(tokenizer):
    read = []

    class Counting:
        bos_token_id = None

        def __call__(self, texts, **options):
            read.extend(texts)
            return tokenizer(texts, **options)

        def convert_ids_to_tokens(self, ids):
            return tokenizer.convert_ids_to_tokens(ids)

    many = [f"document {i} " * 20 for i in range(1000)]
    corpus = tokens(Counting(), many, context=16, limit=100)
    assert corpus.n_tokens == 100
    assert len(read) < 100
    assert len(corpus.document.unique()) >= 6  # of 7 windows


def test_text_shorter_than_one_window(tokenizer):
    with pytest.raises(ValueError, match=r"fewer than the 63 of one window \(context 64 with 1 special tokens\)"):
        tokens(tokenizer, ["short"], context=64)
    with pytest.raises(ValueError, match="has 0 tokens"):
        tokens(tokenizer, [], context=64)


def test_bad_arguments(tokenizer):
    with pytest.raises(TypeError, match=r"one string; give a list, \[text\]"):
        tokens(tokenizer, "text", context=8)
    with pytest.raises(TypeError, match=r"item 0 of the list of texts is a int|\[3\]"):
        tokens(tokenizer, [3], context=8)
    for context in (-1, 0, 2):
        with pytest.raises(ValueError, match=f"context is {context}"):
            tokens(tokenizer, TEXTS, context=context)
    with pytest.raises(ValueError, match="limit is 0"):
        tokens(tokenizer, TEXTS, context=8, limit=0)


# --- Corpus ---------------------------------------------------------------------------------------------------------


def test_a_corpus_slices_like_its_ids(corpus):
    assert torch.equal(corpus[:2], corpus.ids[:2])
    assert corpus[0].shape == (24,)
    assert len(corpus) == len(corpus.ids)
    taken = corpus.take(torch.tensor([2, 0]))
    assert torch.equal(taken.ids, corpus.ids[[2, 0]])
    assert torch.equal(taken.start, corpus.start[[2, 0]])
    # With shape checks on, jaxtyping is quicker to say it.
    with pytest.raises((ShapeError, TypeCheckError), match="start"):
        Corpus(corpus.ids, corpus.keep, corpus.length, corpus.document, corpus.start[:1], corpus.names)


@given(
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=9),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_split_is_by_document(share, seed, sizes, tokenizer):
    corpus = tokens(tokenizer, ["ab cd " * size for size in sizes], context=6)
    first, second = corpus.split(share, seed)
    assert len(first) > 0
    assert len(second) > 0
    assert not set(first.document.tolist()) & set(second.document.tolist())
    assert first.n_tokens + second.n_tokens == corpus.n_tokens
    assert sorted(first.ids.tolist() + second.ids.tolist()) == sorted(corpus.ids.tolist())
    assert first.policy["split"] == "by document"
    again = corpus.split(share, seed)
    assert torch.equal(again[0].ids, first.ids)
    # Never more than asked for goes to the second part, but for the one smallest document.
    held = second.n_tokens
    assert held <= (1 - share) * corpus.n_tokens or len(second.document.unique()) == 1


def test_many_documents_split_near_the_share(tokenizer):
    corpus = tokens(tokenizer, [f"document {i} is here" for i in range(400)], context=12)
    first, _ = corpus.split(0.8, seed=1)
    assert first.n_tokens / corpus.n_tokens == pytest.approx(0.8, abs=0.01)


def test_one_document_is_cut_where_the_share_ends(tokenizer):
    corpus = tokens(tokenizer, ["ab cd ef gh " * 60], context=12)
    first, second = corpus.split(0.75)
    assert first.start.max() < second.start.min()
    assert len(first) == round(0.75 * len(corpus))
    assert first.policy["split"] == "by place in one document"


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_tokens_are_the_same_tokens_elsewhere(seed, corpus):
    other = corpus.shuffled(seed)
    assert torch.equal(other.ids[corpus.keep].sort().values, corpus.ids[corpus.keep].sort().values)
    assert not torch.equal(other.ids, corpus.ids)
    assert torch.equal(other.ids[~corpus.keep], corpus.ids[~corpus.keep])
    assert torch.equal(other.keep, corpus.keep)
    assert torch.equal(corpus.shuffled(seed).ids, other.ids)
    assert not torch.equal(corpus.shuffled(seed + 1).ids, other.ids)
    assert other.policy["tokens"] == "shuffled"
    assert "tokens" not in corpus.policy
    assert other.lead == corpus.lead


def test_splits_that_cannot_be(tokenizer, corpus):
    for share in (0.0, 1.0, 1.5, -1.0):
        with pytest.raises(ValueError, match="share is"):
            corpus.split(share)
    with pytest.raises(ValueError, match="one window of tokens cannot be split"):
        corpus.take(torch.tensor([0])).split(0.5)
