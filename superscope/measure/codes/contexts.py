"""Where in the text each latent fires most, and how far those places agree with each other."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import ShapeError, SparseCode

Places = Int[Tensor, "b 2"]
_PENDING = 2**20


@dataclass(frozen=True, eq=False)
class TopContexts:
    """The places where each latent's value is largest, largest first.

    Args:
        values: activation; 0 in an unused slot.
        sequences: the place's sequence; -1 in an unused slot.
        positions: the position in it; -1 in an unused slot.
        documents: the document; -1 in an unused slot.
    """

    values: Float[Tensor, "n m"]
    sequences: Int[Tensor, "n m"]
    positions: Int[Tensor, "n m"]
    documents: Int[Tensor, "n m"]

    @property
    def filled(self) -> Int[Tensor, "n"]:
        """How many contexts each latent has."""
        return (self.sequences >= 0).sum(1)


def _rank_in_runs(keys: np.ndarray) -> np.ndarray:
    """Position of each entry within its run of equal keys; keys are sorted."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, dtype=int)
    lengths = np.diff(np.append(starts, len(keys)))
    return np.arange(len(keys)) - np.repeat(starts, lengths)


class _Best:
    """The m largest entries of each latent, at most `per_document` of one document, over a stream."""

    def __init__(self, n: int, m: int, per_document: int) -> None:
        self.n, self.m, self.per_document = n, m, per_document
        self.latent = np.zeros(0, dtype=np.int64)
        self.value = np.zeros(0)
        self.place = np.zeros((0, 3), dtype=np.int64)
        # What an entry must exceed to matter: the m-th value of a latent that has m already.
        self.bar = np.zeros(n)

    def add(self, latent: np.ndarray, value: np.ndarray, place: np.ndarray) -> None:
        matters = value > self.bar[latent]
        self.latent = np.concatenate([self.latent, latent[matters]])
        self.value = np.concatenate([self.value, value[matters]])
        self.place = np.concatenate([self.place, place[matters]])
        if len(self.latent) > self.n * self.m + _PENDING:
            self.settle()

    def settle(self) -> None:
        """Drops what cannot be among the best."""
        # Ties are broken by place, so that the answer does not depend on the order of the stream.
        by_document = np.lexsort((self.place[:, 1], self.place[:, 0], -self.value, self.place[:, 2], self.latent))
        self._take(by_document)
        # latent and document in one key; documents are numbered densely enough for int64.
        key = self.latent * (int(self.place[:, 2].max(initial=0)) + 1) + self.place[:, 2]
        self._take(np.flatnonzero(_rank_in_runs(key) < self.per_document))
        self._take(np.lexsort((self.place[:, 1], self.place[:, 0], -self.value, self.latent)))
        rank = _rank_in_runs(self.latent)
        last = rank == self.m - 1
        self.bar[self.latent[last]] = self.value[last]
        self._take(np.flatnonzero(rank < self.m))

    def _take(self, where: np.ndarray) -> None:
        self.latent, self.value, self.place = self.latent[where], self.value[where], self.place[where]


def _entries(code: SparseCode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, latent and value of every positive entry."""
    values, indices = code.values.detach().double().cpu().numpy(), code.indices.cpu().numpy()
    row, slot = np.nonzero(values > 0)
    return row, indices[row, slot].astype(np.int64), values[row, slot]


@torch.no_grad()
def top_contexts(
    stream: Iterable[tuple[SparseCode, Places]],
    *,
    count: int = 20,
    per_document: int = 1,
    documents: Int[Tensor, "sequences"] | None = None,
) -> TopContexts:
    """The `count` places where each latent is largest, at most `per_document` of them in one document.

    The limit keeps one repetitive document from filling the list. Only positive values count. Ties go to the earlier
    sequence and position, so that the order of the stream does not matter. One pass; memory O(n count) plus a buffer
    of a million entries.

    Args:
        stream: codes with the (sequence, position) of each row.
        count: contexts per latent.
        per_document: of one document.
        documents: the document of each sequence; without, a sequence is one.

    Raises:
        ValueError: if the stream is empty, or count or per_document is smaller than 1.

    Example:
        >>> code = SparseCode(torch.tensor([[1.0], [3.0]]), torch.tensor([[0], [0]]), 1)
        >>> top_contexts([(code, torch.tensor([[0, 4], [1, 7]]))], count=1).positions
        tensor([[7]])
    """
    if count < 1 or per_document < 1:
        raise ValueError(f"top_contexts: count and per_document must be at least 1; got {count} and {per_document}.")
    best: _Best | None = None
    known = None if documents is None else documents.cpu().numpy()
    for code, places in stream:
        if len(places) != len(code):
            raise ShapeError(
                f"top_contexts: {len(code)} rows of code and {len(places)} places. Give one place per row."
            )
        if best is None:
            best = _Best(code.n, count, per_document)
        row, latent, value = _entries(code)
        where = places.cpu().numpy()[row].astype(np.int64)
        document = where[:, 0] if known is None else known[where[:, 0]]
        best.add(latent, value, np.column_stack([where, document]))
    if best is None:
        raise ValueError("top_contexts: the stream of codes is empty.")
    best.settle()
    rank = _rank_in_runs(best.latent)
    values = np.zeros((best.n, count))
    table = np.full((best.n, count, 3), -1, dtype=np.int64)
    values[best.latent, rank] = best.value
    table[best.latent, rank] = best.place
    sequences, positions, of = (torch.from_numpy(table[..., column].copy()) for column in range(3))
    return TopContexts(torch.from_numpy(values), sequences, positions, of)


@torch.no_grad()
def activations_around(
    stream: Iterable[tuple[SparseCode, Places]],
    top: TopContexts,
    *,
    before: int = 12,
    after: int = 6,
    most: int | None = None,
) -> Float[Tensor, "n m w"]:
    """Each latent's own activation at every position of a window about each of its contexts; w = before + 1 + after.

    A second pass over the same stream. 0 where it does not fire, and at positions that the stream does not hold.

    Args:
        stream: the codes that `top_contexts` read, in any order.
        top: what it found.
        before, after: positions on either side.
        most: windows per latent, the first ones; None is all.
    """
    if before < 0 or after < 0:
        raise ValueError(f"activations_around: before and after must be at least 0; got {before} and {after}.")
    n, m = top.values.shape
    m = m if most is None else min(m, most)
    width = before + 1 + after
    around = np.zeros((n, m, width))
    sequences, positions = top.sequences[:, :m].numpy(), top.positions[:, :m].numpy()
    latent, slot = np.nonzero(sequences >= 0)
    stride = int(sequences.max(initial=0)) + 1
    key = latent * stride + sequences[latent, slot]
    order = np.argsort(key, kind="stable")
    key, latent, slot = key[order], latent[order], slot[order]
    rank = _rank_in_runs(key)
    for code, places in stream:
        row, of, value = _entries(code)
        where = places.cpu().numpy()[row]
        inside = where[:, 0] < stride
        of, value, where = of[inside], value[inside], where[inside]
        sought = of * stride + where[:, 0]
        found = np.searchsorted(key, sought)
        # A latent may have several contexts in one sequence: they stand one after the other.
        for repeat in range(int(rank.max(initial=-1)) + 1):
            at = np.minimum(found + repeat, len(key) - 1)
            hit = (found + repeat < len(key)) & (key[at] == sought)
            at_hit = at[hit]
            offset = where[hit, 1] - positions[latent[at_hit], slot[at_hit]] + before
            near = (offset >= 0) & (offset < width)
            around[latent[at_hit][near], slot[at_hit][near], offset[near]] = value[hit][near]
    return torch.from_numpy(around)


@dataclass(frozen=True, eq=False)
class TokenShares:
    """On which tokens each latent spends its activation.

    Args:
        tokens: the tokens with the largest share, largest first; -1 in an unused slot.
        shares: the share of the latent's summed activation that falls on the token; 0 in an unused slot.
        kinds: how many different tokens it fires on (a lower bound where `approximate`).
        approximate: whether the table outgrew its limit, so that rare tokens were dropped and shares are too small
            by at most what was dropped.
    """

    tokens: Int[Tensor, "n m"]
    shares: Float[Tensor, "n m"]
    kinds: Int[Tensor, "n"]
    approximate: bool


@torch.no_grad()
def token_shares(
    stream: Iterable[tuple[SparseCode, Int[Tensor, "b"]]], *, count: int = 5, limit: int = 2**22
) -> TokenShares:
    r"""$\sum_{t: token_t = v} f_{it} / \sum_t f_{it}$ for the tokens v with the largest share, of every latent i.

    Over all activations, not the largest ones only. Memory O(limit): past it the rarest pairs of latent and token
    are forgotten, and the result says so.

    Args:
        stream: codes with the token of each row.
        count: tokens per latent.
        limit: pairs of latent and token to keep.

    Raises:
        ValueError: if the stream is empty.

    Example:
        >>> code = SparseCode(torch.tensor([[1.0], [3.0]]), torch.tensor([[0], [0]]), 1)
        >>> token_shares([(code, torch.tensor([5, 6]))], count=1).shares
        tensor([[0.7500]], dtype=torch.float64)
    """
    n = 0
    keys, sums = np.zeros(0, dtype=np.int64), np.zeros(0)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    pending = 0
    totals = np.zeros(0)
    approximate = False
    vocabulary = 2**32

    def settle() -> None:
        nonlocal keys, sums, approximate, pending
        all_keys = np.concatenate([keys, *(k for k, _ in waiting)])
        all_sums = np.concatenate([sums, *(s for _, s in waiting)])
        keys, inverse = np.unique(all_keys, return_inverse=True)
        sums = np.bincount(inverse, all_sums, minlength=len(keys))
        waiting.clear()
        pending = 0
        if len(keys) > limit:
            approximate = True
            # Shares, not sums: a loud latent's rare tokens must not drive out a quiet latent's frequent ones.
            share = sums / totals[keys // vocabulary]
            kept = np.sort(np.argpartition(-share, limit // 2)[: limit // 2])
            keys, sums = keys[kept], sums[kept]

    for code, tokens in stream:
        if len(tokens) != len(code):
            raise ShapeError(
                f"token_shares: {len(code)} rows of code and {len(tokens)} tokens. Give one token per row."
            )
        if not n:
            n = code.n
            totals = np.zeros(n)
        row, latent, value = _entries(code)
        totals += np.bincount(latent, value, minlength=n)
        waiting.append((latent * vocabulary + tokens.cpu().numpy()[row].astype(np.int64), value))
        pending += len(row)
        if pending > _PENDING:
            settle()
    if not n:
        raise ValueError("token_shares: the stream of codes is empty.")
    settle()
    latent, token = keys // vocabulary, keys % vocabulary
    order = np.lexsort((token, -sums, latent))
    latent, token, share = latent[order], token[order], sums[order]
    rank = _rank_in_runs(latent)
    first = rank < count
    found, shares = np.full((n, count), -1), np.zeros((n, count))
    found[latent[first], rank[first]] = token[first]
    shares[latent[first], rank[first]] = share[first] / totals[latent[first]]
    kinds = torch.from_numpy(np.bincount(latent, minlength=n))
    return TokenShares(torch.from_numpy(found), torch.from_numpy(shares), kinds, approximate)


KINDS = (
    "lower-case word",
    "capitalised word",
    "upper-case word",
    "word in another script",
    "mixed word",
    "number",
    "opening bracket or quote",
    "closing bracket or quote",
    "punctuation",
    "operator or symbol",
    "line break",
    "space",
    "other",
)
"""What `token_kinds` tells apart, by number."""


_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]*|0[bBoO][0-7]*|\d[\d.,_]*([eE][+-]?\d*)?|\.\d+)")


def token_kind(text: str) -> int:
    """The kind of one token's text, an index into KINDS; white space around it does not matter.

    Example:
        >>> [KINDS[token_kind(t)] for t in (" the", "42", ")", "\\n    ")]
        ['lower-case word', 'number', 'closing bracket or quote', 'line break']
    """
    body = text.strip()
    if not body:
        return KINDS.index("line break") if "\n" in text or "\r" in text else KINDS.index("space" if text else "other")
    if body.isalpha():
        if not (body.islower() or body.isupper() or body.istitle()):
            cased = any(unicodedata.category(c) in ("Lu", "Ll", "Lt") for c in body)
            return KINDS.index("mixed word" if cased else "word in another script")
        if not body.isascii() and not any("LATIN" in unicodedata.name(c, "") for c in body):
            return KINDS.index("word in another script")
        if body.islower():
            return KINDS.index("lower-case word")
        # A single capital is both; it mostly begins a word.
        return KINDS.index("upper-case word" if body.isupper() and len(body) > 1 else "capitalised word")
    if _NUMBER.fullmatch(body):
        return KINDS.index("number")
    if any(c.isalnum() for c in body):
        return KINDS.index("mixed word")
    categories = {unicodedata.category(c) for c in body}
    if categories <= {"Ps", "Pi"}:
        return KINDS.index("opening bracket or quote")
    if categories <= {"Pe", "Pf"}:
        return KINDS.index("closing bracket or quote")
    if all(category.startswith("P") for category in categories):
        return KINDS.index("punctuation")
    if all(category[0] in "SP" for category in categories):
        return KINDS.index("operator or symbol")
    return KINDS.index("other")


def token_kinds(texts: Sequence[str]) -> Int[Tensor, "vocabulary"]:
    """token_kind of every token of a vocabulary."""
    return torch.tensor([token_kind(text) for text in texts], dtype=torch.long)


def token_words(texts: Sequence[str]) -> Int[Tensor, "vocabulary"]:
    """A number for each token, equal for tokens that differ in case and surrounding space only.

    Example:
        >>> token_words([" The", "the", "cat"]).tolist()
        [0, 0, 1]
    """
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text.strip().casefold() or text, len(numbers)) for text in texts])


@dataclass(frozen=True, eq=False)
class Clarity:
    """How far each latent's top contexts agree.

    Args:
        score: per latent in [0, 1]; 0 where it has fewer than 5 contexts in different documents.
        reading: per latent, which reading agrees most, an index into `readings`.
        readings: their names.
        chance: the mean score of as many places drawn at random.
        judged: per latent, whether it had enough contexts.
    """

    score: Float[Tensor, "n"]
    reading: Int[Tensor, "n"]
    readings: tuple[str, ...]
    chance: float
    judged: Tensor


_FEWEST = 5


def _agreement(labels: np.ndarray, documents: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Chance-corrected, rarity-weighted agreement of labels within each row; -1 marks an unused slot."""
    known = labels >= 0
    pair = known[:, :, None] & known[:, None, :] & (documents[:, :, None] != documents[:, None, :])
    pairs = pair.sum((1, 2))
    weight = 1 - shares[np.maximum(labels, 0)]
    agree = (pair & (labels[:, :, None] == labels[:, None, :])) * weight[:, :, None]
    observed = agree.sum((1, 2)) / np.maximum(pairs, 1)
    expected = float((shares**2 * (1 - shares)).sum())
    return np.where(pairs > 0, (observed - expected) / max(1 - expected, 1e-12), 0.0)


def clarity(
    top: TopContexts,
    ids: Int[Tensor, "sequences context"],
    *,
    kinds: Int[Tensor, "vocabulary"] | None = None,
    words: Int[Tensor, "vocabulary"] | None = None,
    keep: Tensor | None = None,
    draws: int = 256,
    seed: int = 0,
) -> Clarity:
    r"""$\max_r \, (A_r - E_r) / (1 - E_r)$ over readings r of a place, cut at 0: do a latent's top contexts agree?

    A reading gives each place one label: its token, its word (case and space apart), its kind (`token_kinds`), the
    token before it, the token after it. With q the share of each label among all tokens,

        A = mean over pairs of a latent's contexts in different documents of 1[labels agree] (1 - q(label)),
        E = sum_v q(v)^2 (1 - q(v)), which A would be at random places.

    So a latent that fires on one rare token, or on one rare kind of token, scores near 1; one whose contexts agree
    only in being ordinary words scores low, since that is agreement to be expected; random places score near 0, up to
    the maximum over readings, for which `chance` is the level. Contexts in one document do not vouch for each other.
    It judges the largest activations only, and no meaning: a latent for an idea in many words scores low.

    The definition is ours; A is a chance-corrected agreement in the manner of Cohen, weighted by rarity.

    Args:
        top: the contexts, one per document or a few.
        ids: tokens of every sequence.
        kinds: the kind of every token of the vocabulary; None leaves that reading out.
        words: the word of every token (`token_words`); None leaves that reading out.
        keep: True at the positions that hold text; None is all of them.
        draws: random sets of places for the chance level.
        seed: of those.

    Source:
        Cohen, "A coefficient of agreement for nominal scales", 1960, for the correction.
    """
    tokens = ids.cpu().numpy()
    held = np.ones(tokens.shape, dtype=bool) if keep is None else keep.cpu().numpy().astype(bool)
    everything = tokens[held]
    tables: list[tuple[str, np.ndarray | None, int]] = [("token", None, 0)]
    if words is not None:
        tables.append(("word", words.cpu().numpy(), 0))
    if kinds is not None:
        tables.append(("kind", kinds.cpu().numpy(), 0))
    tables += [("token before", None, -1), ("token after", None, 1)]

    sequences, positions = top.sequences.numpy(), top.positions.numpy()
    documents = top.documents.numpy()
    random = np.random.default_rng(seed)
    m = top.values.shape[1]
    at, offset = np.nonzero(held)
    document_of = np.full(len(tokens), -1)
    document_of[sequences[sequences >= 0]] = documents[sequences >= 0]
    drawn = random.integers(0, len(at), (draws, m))
    # Random places stand in sequences whose document may be unknown; a sequence is then its own document.
    loose = np.where(document_of[at[drawn]] >= 0, document_of[at[drawn]], -2 - at[drawn])

    def scores(seq: np.ndarray, pos: np.ndarray, docs: np.ndarray) -> np.ndarray:
        found = []
        for _, table, shift in tables:
            share_of = everything if table is None else table[everything]
            shares = np.bincount(share_of) / len(share_of)
            moved = pos + shift
            inside = (seq >= 0) & (moved >= 0) & (moved < tokens.shape[1])
            labels = np.full(seq.shape, -1)
            s, p = seq[inside], moved[inside]
            raw = np.where(held[s, p], tokens[s, p], -1)
            labels[inside] = raw if table is None else np.where(raw >= 0, table[np.maximum(raw, 0)], -1)
            blocks = [_agreement(labels[i : i + 1024], docs[i : i + 1024], shares) for i in range(0, len(labels), 1024)]
            found.append(np.concatenate(blocks))
        return np.stack(found, 1)

    found = scores(sequences, positions, documents)
    chance = scores(at[drawn], offset[drawn], loose).max(1).clip(0, 1).mean() if draws and len(at) else 0.0
    distinct = np.array([len(np.unique(row[row >= 0])) for row in np.where(sequences >= 0, documents, -1)])
    judged = distinct >= _FEWEST
    return Clarity(
        score=torch.from_numpy(np.where(judged, found.max(1).clip(0, 1), 0.0)),
        reading=torch.from_numpy(found.argmax(1)),
        readings=tuple(name for name, _, _ in tables),
        chance=float(chance),
        judged=torch.from_numpy(judged),
    )
