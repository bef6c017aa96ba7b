from __future__ import annotations

import json

import pytest
import torch

from superscope.capture import Subject, sites
from superscope.core import FormatError, SiteNotFound
from superscope.intervene.concepts import ContrastSet, contrast_rows, pocket_contrast, read_contrasts, text_rows
from superscope.intervene.concepts.log_odds import TokenOdds
from superscope.intervene.edits import Add

TEXTS = tuple(f"text {i}" for i in range(12))


def test_reads_every_form_of_file(tmp_path):
    pairs = [["a b", "c d"], ["e f", "g h"]]
    (tmp_path / "one.json").write_text(json.dumps({"name": "x", "pairs": pairs}))
    (tmp_path / "two.json").write_text(json.dumps([{"name": "y", "positive": ["a"], "negative": ["b", "c"]}]))
    (tmp_path / "three.txt").write_text("a b\tc d\n\ne f\tg h\n")
    lines = [
        {"concept": "z", "text": "a", "label": True, "group": "1", "cell": "u"},
        {"concept": "z", "text": "b", "label": False, "group": "2", "cell": "u"},
        {"concept": "w", "positive": "a", "negative": "b"},
    ]
    (tmp_path / "four.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (one,), (two,), (three,) = (read_contrasts(tmp_path / name) for name in ("one.json", "two.json", "three.txt"))
    assert one == ContrastSet("x", ("a b", "e f"), ("c d", "g h"), paired=True)
    assert (two.positive, two.negative, two.paired) == (("a",), ("b", "c"), False)
    assert three.positive == one.positive
    assert three.name == "three"
    z, w = read_contrasts(tmp_path / "four.jsonl")
    assert (z.positive, z.negative_groups, z.positive_cells) == (("a",), ("2",), ("u",))
    assert w.paired


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[1]", "a contrast set is an object"),
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"pairs": [["a"]]}', "two texts"),
        ("a.jsonl", '{"text": "a"}', "lines are pairs with"),
        ("a.txt", "no tab", "line 1: a pair is two texts with a tab between"),
    ],
)
def test_a_file_of_another_form_is_refused_in_a_sentence(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=said):
        read_contrasts(tmp_path / name)


def test_a_missing_file_and_a_missing_side_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_contrasts(tmp_path / "none.json")
    with pytest.raises(ValueError, match="no negative text, so it is one-sided"):
        ContrastSet("x", TEXTS, ())
    with pytest.raises(ValueError, match="are no pairs"):
        ContrastSet("x", TEXTS, TEXTS[:1], paired=True)
    with pytest.raises(ValueError, match="positive text 1 is blank"):
        ContrastSet("x", ("a", " "), TEXTS)
    with pytest.raises(ValueError, match="1 groups for 12 positive texts"):
        ContrastSet("x", TEXTS, TEXTS, positive_groups=("a",))
    with pytest.raises(ValueError, match="one side has cells"):
        ContrastSet("x", TEXTS, TEXTS, positive_cells=("a",) * 12)


def test_a_cell_with_one_side_is_named():
    both = ContrastSet("agreeing", TEXTS, TEXTS, positive_cells=("wrong",) * 12, negative_cells=("wrong",) * 12)
    assert both.one_sided == ()
    assert both.caution == ""
    one = ContrastSet("agreeing", TEXTS, TEXTS, positive_cells=("wrong", "right") * 6, negative_cells=("wrong",) * 12)
    assert one.one_sided == ("right",)
    assert "one-sided: 'right' has positive texts only, and negative ones are missing" in one.caution


def test_too_few_texts_for_the_interval_are_refused_with_how_many_are_needed():
    few = ContrastSet("x", TEXTS, TEXTS)
    with pytest.raises(ValueError, match=r"on 24 held-out texts .* ± 0.19, and ± 0.05 .* about 3\d\d texts"):
        few.check_size(0.05)
    few.check_size(0.2)
    with pytest.raises(ValueError, match="no interval of a share"):
        few.check_size(2.0)


def test_a_split_keeps_pairs_and_groups_whole():
    paired = ContrastSet("x", TEXTS, tuple(t.upper() for t in TEXTS), paired=True)
    train, held = paired.split(0.25, seed=1)
    assert len(held.positive) == 3
    assert set(train.positive) | set(held.positive) == set(TEXTS)
    assert [t.upper() for t in held.positive] == list(held.negative)
    groups = tuple(str(i // 3) for i in range(12))
    train, held = ContrastSet("x", TEXTS, TEXTS, positive_groups=groups, negative_groups=groups).split(0.5)
    assert not set(train.positive_groups) & {*held.positive_groups, *held.negative_groups}
    with pytest.raises(ValueError, match="cannot be split"):
        ContrastSet("x", TEXTS, TEXTS, positive_groups=("a",) * 12, negative_groups=("a",) * 12).split()


def test_rows_of_texts_are_means_over_their_tokens_or_their_last(model_of, tokenizer):
    subject = Subject(model_of("gpt2"), tokenizer, "gpt2", "causal")
    texts = ["short", "The quick brown fox jumps", "def f(x): return x", "short"]
    (site,) = sites(subject.model, ["resid_post.1"])
    mean = text_rows(subject, texts, ["resid_post.1"])[site]
    last = text_rows(subject, texts, [site], token="last")[site]
    for i, text in enumerate(texts):
        # A beginning-of-text token stands before what is read and is no row.
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            kept = subject.model(ids, output_hidden_states=True).hidden_states[2][0, 1:].double()
        torch.testing.assert_close(mean[i], kept.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(last[i], kept[-1], rtol=1e-4, atol=1e-5)
    rows = contrast_rows(subject, ContrastSet("x", tuple(texts[:2]), tuple(texts[2:]), paired=True), [site])[site]
    torch.testing.assert_close(rows.differences, mean[:2] - mean[2:])
    with pytest.raises(SiteNotFound):
        text_rows(subject, texts, ["no.such.place"])


def test_the_gradient_of_log_odds_is_their_slope(model_of, tokenizer):
    model = model_of("gpt2").double()
    subject = Subject(model, tokenizer, "gpt2", "causal")
    contrast = ContrastSet("x", ("def f(x): return x",) * 6, ("The quick brown fox",) * 6)
    odds = TokenOdds.of(subject, contrast, least=1)
    texts = ["The quick brown dog", "short"]
    g = odds.gradient(subject, texts, "resid_post.0")
    v = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up, down = (odds.mean(subject, texts, {"resid_post.0": Add(v, strength=s)}) for s in (1e-4, -1e-4))
    assert (up - down) / 2e-4 == pytest.approx(float(g @ v), rel=1e-4)
    sums = odds.by_sequence(subject, texts)
    assert len(sums) == 2
    assert float(sums[:, 0].sum() / sums[:, 1].sum()) == pytest.approx(odds.mean(subject, texts))
    for one, text in zip(sums, texts):
        assert float(one[0] / one[1]) == pytest.approx(odds.mean(subject, [text]))
    with pytest.raises(ValueError, match="no token occurs"):
        TokenOdds.of(subject, ContrastSet("x", ("a",), ("b",)))
    with pytest.raises(TypeError, match="encoder"):
        odds.mean(Subject(model, tokenizer, "gpt2", "encoder"), texts)


def test_built_in_contrasts_are_what_their_names_say():
    code = pocket_contrast("code", n=8, seed=1)
    assert len(code.positive) == len(code.negative) == 8
    assert all(text.endswith(".") for text in code.negative)
    errors = pocket_contrast("errors", n=8, seed=1)
    assert all("raise" in text or "except" in text for text in errors.positive)
    assert not any("except" in text and "try:" in text for text in errors.negative)
    with pytest.raises(ValueError, match="no built-in concept 'love'"):
        pocket_contrast("love")
