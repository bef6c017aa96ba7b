"""What does a report look like where nothing runs? A small still piece of HTML: findings, numbers, intervals as SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .measurement import Measurement

MOST = 12
"""Measurements that are shown; the sentence below them counts the rest."""
_WIDTH, _HEIGHT = 160, 16
_CELL = 'style="text-align: left; vertical-align: top"'


def card(title: str, findings: Sequence[str], measurements: Sequence[Measurement], beside: Sequence[str]) -> str:
    """A report as HTML without scripts, styles or addresses, whatever text it holds.

    Args:
        title, findings, measurements: of the report.
        beside: what else it has, in words.

    Example:
        >>> one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
        >>> "<b>a &lt; b</b>" in card("a < b", (), (one,), ())
        True
    """
    shown = measurements[:MOST]
    rest = len(measurements) - len(shown)
    rows = "".join(_row(m) for m in shown)
    more = [*[f"{rest} more measurements"] * bool(rest), *beside]
    foot = f"And {'; '.join(more)}. " if more else ""
    heads = "".join(f"<th {_CELL}>{head}</th>" for head in ("measurement", "where", "value", "interval", ""))
    return (
        f"<div><p><b>{_text(title)}</b></p>"
        + "".join(f"<p>{_text(sentence)}</p>" for sentence in findings)
        + (f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else "")
        + f"<p><small>{_text(foot)}Live in a notebook: <code>superscope.show(report)</code>, with the extra "
        "<code>notebook</code>; in a browser: <code>superscope studio RUN</code>.</small></p></div>"
    )


def _row(m: Measurement) -> str:
    where = ", ".join(f"{name} {value}" for name, value in m.at.items())
    value = f"undefined: {m.caution}" if m.value is None else f"{m.value:.4g} {m.unit}"
    spread = m.how if m.low is None else f"{m.low:.4g} to {m.high:.4g} ({m.how})"
    cells = (m.name.replace("_", " "), where, value, f"{spread}; n = {m.n} {m.of}")
    return f"<tr>{''.join(f'<td {_CELL}>{_text(cell)}</td>' for cell in cells)}<td>{_strip(m)}</td></tr>"


def _strip(m: Measurement) -> str:
    """The value, its interval, and what chance and the bound are, on a line from 0, or the least, to the most."""
    marks = {"value": m.value, "chance": m.chance, "reference": m.reference, "low": m.low, "high": m.high}
    known = {name: number for name, number in marks.items() if number is not None}
    if m.value is None or len(known) == 1:
        return ""
    low, high = min(0.0, *known.values()), max(0.0, *known.values())
    x = {name: 4 + (_WIDTH - 8) * (number - low) / ((high - low) or 1.0) for name, number in known.items()}
    top, middle, bottom = 1.0, _HEIGHT / 2, _HEIGHT - 1.0
    drawn = _line(4, 4 + _WIDTH - 8, middle, middle, "stroke-opacity='0.25'")
    if "low" in x:
        drawn += _line(x["low"], x["high"], middle, middle, "stroke-width='3'")
    for name, look in (("chance", "stroke-dasharray='2 2'"), ("reference", "")):
        if name in x:
            drawn += _line(x[name], x[name], top, bottom, look)
    drawn += f"<circle cx='{x['value']:.1f}' cy='{middle}' r='3.5' fill='currentColor'></circle>"
    named = {"value": "value", "chance": m.chance_is or "chance", "reference": m.reference_is or "bound"}
    told = _text(", ".join(f"{words} {known[name]:.4g}" for name, words in named.items() if name in known))
    size = f"width='{_WIDTH}' height='{_HEIGHT}'"
    return f'<svg role="img" aria-label="{told}" {size}><title>{told}</title>{drawn}</svg>'


def _line(x1: float, x2: float, y1: float, y2: float, look: str) -> str:
    # Closed in words: what cleans the HTML of notebooks takes "/>" for nothing.
    return f"<line x1='{x1:.1f}' x2='{x2:.1f}' y1='{y1}' y2='{y2}' stroke='currentColor' {look}></line>"


def _text(value: str) -> str:
    """Text that is no markup, without what HTML and UTF-8 cannot hold."""
    clean = "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in value)
    return html.escape(clean)
