"""What is a concept contrasted by? Texts that have it against texts that have not, in pairs or as two sets."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import FormatError

_Z = 1.959964


@dataclass(frozen=True)
class ContrastSet:
    """Texts with a concept and texts without it.

    Args:
        name: of the concept.
        positive: texts that have it.
        negative: texts that have not; where `paired`, text i is the twin of positive text i.
        paired: whether they are pairs.
        positive_groups, negative_groups: what each text was taken from, a document say: a split keeps what belongs
            together on one side. Without them each text, or pair, stands alone.
        positive_cells, negative_cells: the circumstances of each text ("the user is right"), where they were varied.

    Raises:
        ValueError: if a side is empty, sides of pairs differ in number, or groups or cells do not fit the texts.

    Example:
        >>> ContrastSet("plural", ("two cats",), ("one cat",), paired=True).n
        2
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    paired: bool = False
    positive_groups: tuple[str, ...] = ()
    negative_groups: tuple[str, ...] = ()
    positive_cells: tuple[str, ...] = ()
    negative_cells: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            texts = getattr(self, side)
            if not texts:
                raise ValueError(
                    f"contrast set {self.name}: there is no {side} text, so it is one-sided: what all its texts share "
                    f"cannot be told from the concept. Give {side} texts too."
                )
            blank = next((i for i, text in enumerate(texts) if not text.strip()), None)
            if blank is not None:
                raise ValueError(f"contrast set {self.name}: {side} text {blank} is blank; leave it out.")
            for kind in ("groups", "cells"):
                given = getattr(self, f"{side}_{kind}")
                if given and len(given) != len(texts):
                    raise ValueError(
                        f"contrast set {self.name}: {len(given)} {kind} for {len(texts)} {side} texts; give one "
                        "to each."
                    )
        if self.paired and len(self.positive) != len(self.negative):
            raise ValueError(
                f"contrast set {self.name}: {len(self.positive)} positive and {len(self.negative)} negative texts are "
                "no pairs; give as many of each, or two sets that are not paired."
            )
        if bool(self.positive_cells) != bool(self.negative_cells):
            raise ValueError(f"contrast set {self.name}: one side has cells and the other none; give both or neither.")

    @property
    def n(self) -> int:
        """Number of texts."""
        return len(self.positive) + len(self.negative)

    @property
    def one_sided(self) -> tuple[str, ...]:
        """Cells of which only one side is there; in them the concept cannot be told from the cell."""
        both = set(self.positive_cells) & set(self.negative_cells)
        return tuple(sorted((set(self.positive_cells) | set(self.negative_cells)) - both))

    @property
    def caution(self) -> str:
        """What a reader must know of the set before using it; empty where it is balanced."""
        if not self.one_sided:
            return ""
        sides = []
        for cell in self.one_sided:
            there, missing = ("positive", "negative") if cell in self.positive_cells else ("negative", "positive")
            sides.append(f"'{cell}' has {there} texts only, and {missing} ones are missing")
        return f"one-sided: {'; '.join(sides)}. Its direction may be that of the cell as well as of {self.name}"

    def split(self, held_out: float = 0.5, seed: int = 0) -> tuple[ContrastSet, ContrastSet]:
        """A part to find directions on and a part to try them on; pairs and groups stay whole.

        Args:
            held_out: share of the groups in the second part.
            seed: of the draw.

        Raises:
            ValueError: if either part would lack a side.
        """
        positive = self.positive_groups or tuple(f"positive {i}" for i in range(len(self.positive)))
        negative = self.negative_groups or tuple(f"negative {i}" for i in range(len(self.negative)))
        if self.paired:
            # The twin belongs where its text belongs, whatever group it says itself.
            negative = positive
        groups = sorted(set(positive) | set(negative))
        order = np.random.default_rng(seed).permutation(len(groups))
        apart = {groups[i] for i in order[: round(held_out * len(groups))]}
        kept = self._where([g not in apart for g in positive], [g not in apart for g in negative])
        held = self._where([g in apart for g in positive], [g in apart for g in negative])
        return kept, held

    def check_size(self, width: float) -> None:
        """Raise a sentence where an accuracy on these texts cannot have an interval as narrow as asked.

        Args:
            width: half the width of the 95 % interval, at an accuracy of 1/2, where it is widest.

        Raises:
            ValueError: if the texts are too few for it, with how many are needed.

        Example:
            >>> texts = tuple(f"text {i}" for i in range(40))
            >>> ContrastSet("any", texts, texts).check_size(0.12)
        """
        if not 0 < width < 1:
            raise ValueError(
                f"contrast set {self.name}: an interval of ± {width} is no interval of a share; give 0 to 1."
            )
        reached = _half_width(self.n)
        if reached <= width:
            return
        needed = self.n
        while _half_width(needed) > width:
            needed += max(needed // 50, 1)
        raise ValueError(
            f"contrast set {self.name}: on {self.n} held-out texts the 95 % interval of an accuracy can be "
            f"± {reached:.2f}, and ± {width:.2f} is asked for. Hold out about {needed} texts, or ask for a wider one."
        )

    def _where(self, positive: Sequence[bool], negative: Sequence[bool]) -> ContrastSet:
        def chosen(values: tuple[str, ...], keep: Sequence[bool]) -> tuple[str, ...]:
            return tuple(value for value, is_kept in zip(values, keep) if is_kept)

        sides = {"positive": positive, "negative": negative}
        names = [f"{side}{kind}" for side in sides for kind in ("", "_groups", "_cells")]
        if not any(positive) or not any(negative):
            raise ValueError(
                f"contrast set {self.name}: {self.n} texts in so few groups cannot be split into two parts that both "
                "have positive and negative texts. Give more texts, of more groups."
            )
        parts = {name: chosen(getattr(self, name), sides[name.partition("_")[0]]) for name in names}
        return dataclasses.replace(self, **parts)


def read_contrasts(path: Path | str) -> tuple[ContrastSet, ...]:
    r"""The contrast sets in a file.

    Args:
        path: `.json`: one set or a list of sets, {"name", "pairs": [[with, without], ...]} or {"name", "positive":
            [...], "negative": [...]}. `.jsonl`: a line for each pair {"positive", "negative"} or for each text {"text",
            "label": true or false}, both with "concept", "group" and "cell" where they have one. Any other file: text,
            a line for each pair, its two sides with a tab between.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is none of these.
        ValueError: if a set lacks a side.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"there is no file '{path}' of contrasting texts; give a .json, .jsonl or text file.")
    try:
        text = place.read_text(encoding="utf-8")
        if place.suffix == ".json":
            whole = json.loads(text)
            return tuple(_of_object(each, place) for each in (whole if isinstance(whole, list) else [whole]))
        if place.suffix == ".jsonl":
            return _of_lines([json.loads(line) for line in text.splitlines() if line.strip()], place)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"'{path}' cannot be read: {error}. Give JSON, or lines of text in UTF-8.") from error
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    bad = next((i for i, line in enumerate(lines, 1) if len(line) != 2), None)
    if bad is not None or not lines:
        raise FormatError(
            f"'{path}', line {bad or 1}: a pair is two texts with a tab between. Give so, or a .json or .jsonl file."
        )
    first, second = zip(*lines)
    return (ContrastSet(place.stem, tuple(first), tuple(second), paired=True),)


def _of_object(given: Any, place: Path) -> ContrastSet:
    if not isinstance(given, dict) or not ({"pairs"} <= given.keys() or given.keys() & {"positive", "negative"}):
        raise FormatError(
            f'\'{place}\': a contrast set is an object with "pairs", or with "positive" and "negative" texts.'
        )
    name = str(given.get("name", place.stem))
    if "pairs" in given:
        pairs = given["pairs"]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise FormatError(f"'{place}', set {name}: each of \"pairs\" is two texts, [with, without].")
        return ContrastSet(name, tuple(str(a) for a, _ in pairs), tuple(str(b) for _, b in pairs), paired=True)
    return ContrastSet(name, tuple(map(str, given.get("positive", ()))), tuple(map(str, given.get("negative", ()))))


def _of_lines(lines: Sequence[Any], place: Path) -> tuple[ContrastSet, ...]:
    bad = next((i for i, line in enumerate(lines, 1) if not isinstance(line, dict)), None)
    if bad is not None or not lines:
        raise FormatError(f"'{place}', line {bad or 1}: each line is an object; see `read_contrasts`.")
    sets = []
    for name in dict.fromkeys(str(line.get("concept", place.stem)) for line in lines):
        own = [line for line in lines if str(line.get("concept", place.stem)) == name]
        paired = all("positive" in line and "negative" in line for line in own)
        if not paired and not all("text" in line and isinstance(line.get("label"), bool | int) for line in own):
            raise FormatError(
                f'\'{place}\', concept {name}: lines are pairs with "positive" and "negative", or texts with "text" '
                'and "label", true or false, and not some of each.'
            )
        sides = (own, own) if paired else ([x for x in own if x["label"]], [x for x in own if not x["label"]])
        keys = ("positive", "negative") if paired else ("text", "text")
        told = Counter(key for line in own for key in ("group", "cell") if key in line)
        about = {
            f"{side}_{key}s": tuple(str(line[key]) for line in part)
            for key in ("group", "cell")
            if told[key] == len(own)
            for side, part in zip(("positive", "negative"), sides)
        }
        texts = [tuple(str(line[key]) for line in part) for key, part in zip(keys, sides)]
        sets.append(ContrastSet(name, *texts, paired=paired, **about))
    return tuple(sets)


def _half_width(n: int) -> float:
    """Of Wilson's 95 % interval at a share of 1/2."""
    return _Z * math.sqrt(n + _Z**2) / (2 * (n + _Z**2))
