"""Which concepts does the text of the pocket model have? Contrasts cut out of what every Python carries."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from ...capture.pocket.text import Document, documents
from .contrast import ContrastSet

_SHORTEST, _LONGEST = 50, 260
"""Characters of a piece: some 15 to 90 tokens of the pocket model."""


def _nodes(tree: ast.AST, *kinds: type[ast.AST]) -> int:
    return sum(isinstance(node, kinds) for node in ast.walk(tree))


def _numbers(tree: ast.AST) -> int:
    return sum(
        isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)
        for node in ast.walk(tree)
    )


def _strings(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(tree))


_STATEMENTS: dict[str, tuple[Callable[[ast.stmt], bool], Callable[[ast.stmt], bool]]] = {
    "errors": (
        lambda node: bool(_nodes(node, ast.Raise, ast.ExceptHandler)),
        lambda node: not _nodes(node, ast.Raise, ast.ExceptHandler, ast.Assert),
    ),
    "numbers": (lambda node: _numbers(node) >= 2, lambda node: not _numbers(node)),
    "quoting": (lambda node: _strings(node) >= 2, lambda node: not _strings(node)),
}
"""What a statement must have, and what its counterpart must not."""

POCKET_CONCEPTS: tuple[str, ...] = ("code", *_STATEMENTS)
"""Names that `pocket_contrast` knows: code against prose; statements that raise or handle errors, that have two numbers
or two strings, each against statements that have none."""


@lru_cache(maxsize=16)
def pocket_contrast(name: str, *, n: int = 200, seed: int = 0) -> ContrastSet:
    """Pieces of the text that every Python carries, with a concept and without, alike in length.

    No two pieces of one side are from one document, so far as there are as many documents, and pieces of one document
    stand in one group.

    Args:
        name: one of `POCKET_CONCEPTS`.
        n: texts on each side.
        seed: of the draw.

    Raises:
        ValueError: if there is no such concept, or the text has too few such pieces.
    """
    if name not in POCKET_CONCEPTS:
        raise ValueError(
            f"there is no built-in concept {name!r}. There are {', '.join(POCKET_CONCEPTS)}; for others give a file."
        )
    random = np.random.default_rng(seed)
    found = list(documents())
    order = random.permutation(len(found))
    positive: list[tuple[str, str]] = []
    negative: list[tuple[str, str]] = []
    wanted = 2 * n
    for i in order:
        if len(positive) >= wanted and len(negative) >= wanted:
            break
        first, second = _pieces(found[i], name)
        for pool, pieces in ((positive, first), (negative, second)):
            if pieces and len(pool) < wanted:
                pool += [(pieces[j], found[i].name) for j in random.permutation(len(pieces))[:2]]
    if min(len(positive), len(negative)) < n:
        raise ValueError(
            f"the text has {len(positive)} pieces with {name} and {len(negative)} without; ask for fewer than {n}."
        )
    chosen = _alike_in_length(positive, negative, n, random)
    (texts, groups), (others, other_groups) = (zip(*side) for side in chosen)
    return ContrastSet(
        name,
        tuple(texts),
        tuple(others),
        positive_groups=tuple(groups),
        negative_groups=tuple(other_groups),
    )


def _alike_in_length(
    positive: list[tuple[str, str]], negative: list[tuple[str, str]], n: int, random: np.random.Generator
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """n of each: for each positive piece, in a drawn order, the unused negative one nearest in length."""
    lengths = np.array([len(text) for text, _ in negative], dtype=float)
    pairs: list[tuple[float, int, int]] = []
    for i in random.permutation(len(positive)):
        gaps = np.abs(lengths - len(positive[i][0]))
        j = int(gaps.argmin())
        if np.isfinite(gaps[j]):
            pairs.append((float(gaps[j]), int(i), j))
            lengths[j] = np.inf
    pairs.sort()
    chosen = pairs[:n]
    return [positive[i] for _, i, _ in chosen], [negative[j] for _, _, j in chosen]


def _pieces(document: Document, name: str) -> tuple[list[str], list[str]]:
    """Pieces of a document with the concept, and without."""
    if document.kind == "topic":
        return [], list(_paragraphs(document.text)) if name == "code" else []
    statements, docstrings = _cut(document.text)
    if name == "code":
        return [text for _, text in statements], [part for text in docstrings for part in _paragraphs(text)]
    has, lacks = _STATEMENTS[name]
    return [text for node, text in statements if has(node)], [text for node, text in statements if lacks(node)]


@lru_cache(maxsize=512)
def _cut(source: str) -> tuple[list[tuple[ast.stmt, str]], list[str]]:
    """Statements of functions, as they are written, and what docstrings say."""
    statements: list[tuple[ast.stmt, str]] = []
    docstrings: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return statements, docstrings
    lines = source.splitlines(keepends=True)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        if said := ast.get_docstring(function):
            docstrings.append(said)
        for node in function.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            text = "".join(lines[node.lineno - 1 : node.end_lineno]).rstrip()
            if _SHORTEST <= len(text) <= _LONGEST:
                statements.append((node, text))
    return statements, docstrings


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of sentences."""
    for paragraph in re.split(r"\n\s*\n", text):
        plain = paragraph.strip()
        is_prose = (
            len(plain.split()) >= 10 and plain.endswith(".") and not re.search(r"::|>>>|\*\*\*\*|====|[{}=]", plain)
        )
        if is_prose and _SHORTEST <= len(plain) <= _LONGEST:
            yield plain
