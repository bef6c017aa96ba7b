"""A run folder as a scan writes it, made from seeded random numbers: for tests of the page and for working on it.

python tests/studio/example_run.py FOLDER       # writes the run and its report.html there
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from superscope.core import Measurement, Report

# Text from a corpus may be any of these; the page must show each as text.
HOSTILE = (
    "</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "<script>document.title='broken'</script>",
    "{{7*7}}",
    "${7*7}",
    "a\u2028b\u2029c",
    "\u202eright to left",
    "\u05e9\u05dc\u05d5\u05dd",
    "nul\x00byte",
    "\ufffd\ufffd",
    "&lt;b&gt;&amp;",
    "\U0001f9ed\u200d",
    "tab\there",
    "line\r\nend",
    "=1+1",
    "]]>-->",
)

SITES = (
    ("transformer.h.0", "residual", 48),
    ("transformer.h.1", "residual", 48),
    ("transformer.h.1.mlp.c_proj:in", "neurons", 96),
)
ATOMS, K, SEEDS, ROWS = 192, 8, 3, 60_000
DEPTH = 12  # latents with contexts, per site and model

_TOPICS = (
    ("self", (" self", "self", " cls", ".self"), ("(self", " self.", " def")),
    ("raise", (" raise", "raise", " except", " assert"), (" ValueError", " TypeError", " Error")),
    ("numbers", ("0", "1", " 16", "255"), (",", "]", " bytes")),
    ("quotes", ("'", '"', "'''", '"""'), ("\n", " %", ".format")),
    ("indent", ("\n        ", "\n    ", "\n            ", "\n"), (" return", " if", " for")),
    ("import", (" import", "import", " from", "\nimport"), (" os", " sys", " re")),
    ("tests", (" assert", "Equal", "test_", " unittest"), ("(self", "Raises", "True")),
    ("files", (" open", " path", "file", " os.path"), (".read", ".close", "name")),
)
# fmt: off
# "" becomes a line end.
_FILLER = (
    "", "the", "of", "a", "value", "is", "not", "in", "if", "None", "returns", "object",
    "name", "=", "(", ")", ".", ",", ":", "list", "str", "_", "[", "]",
    "for", "with", "by", "an", "and",
)
# fmt: on


def _words(rng: np.random.Generator, length: int) -> list[str]:
    words = [f" {word}" if word.isalpha() else (word or "\n") for word in rng.choice(_FILLER, size=length)]
    return [str(word) for word in words]


def example(*, seed: int = 0, control: bool = True) -> Report:
    """A scan of three sites with planted, plausible numbers; every draw comes from `seed`."""
    rng = np.random.default_rng(seed)
    models = ("trained", "control") if control else ("trained",)
    measurements: list[Measurement] = []
    tables: dict[str, dict[str, list]] = {
        name: {column: [] for column in columns.split()}
        for name, columns in {
            "sites": "site model d n k seeds rows kind note",
            "latents": "site model latent density mean_active max_active recurs nearest nearest_cosine clarity clear_by"
            " top_tokens top_token_share promotes",
            "contexts": "site model latent rank band activation document position tokens activations",
            "neurons": "site model neuron effective_features explained purer_directions features shares signs",
            "neuron_bands": "site model neuron above rows value explained features parts",
            "neuron_contexts": "site model neuron rank value explained features parts document position tokens"
            " activations",
            "writes": "site model latent strengths axes axis_weights raises raises_by lowers lowers_by",
            "partners": "site model latent why other cosine fires other_fires both rows energy energy_share while_on",
            "atlas": "site model latent x y kept density recurs overlap energy",
            "histograms": "site model what series low high count",
            "training": "site model seed step fraction_variance_unexplained dead",
        }.items()
    }

    def add(table: str, **row: object) -> None:
        assert row.keys() == tables[table].keys(), (table, row.keys() ^ tables[table].keys())
        for column, cell in row.items():
            tables[table][column].append(cell)

    for model in models:
        trained = model == "trained"
        for depth, (site, kind, d) in enumerate(SITES):
            _measure(measurements, rng, site, model, depth, d)
            note = "" if kind == "neurons" else "Coordinates of a residual stream are not neurons: no axis is special."
            add("sites", site=site, model=model, d=d, n=ATOMS, k=K, seeds=SEEDS, rows=ROWS, kind=kind, note=note)
            _latents(add, rng, site, model, d, trained)
            _neurons(add, rng, site, model, d, trained)
            _histograms(add, rng, site, model, d, trained)
            _company(add, tables["latents"], np.random.default_rng(seed + 1), site, model, d)
            floor = (0.14 + 0.05 * depth) if trained else 0.55
            for run in range(SEEDS):
                for step in (10, 20, 40, 80, 160, 320, 640, 1000):
                    decay = 0.8 * np.exp(-step / 120) * rng.uniform(0.92, 1.08)
                    dead = int(ATOMS * 0.35 * (1 - np.exp(-step / 90)) * np.exp(-step / 500))
                    add(
                        "training",
                        site=site,
                        model=model,
                        seed=run,
                        step=step,
                        fraction_variance_unexplained=float(floor + decay),
                        dead=dead,
                    )
    return Report(
        title="Superposition in the pocket model at three sites",
        kind="scan",
        measurements=tuple(measurements),
        settings={
            "model": "pocket",
            "sites": [site for site, _, _ in SITES],
            "text": None,
            "tokens": ROWS,
            "context": 128,
            "n": ATOMS,
            "k": K,
            "seeds": list(range(SEEDS)),
            "steps": 1000,
            "lr": 3e-4,
            "control": control,
        },
        environment={
            "superscope": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "device": "cpu",
            "created": "2026-11-21T09:00:00+00:00",
            "finished": "2026-11-21T09:04:40+00:00",
            "seconds": 280.4,
            "command": "superscope scan --control",
        },
        tables=tables,
        arrays={"frame": torch.zeros(2, 3)},
        findings=(
            "transformer.h.0: 101 directions recur in all 3 seeds, in 48 dimensions; chance gives 1.",
            "transformer.h.0: with random weights 9 directions recur.",
            "transformer.h.1.mlp.c_proj:in: the median neuron mixes 5.9 features; a random rotation 14.2.",
        ),
    )


def _measure(out: list[Measurement], rng: np.random.Generator, site: str, model: str, depth: int, d: int) -> None:
    trained = model == "trained"
    at = {"site": site, "model": model}
    over_seeds = f"min and max over {SEEDS} seeds"

    def give(name: str, value: float | None, unit: str, n: int, of: str, spread: float = 0.0, **more: object) -> None:
        interval = {}
        if spread and value is not None:
            interval = {"low": value - spread, "high": value + spread, "how": over_seeds}
        out.append(Measurement(name=name, value=value, unit=unit, n=n, of=of, at=at, **{**interval, **more}))

    wobble = float(rng.uniform(0.97, 1.03))
    recurring = (101 - 14 * depth if trained else 9 + depth) * 1.0
    give("tokens", float(ROWS), "tokens", ROWS, "tokens", how="no interval: a count")
    give("dimensions", float(d), "dimensions", d, "coordinates", how="no interval: a count")
    give("activation_gini", 0.41 * wobble, "Gini index", ROWS, "tokens", 0.01)
    give("activation_hoyer", 0.22 * wobble, "Hoyer index", ROWS, "tokens", 0.01)
    give("activation_entropy_dimension", 0.78 * d * wobble, "dimensions", ROWS, "tokens", 0.4)
    give("participation_ratio", 0.33 * d * wobble, "dimensions", ROWS, "tokens", 0.9)
    give("l0", K - 0.2 * depth, "latents per token", ROWS, "tokens", 0.05)
    give(
        "fraction_variance_unexplained",
        0.14 + 0.05 * depth if trained else 0.55,
        "share of variance",
        ROWS,
        "tokens",
        0.006,
    )
    if trained:
        give(
            "cross_entropy_recovered",
            0.97 - 0.02 * depth,
            "share of nats",
            8192,
            "tokens",
            0.004,
            reference=1.0,
            reference_is="the model itself",
        )
    else:
        give(
            "cross_entropy_recovered",
            None,
            "share of nats",
            8192,
            "tokens",
            caution="Undefined: ablating this site does not raise the cross-entropy of a random model.",
        )
    give(
        "alive_latents",
        188.0 if trained else 150.0,
        "latents",
        ATOMS,
        "latents",
        2.0,
        reference=float(ATOMS),
        reference_is="all latents",
    )
    give("median_density", 0.021 if trained else 0.032, "share of tokens", ATOMS, "latents", 0.002)
    give("code_gini", 0.97 if trained else 0.95, "Gini index", ROWS, "tokens", 0.002)
    give("entropy_effective_latents", 121.0 if trained else 61.0, "latents", ROWS, "tokens", 3.0)
    give(
        "recurring_features",
        recurring,
        "features",
        SEEDS,
        "dictionaries",
        how=f"no interval: one count over {SEEDS} seeds",
        chance=1.2,
        chance_is="covariance-matched random dictionaries",
    )
    give(
        "recurring_per_dimension",
        recurring / d,
        "features per dimension",
        SEEDS,
        "dictionaries",
        how=f"no interval: one count over {SEEDS} seeds",
        reference=1.0,
        reference_is="one feature per dimension",
        chance=1.2 / d,
        chance_is="covariance-matched random dictionaries",
    )
    welch = float(np.sqrt((ATOMS - d) / (d * (ATOMS - 1))))
    give(
        "coherence",
        0.86,
        "cosine",
        ATOMS,
        "atoms",
        0.03,
        reference=welch,
        reference_is="Welch bound",
        chance=0.55,
        chance_is="random frame",
    )
    give(
        "mean_max_cosine",
        0.48 if trained else 0.41,
        "cosine",
        ATOMS,
        "atoms",
        0.01,
        chance=0.39,
        chance_is="random frame",
    )
    give(
        "interference_energy",
        (ATOMS - 1) / d * (1.21 if trained else 1.05),
        "squared cosine",
        ATOMS,
        "atoms",
        how="exact: through the frame operator",
        reference=ATOMS / d - 1,
        reference_is="tight frame",
        chance=(ATOMS - 1) / d,
        chance_is="random frame (expectation)",
    )
    give(
        "polysemanticity",
        5.9 if trained else 12.8,
        "features per neuron",
        d,
        "neurons",
        0.3,
        chance=14.2,
        chance_is="the same under a random rotation",
        caution="" if "mlp" in site else "These are coordinates of the residual stream, not neurons.",
    )
    give(
        "map_neighbours_kept",
        0.26,
        "share of neighbours",
        ATOMS,
        "atoms",
        0.02,
        reference=1.0,
        reference_is="every neighbour kept",
        chance=12 / (ATOMS - 1),
        chance_is="a random map",
    )
    # A later study's measurement, which no page has heard of.
    give(
        "braid_index", 3.25, "strands", 12, "braids", how="no interval: one braid each", caution="An invented quantity."
    )


def _latents(add, rng: np.random.Generator, site: str, model: str, d: int, trained: bool) -> None:
    clarity = np.sort(rng.beta(2, 2.5, ATOMS))[::-1] if trained else np.sort(rng.beta(1.5, 6, ATOMS))[::-1]
    order = rng.permutation(ATOMS)
    for place, latent in enumerate(order.tolist()):
        _, tokens, promotes = _TOPICS[place % len(_TOPICS)]
        share = clarity[place] * np.array([0.5, 0.25, 0.12, 0.05])
        peak = float(rng.gamma(4, 1.6) + 1)
        add(
            "latents",
            site=site,
            model=model,
            latent=latent,
            density=float(np.clip(10 ** rng.normal(-1.8, 0.5), 1 / ROWS, 0.6)) if place < ATOMS - 4 else 0.0,
            mean_active=peak / 3,
            max_active=peak,
            recurs=int(rng.choice([1, 2, 3], p=[0.3, 0.17, 0.53] if trained else [0.9, 0.06, 0.04])),
            nearest=int(order[(place + 1) % ATOMS]),
            nearest_cosine=float(rng.beta(5, 6)),
            clarity=float(clarity[place]),
            clear_by="token",
            top_tokens=[HOSTILE[(place + i) % len(HOSTILE)] for i in range(3)] if place == 3 else list(tokens),
            top_token_share=[float(value) for value in (share[:3] if place == 3 else share)],
            promotes=list(promotes) if trained and place % 5 else [],
        )
        if place >= DEPTH:
            continue
        for rank in range(6):
            before, after = int(rng.integers(5, 14)), int(rng.integers(3, 8))
            text = [*_words(rng, before), str(rng.choice(tokens)), *_words(rng, after)]
            strength = np.round(rng.gamma(0.6, 0.5, len(text)) * (rng.random(len(text)) < 0.18), 4)
            top = peak * (1 - 0.06 * rank)
            strength[before] = top
            if place in (0, 3):
                hostile = [HOSTILE[(rank * 3 + i) % len(HOSTILE)] for i in range(3)]
                text[before - 2 : before] = hostile[:2]
                text[before + 1] = hostile[2]
                strength[before - 1] = top / 2
            add(
                "contexts",
                site=site,
                model=model,
                latent=latent,
                rank=rank,
                band=("strongest", "strongest", "strongest", "lowest", "middle", "highest")[rank],
                activation=float(top),
                document=f"Lib/{'<b>bold</b>' if rank == 1 else 'argparse'}.py",
                position=int(rng.integers(0, 4000)),
                tokens=text,
                activations=[float(value) for value in strength],
            )


def _neurons(add, rng: np.random.Generator, site: str, model: str, d: int, trained: bool) -> None:
    for neuron in range(d):
        shares = rng.dirichlet(np.full(8, 0.7 if trained else 2.5)) * rng.uniform(0.5, 0.9)
        shares = np.sort(shares)[::-1]
        add(
            "neurons",
            site=site,
            model=model,
            neuron=neuron,
            effective_features=float(1 / np.sum((shares / shares.sum()) ** 2)),
            explained=float(shares.sum()),
            purer_directions=0.01 if trained else 0.5,
            features=[int(latent) for latent in rng.choice(ATOMS, 8, replace=False)],
            shares=[float(share) for share in shares],
            signs=[float(sign) for sign in rng.choice([-1.0, 1.0], 8)],
        )


def _company(add, latents: dict[str, list], rng: np.random.Generator, site: str, model: str, d: int) -> None:
    """Partners, places on a map, and what neurons are made of."""
    own = [row for row, at in enumerate(zip(latents["site"], latents["model"], strict=True)) if at == (site, model)]
    for row in sorted(own, key=lambda row: latents["latent"][row]):
        latent, density = latents["latent"][row], latents["density"][row]
        where = rng.normal(0, 1, 2) + 6 * np.array([latent % 4, latent // 4 % 3])
        add(
            "atlas",
            site=site,
            model=model,
            latent=latent,
            x=float(where[0]),
            y=float(where[1]),
            kept=float(rng.beta(2, 5)),
            density=density,
            recurs=latents["recurs"][row],
            overlap=latents["nearest_cosine"][row],
            energy=float(rng.gamma(2, 0.4)) if density > 0 else None,
        )
    for row in own[:DEPTH]:
        latent = latents["latent"][row]
        add(
            "writes",
            site=site,
            model=model,
            latent=latent,
            strengths=[int(400 * 0.7**i) for i in range(12)],
            axes=[3, 1, 7],
            axis_weights=[0.5, -0.4, 0.2],
            raises=[" self", "</script>"],
            raises_by=[2.5, 1.5],
            lowers=[" the", "\u202e"],
            lowers_by=[-2.0, -0.5],
        )
        for place, other in enumerate(rng.choice(ATOMS, 6, replace=False).tolist()):
            fires, other_fires, both = 900, 300 + 100 * place, 40 + 10 * place
            energy = 0.3 * 0.6**place
            add(
                "partners",
                site=site,
                model=model,
                latent=latent,
                why="interference" if place < 4 else "together",
                other=other,
                cosine=float(rng.uniform(0.2, 0.7) * (-1) ** place),
                fires=fires,
                other_fires=other_fires,
                both=both,
                rows=20_000,
                energy=energy,
                energy_share=energy / 1.1,
                while_on=0.05 * (-1) ** place,
            )
    for neuron in range(4):
        features = rng.choice(ATOMS, 6, replace=False).tolist()
        for above, rows, value in ((0.5, 8000, 0.2), (0.9, 1800, 0.9), (0.99, 180, 2.0), (0.999, 20, 3.5)):
            parts = [value * share for share in (0.4, 0.2, 0.1, -0.1, 0.05, 0.02)]
            at = {"site": site, "model": model, "neuron": neuron}
            explained = sum(parts) + 0.1 * value
            add(
                "neuron_bands",
                **at,
                above=above,
                rows=rows,
                value=value,
                explained=explained,
                features=features,
                parts=parts,
            )
        for rank in range(6):
            text = [*_words(rng, 6), HOSTILE[rank], *_words(rng, 4)]
            value = 4.0 - 0.3 * rank
            add(
                "neuron_contexts",
                site=site,
                model=model,
                neuron=neuron,
                rank=rank,
                value=value,
                explained=0.8 * value,
                features=features[rank % 2 : rank % 2 + 2],
                parts=[0.6 * value, 0.1 * value],
                document="Lib/argparse.py",
                position=int(rng.integers(0, 4000)),
                tokens=text,
                activations=[*(float(v) for v in rng.random(len(text) - 1)), None],
            )


def _histograms(add, rng: np.random.Generator, site: str, model: str, d: int, trained: bool) -> None:
    def bins(what: str, series: str, values: np.ndarray, edges: np.ndarray) -> None:
        counts, _ = np.histogram(values, edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            add(
                "histograms",
                site=site,
                model=model,
                what=what,
                series=series,
                low=float(low),
                high=float(high),
                count=int(count),
            )

    cosine = np.linspace(0, 1, 41)
    bins("latent density", "dictionary", rng.normal(-1.8, 0.5, ATOMS), np.linspace(-5, 0, 41))
    bins("nearest cosine", "dictionary", rng.beta(5, 6 if trained else 8, ATOMS), cosine)
    bins("nearest cosine", "random frame", rng.normal(0.39, 0.035, ATOMS), cosine)
    signed = np.linspace(-1, 1, 61)
    bins("interference", "dictionary", rng.standard_t(4, 8000) * 0.13, signed)
    bins("interference", "random frame", rng.normal(0, 1 / np.sqrt(d), 8000), signed)
    bins("features per neuron", "dictionary", rng.gamma(6, 1.0 if trained else 2.1, d), np.linspace(0, 30, 31))
    bins("features per neuron", "random rotation", rng.gamma(60, 14.2 / 60, d), np.linspace(0, 30, 31))


if __name__ == "__main__":
    from superscope.studio import write_html

    folder = Path(sys.argv[1])
    example().save(folder)
    sys.stdout.write(f"{write_html(folder)}\n")
