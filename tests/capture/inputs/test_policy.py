"""What is kept and what is left out: beginnings, special tokens, conversations; and when storing pays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from superscope.capture import Policy, documents, faster_dtype, outlier_limit, sites, stream, tokens
from superscope.core import FormatError

from ..conftest import TEXTS, make_model, make_tokenizer

TURNS = [{"role": "user", "content": "What is x?"}, {"role": "assistant", "content": "A vector. " * 12}]
TEMPLATE = "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"


def chat_tokenizer() -> Any:
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_beginnings() -> None:
    tokenizer = make_tokenizer(bos_token="<|endoftext|>")
    with_bos, without = (
        tokens(tokenizer, TEXTS[:2], context=12, policy=Policy(context=12, bos=bos)) for bos in (True, False)
    )
    assert bool((with_bos.ids[:, 0] == tokenizer.bos_token_id).all())
    assert not bool(with_bos.keep[:, 0].any())
    assert not bool((without.ids[:, 0] == tokenizer.bos_token_id).any())
    assert with_bos.n_tokens == without.n_tokens
    later = tokens(tokenizer, TEXTS[:2], context=12, policy=Policy(context=12, drop_first=3))
    assert not bool(later.keep[:, :4].any())
    assert later.policy["drop_first"] == 3
    # What is left out is computed all the same: the ids are those of before.
    assert torch.equal(later.ids, with_bos.ids)


def test_dropped_ids() -> None:
    tokenizer = make_tokenizer(bos_token="<|endoftext|>")
    whole = tokens(tokenizer, TEXTS, context=12)
    common = int(whole.ids[whole.keep].mode().values)
    part = tokens(tokenizer, TEXTS, context=12, policy=Policy(drop_ids=(common,)))
    assert part.n_tokens == whole.n_tokens - int((whole.ids[whole.keep] == common).sum())


def test_conversations_are_written_by_the_template(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": TURNS}) + "\n" for _ in range(3)))
    tokenizer = chat_tokenizer()
    corpus = tokens(tokenizer, documents(file), context=20)
    begin = corpus.ids[corpus.start == 0]
    # One beginning, the window's own; then the user's mark, which is no row.
    assert begin[:, :2].tolist() == [tokenizer.convert_tokens_to_ids(["<s>", "<|user|>"])] * 3
    special = torch.tensor(tokenizer.all_special_ids)
    assert not bool(torch.isin(corpus.ids[corpus.keep], special).any())
    kept = tokens(tokenizer, documents(file), context=20, policy=Policy(keep_special=True))
    assert kept.n_tokens == corpus.n_tokens + 3 * 4
    with pytest.raises(ValueError, match="has no chat template"):
        tokens(make_tokenizer(bos_token="<s>"), documents(file), context=20)


def test_conversations_in_parquet_and_datasets(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"messages": [TURNS, None, TURNS]}), tmp_path / "chats.parquet")
    found = documents(tmp_path / "chats.parquet")
    assert [document.name for document in found] == ["chats.parquet:0", "chats.parquet:2"]
    assert found[0].messages == tuple(TURNS)

    class Streaming:
        column_names = None

        def __iter__(self) -> Any:
            yield {"text": "One."}
            yield {"messages": TURNS}

    assert [bool(document.messages) for document in stream(Streaming())] == [False, True]
    file = tmp_path / "bad.jsonl"
    file.write_text('{"messages": "no list"}\n')
    with pytest.raises(FormatError, match="no conversation under 'messages'"):
        documents(file)


def test_streams_are_lazy_and_orders_are_drawn(tmp_path: Path) -> None:
    def endless() -> Any:
        while True:
            yield "text"

    found = stream(endless())
    assert [next(found).name for _ in range(3)] == ["text 0", "text 1", "text 2"]
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(f"file {i}")
    orders = [[document.name for document in stream(tmp_path, seed=seed)] for seed in (None, 0, 0, 1)]
    assert orders[0] == sorted(orders[1]) == sorted(orders[3])
    assert orders[1] == orders[2] != orders[3]
    with pytest.raises(ValueError, match="only blanks"):
        list(stream([" "]))
    names: list[bool] = []

    class Library:
        @staticmethod
        def load_dataset(name: str, *, split: str, streaming: bool = False) -> Any:
            names.append(streaming)
            return type("Rows", (list,), {"column_names": ["text"]})([{"text": f"{name} {split}"}])

    import sys

    before = sys.modules.get("datasets")
    sys.modules["datasets"] = Library  # type: ignore[assignment]
    try:
        assert next(stream("datasets:books:test")).text == "books test"
        documents("datasets:books")
    finally:
        del sys.modules["datasets"]
        if before is not None:
            sys.modules["datasets"] = before
    assert names == [True, False]


@pytest.mark.parametrize("bad", [{"context": 1}, {"drop_first": 128}, {"drop_first": -1}, {"outlier": 1.0}])
def test_policies_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Policy: "):
        Policy(**bad)


def test_the_faster_type_is_timed_and_the_model_left_alone() -> None:
    model = make_model("gpt2")
    dtype, seconds = faster_dtype(model, list(sites(model, ["resid_post.1"])), {"input_ids": torch.ones(2, 8).long()})
    assert seconds.keys() == {"float32", "bfloat16"}
    assert seconds[str(dtype).removeprefix("torch.")] == min(seconds.values())
    assert next(model.parameters()).dtype == torch.float32
    assert not any(module._forward_hooks for module in model.modules())


def drawn(law: str, n: int = 100_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(n, generator=generator, dtype=torch.float64)
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    return {
        "of rows of 64": (1 + 0.1 * normal).abs(),
        "of one coordinate": normal.abs(),
        "log-normal, 0.5": (0.5 * normal).exp(),
        "log-normal, 1": normal.exp(),
        "exponential": -uniform.log(),
        "Pareto, 2": uniform**-0.5,
    }[law]


@pytest.mark.parametrize(
    ("law", "most"),
    [
        ("of rows of 64", 0),
        ("of one coordinate", 0),
        ("log-normal, 0.5", 0),
        ("log-normal, 1", 0),
        ("exponential", 0),
        ("Pareto, 2", 30),
    ],
)
def test_a_wide_but_ordinary_spread_of_norms_loses_no_row_or_almost_none(law: str, most: int) -> None:
    norms = drawn(law)
    assert int((norms > outlier_limit(norms)).sum()) <= most


@pytest.mark.parametrize("share", [1e-4, 1e-3, 0.05, 0.3])
@pytest.mark.parametrize("law", ["of rows of 64", "log-normal, 0.5"])
def test_sinks_are_outliers_however_many(law: str, share: float) -> None:
    norms = drawn(law)
    planted = torch.zeros(len(norms), dtype=torch.bool)
    planted[:: round(1 / share)] = True
    norms[planted] = 70 * norms.median()
    assert torch.equal(norms > outlier_limit(norms), planted)


def test_a_limit_knows_no_units_and_no_order() -> None:
    norms = drawn("log-normal, 1", 999)
    limit = outlier_limit(norms)
    assert outlier_limit(1000 * norms.flip(0)) == pytest.approx(1000 * limit)
    assert outlier_limit(norms, 20.0) >= limit


def test_norms_without_a_spread_or_a_scale() -> None:
    assert outlier_limit(torch.full((7,), 3.0)) == outlier_limit(torch.tensor([3.0])) == 30.0
    for none in (torch.empty(0), torch.zeros(5), torch.tensor([0.0, 0.0, 5.0])):
        assert outlier_limit(none) == math.inf
    with pytest.raises(ValueError, match="give one above 1"):
        outlier_limit(torch.ones(3), 1.0)
