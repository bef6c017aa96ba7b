"""The theory page of one dictionary: its geometry beside bounds and chance, and what can be recovered from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from ... import frames, measure, recovery
from ... import theory as bounds
from ...core import Activations, Answer, Dictionary, Findings, Measurement, Run, SparseCode, SparseCoder, Table
from ..settings import Count, at_least
from ..study import Progress, Study
from .bounds import ladder_table
from .dictionary_file import DUPLICATE, DictionaryFile, OwnEncoder, RowMeaning, read_codes, read_dictionary
from .recovery_diagram import (
    CodeSource,
    data_codes,
    data_grid,
    grid,
    guaranteed,
    half_point,
    predicted_count,
    random_codes,
    success_curve,
    with_chance,
)

_CODED = 1000
"""Rows on which encoders are compared with pursuit."""
_CERTIFIED = 500
"""Codes tested for a certificate at each size."""
_EXACT = 100
"""Of these, supports tested for the stricter condition of Tropp, as long as the work is within bounds."""
_EXACT_WORK = 2 * 10**10
"""Products k^2 n over all supports: some ten seconds."""
_SYNTHETIC = 2000
"""Random codes whose interference is measured."""
_LISTED = 20_000
"""Atoms listed one by one in tables; a random sample of larger dictionaries."""
_PHASE_SHARES = (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.6)


@dataclass(frozen=True)
class Theory(Study):
    """What does this dictionary allow, beside bounds and chance?

    Ten views of W: cosines, nearest atoms, Babel function, capacity ladder, recovery, interference, dimensions,
    certificates, amortisation gap, phase diagram. Atoms are normalised first. With the folder of an SAE that says where
    it was trained, codes of real data stand beside random ones.
    """

    kind: ClassVar[str] = "theory"

    dictionary: Annotated[str, tyro.conf.Positional]
    """Folder of a saved SAE, a .safetensors or .npy matrix, or pocket:unembedding."""
    tensor: str | None = None
    """Which tensor of a .safetensors file; its only matrix without it."""
    rows_are: RowMeaning | None = None
    """What a row of the matrix is. Default: an atom, if there are at least as many rows as columns."""
    k: Count | None = None
    """Active features of the random codes. Default: the mean l0 of an SAE's codes, else 8 (fewer if n is small)."""
    signed: bool = False
    """Let features be of either sign; without it they are nonnegative, as SAE latents are."""
    trials: Count = 24
    """Codes at each point of recovery curves and phase diagram."""
    whole: Annotated[int, at_least(2)] = 4096
    """Atoms up to which basis pursuit runs on the whole dictionary; of larger ones it runs on random parts only."""
    tokens: Annotated[int, at_least(0)] = 4096
    """Tokens whose codes are made, for an SAE that says where it was trained; 0 does without data."""
    text: str | None = None
    """Text for these: a file, a folder, or `datasets:NAME`. Default: the text every Python carries."""
    rotations: Annotated[int, at_least(19)] = 199
    """Random rotations that axis alignment is compared with."""
    seed: int = 0
    """Of codes, parts, rotations and text."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the dictionary", 0, 1)
        found = read_dictionary(self.dictionary, tensor=self.tensor, rows=self.rows_are)
        W = Dictionary(found.dictionary.unit().atoms)
        if self.k is not None and self.k > min(W.n - 1, W.d):
            raise ValueError(
                f"k = {self.k} active features cannot be read among n = {W.n} atoms in d = {W.d} dimensions. "
                f"Give --k of at most {min(W.n - 1, W.d)}."
            )
        yield Progress("Reading the dictionary", 1, 1, f"{found.origin}: n = {W.n:,}, d = {W.d:,}")
        data = None
        notes = list(found.cautions)
        if found.sae is not None and self.tokens:
            if found.model and found.site:
                yield Progress("Reading codes of data", 0, 1)
                data = read_codes(found, tokens=self.tokens, text=self.text, seed=self.seed)
            else:
                notes.append("the SAE does not say where it was trained, so its page has random codes only")
        run.open()
        page = _Page(self, found, W, data)
        parts = (
            ("Comparing atoms", page.overlaps),
            ("Measuring dimensions", page.dimensions),
            ("Measuring axes and isometry", page.axes),
            ("Measuring interference", page.interference),
            ("Looking for certificates", page.certificates),
            ("Comparing encoder and pursuit", page.amortisation),
        )
        for done, (stage, part) in enumerate(parts):
            yield Progress("Measuring the dictionary", done, len(parts), stage)
            part()
        yield Progress("Measuring the dictionary", len(parts), len(parts))
        yield from page.recovery()
        yield from page.phase()
        return Answer(
            title=f"Theory page of {found.origin}: n = {W.n:,} atoms, d = {W.d:,}",
            findings=Findings(page.measurements, page.tables),
            sentences=tuple(page.findings() + [f"Note: {note}." for note in notes]),
        )


@dataclass
class _Page:
    """What has been measured of one dictionary so far."""

    study: Theory
    file: DictionaryFile
    W: Dictionary
    data: tuple[Activations, SparseCode, Int[Tensor, "sequences"]] | None
    measurements: list[Measurement] = field(default_factory=list)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @property
    def code(self) -> SparseCode | None:
        """Codes of data, where there are any."""
        return None if self.data is None else self.data[1]

    @property
    def k(self) -> int:
        """Active features of random codes."""
        if self.study.k is not None:
            return self.study.k
        wanted = 8 if self.code is None else max(1, round(float(self.code.l0.double().mean())))
        return max(1, min(wanted, self.W.n - 1, self.W.d))

    @property
    def nonnegative(self) -> bool:
        return not self.study.signed

    def generator(self, stream: int) -> torch.Generator:
        """Each view has its own stream, so that one does not change with what another drew."""
        return torch.Generator().manual_seed(self.study.seed * 1000 + stream)

    def random(self, k: int, rows: int, stream: int) -> SparseCode:
        """Random codes in the dictionary's dtype."""
        code = random_codes(self.W.n, "uniform", signed=self.study.signed)(k, rows, self.generator(stream))
        assert code is not None
        return SparseCode(code.values.to(self.W.atoms.dtype), code.indices, code.n)

    def value(self, name: str, **at: Any) -> Measurement | None:
        """A measurement by name and place, if it was made."""
        for m in self.measurements:
            if m.name == name and all(m.at.get(key) == wanted for key, wanted in at.items()):
                return m
        return None

    def overlaps(self) -> None:
        """Views 1 to 4: cosines, nearest atoms, Babel function, capacity ladder."""
        W, n, d = self.W, self.W.n, self.W.d
        mu = measure.coherence(W)
        kept = self.file.kept
        mu = dataclasses.replace(
            mu, at={"atom": int(kept[int(mu.at["atom"])]), "other": int(kept[int(mu.at["other"])])}
        )
        near = measure.nearest(W)
        low, high = bounds.random_coherence(n, d, 0.05), bounds.random_coherence(n, d, 0.95)
        beyond = int((near.magnitude > high).sum())
        duplicates = int((near.magnitude > DUPLICATE).sum())
        self.measurements += [
            mu,
            measure.mean_max_cosine(W),
            Measurement(
                name="atoms_with_a_true_neighbour",
                value=beyond / n,
                unit="share of atoms",
                n=n,
                of="atoms",
                how=f"exact count: nearest |cosine| above {high:.4g}, which only 5 % of random frames reach anywhere",
                chance=_random_share(n, d, high),
                chance_is="random frame (expectation)",
            ),
            Measurement(
                name="duplicate_atoms",
                value=duplicates / n,
                unit="share of atoms",
                n=n,
                of="atoms",
                how=f"exact count: nearest |cosine| above {DUPLICATE}",
                chance=0.0,
                chance_is="random frame",
                caution="no reader can tell duplicates apart" if duplicates else "",
            ),
        ]
        null = frames.spectrum_matched(W, seed=self.study.seed)
        for table, histogram in (("cosines", measure.cosine_histogram), ("nearest", measure.nearest_histogram)):
            self.tables[table] = _columns(histogram(W).table())
            matched = histogram(null).table()
            ours = [i for i, series in enumerate(matched["series"]) if series == "dictionary"]
            for column, cells in self.tables[table].items():
                cells += ["same spectrum"] * len(ours) if column == "series" else [matched[column][i] for i in ours]
        self.measurements += [
            dataclasses.replace(
                measured,
                name=f"{measured.name}_same_spectrum",
                at={},
                how=f"{measured.how}; one draw of random atoms with the frame operator of this dictionary",
            )
            for measured in (measure.coherence(null), measure.mean_max_cosine(null), measure.capacity_used(null))
        ]
        pairs = measure.coherent_pairs(W)
        self.tables["pairs"] = {
            "cosine": pairs.cosine.tolist(),
            "first": kept[pairs.first].tolist(),
            "second": kept[pairs.second].tolist(),
        }
        babel = measure.babel(W, most=min(128, n - 1))
        self.tables["babel"] = {
            "m": list(range(1, len(babel.largest) + 1)),
            "largest": babel.largest.tolist(),
            "median": babel.median.tolist(),
            "chance": babel.chance.tolist(),
        }
        self.measurements += [
            guaranteed(mu, W),
            Measurement(
                name="babel_guarantee",
                value=float(babel.guarantee),
                unit="active features",
                n=n,
                of="atoms",
                how="no interval: a theorem",
                caution="a worst case that data never meet; no capacity"
                if babel.guarantee < len(babel.largest)
                else f"at least this: only {len(babel.largest)} neighbours were counted",
            ),
            Measurement(
                name="dimensions_per_atom",
                value=d / n,
                unit="d / n",
                n=n,
                of="atoms",
                how="no interval: a count",
                caution="" if n > d else "at least as many dimensions as atoms: capacity bounds do not apply",
            ),
        ]
        self.tables["marks"] = {
            "name": [
                "Welch bound",
                "random |cosine|, root mean square",
                "random coherence, 5 %",
                "random coherence, 95 %",
            ],
            "cosine": [bounds.welch(n, d), 1 / math.sqrt(d), low, high],
        }
        if n > d:
            ladder = ladder_table(bounds.capacity_ladder(n, d, mu=min(mu.value or 0.0, 1.0)))
            extra = {
                "criterion": "Babel",
                "k": float(babel.guarantee),
                "reader": "basis pursuit or matching pursuit",
                "holds_for": "every f",
                "caution": "From the dictionary's Babel function. A worst case that data never meet.",
            }
            self.tables["ladder"] = {name: [*cells[:1], extra[name], *cells[1:]] for name, cells in ladder.items()}
        if self.code is not None:
            counts = torch.bincount(self.code.l0)
            present = counts.nonzero()[:, 0]
            self.tables["l0"] = {"l0": present.tolist(), "rows": counts[present].tolist()}
            l0 = self.code.l0.double()
            self.measurements.append(
                Measurement(
                    name="l0",
                    value=float(l0.mean()),
                    unit="active latents",
                    n=len(l0),
                    of="tokens",
                    low=float(l0.quantile(0.05)),
                    high=float(l0.quantile(0.95)),
                    how="5 % and 95 % of tokens",
                )
            )

    def dimensions(self) -> None:
        """View 7: spectrum of the frame operator, capacities."""
        W, n, d = self.W, self.W.n, self.W.d
        self.measurements += [
            measure.interference_energy(W),
            measure.frame_potential(W),
            *measure.effective_dimensions(W),
            measure.capacity_used(W),
        ]
        weights = {"atoms": torch.ones(n, dtype=torch.float64)}
        if self.code is not None:
            weights["activity of data"] = _per_atom(self.code, self.code.values.double().square()) / len(self.code)
        unit = W.atoms.double()
        columns: dict[str, list[Any]] = {"series": [], "rank": [], "share": []}

        def add(series: str, spectrum: Tensor) -> None:
            share = (spectrum.clamp(min=0) / spectrum.sum()).flip(0).tolist()
            columns["series"] += [series] * len(share)
            columns["rank"] += list(range(1, len(share) + 1))
            columns["share"] += share

        for series, weight in weights.items():
            rows = unit * weight.sqrt()[:, None]
            add(series, torch.linalg.eigvalsh(rows.T @ rows))
            if series != "atoms":
                self.measurements += [
                    m.at_site(weighted_by=series) for m in measure.effective_dimensions(W, weights=weight)
                ]
        null = torch.randn(n, d, generator=self.generator(1), dtype=torch.float64)
        null /= null.norm(dim=1, keepdim=True)
        add("random frame", torch.linalg.eigvalsh(null.T @ null))
        self.tables["spectrum"] = columns
        each = measure.capacities(W)
        listed = self._listed()
        self.tables["capacity"] = {
            "atom": self.file.kept[listed].tolist(),
            "capacity": each[listed].tolist(),
        }

    def axes(self) -> None:
        """Axis alignment against random rotations, and how far supports are from isometries."""
        W, n = self.W, self.W.n
        alignment = measure.axis_alignment(W, rotations=self.study.rotations, seed=self.study.seed)
        self.measurements += [alignment.alignment, alignment.aligned]
        columns: dict[str, list[Any]] = {name: [] for name in ("k", "lower", "upper", "typical", "floor")}
        for k in (k for k in (2, 4, 8, 16) if k <= min(n, self.W.d)):
            isometry = measure.isometry(W, k, seed=self.study.seed)
            row = (k, isometry.lower, isometry.upper, isometry.typical, bounds.rip_floor(n, self.W.d, k))
            for name, cell in zip(columns, row, strict=True):
                columns[name].append(cell)
            self.measurements.append(isometry.measurement)
        self.tables["isometry"] = columns

    def interference(self) -> None:
        """View 6: what the read-out of each atom suffers, predicted and measured."""
        series = {"random codes": self.random(self.k, _SYNTHETIC, 2)}
        if self.code is not None:
            series["data"] = self.code
        columns: dict[str, list[Any]] = {
            name: [] for name in ("series", "atom", "predicted_variance", "measured_variance", "signal")
        }
        listed = self._listed()
        for name, code in series.items():
            if not bool((code.values != 0).any()):
                continue
            found = measure.read_out_interference(self.W, code)
            self.measurements += [m.at_site(codes=name) for m in found.measurements]
            columns["series"] += [name] * len(listed)
            columns["atom"] += self.file.kept[listed].tolist()
            for column in ("predicted_variance", "measured_variance", "signal"):
                columns[column] += getattr(found, column)[listed].tolist()
        if self.code is not None and bool((self.code.values != 0).any()):
            density = _per_atom(self.code, (self.code.values != 0).double()) / len(self.code)
            self.measurements.append(measure.weighted_interference_energy(self.W, density.clamp(max=1.0)))
        self.tables["interference"] = columns

    def certificates(self) -> None:
        """View 8: on which supports basis pursuit provably succeeds."""
        predicted = predicted_count(self.W.n, self.W.d, nonnegative=self.nonnegative)
        sizes = grid(predicted, min(self.W.n - 1, self.W.d))
        series: dict[str, list[tuple[int | None, SparseCode]]] = {
            "random": [(k, self.random(k, _CERTIFIED, 3)) for k in sizes]
        }
        if self.code is not None:
            source, generator = data_codes(self.code), self.generator(4)
            series["data"] = []
            for k in data_grid(self.code):
                code = source(k, _CERTIFIED, generator) if k <= self.W.d else None
                if code is not None:
                    series["data"].append((k, code))
            active = (self.code.l0 > 0).nonzero()[:, 0]
            if len(active):
                # Evenly over the text, as it is: each token with all of its active latents.
                step = max(1, len(active) // _CERTIFIED)
                series["data, whole"] = [(None, self.code[active[::step][:_CERTIFIED]])]
        columns: dict[str, list[Any]] = {
            name: [] for name in ("supports", "k", "rows", "certified", "low", "high", "condition", "exact_recovery")
        }
        for name, codes in series.items():
            for k, code in codes:
                certified, condition = recovery.fuchs(self.W, code, nonnegative=self.nonnegative)
                anyhow = self.exact_recovery(code)
                passed, rows = int(certified.sum()), len(code)
                interval = binomtest(passed, rows).proportion_ci(0.95, method="wilson")
                middle = float(condition.median())
                if k is None:
                    mean = round(float(code.l0.double().mean()), 2)
                    self.measurements.append(
                        Measurement(
                            name="certified_codes",
                            value=passed / rows,
                            unit="share of tokens",
                            n=rows,
                            of="tokens",
                            low=float(interval.low),
                            high=float(interval.high),
                            how="95 % Wilson interval; tokens of one document are alike, so it is somewhat too narrow",
                            at={"l0": mean},
                        )
                    )
                    if anyhow is not None:
                        self.measurements.append(
                            Measurement(
                                name="exact_recovery_codes",
                                value=anyhow,
                                unit="share of tokens",
                                n=min(rows, _EXACT),
                                of="tokens",
                                how="no interval: a part of the tokens of certified_codes",
                                at={"l0": mean},
                                caution="stricter than certified_codes: it holds for every sign and for pursuit too",
                            )
                        )
                    continue
                share = passed / rows
                row = (name, k, rows, share, float(interval.low), float(interval.high), _finite(middle), anyhow)
                for column, cell in zip(columns, row, strict=True):
                    columns[column].append(cell)
        self.tables["certificates"] = columns

    def exact_recovery(self, code: SparseCode) -> float | None:
        """Share of the first supports with Tropp's condition; None where the products would take too long."""
        some = code[slice(0, _EXACT)]
        if some.values.shape[1] ** 2 * self.W.n * len(some) > _EXACT_WORK:
            return None
        return float((recovery.exact_recovery_coefficient(self.W, some) < 1).double().mean())

    def amortisation(self) -> None:
        """View 9: the encoder against pursuit on the same atoms, with as many active features."""
        if self.data is not None and self.file.sae is not None:
            rows, code, documents = self.data
            pick = torch.arange(0, len(rows), max(1, len(rows) // _CODED))[:_CODED]
            assert rows.places is not None
            given = Activations(rows.x[pick], places=rows.places[pick])
            coder: SparseCoder = OwnEncoder(self.file)
            # At least one, for an encoder that is silent here has a gap too.
            k = max(1, min(round(float(code[pick].l0.double().mean())), self.W.d, self.W.n - 1))
            own, truth = "own encoder", None
        else:
            k, documents, truth = self.k, None, "the true support"
            code = self.random(k, _CODED, 5)
            given = Activations(self.W.compose(code), code=code)
            coder = recovery.Thresholding(self.W, k=k, nonnegative=self.nonnegative)
            own = "one step, k largest of W^T x"
        found = measure.amortisation_gap(
            coder, [given], k=k, nonnegative=self.nonnegative, documents=documents, seed=self.study.seed
        )
        self.measurements += [m.at_site(encoder=own) for m in found]
        names = {"own": own, "refitted": f"{own}, refitted", "pursuit": "pursuit"}
        if truth:
            overlaps = [found[f"{which}_true_overlap"].value for which in names]
        else:
            # The encoder's own support with itself, by definition, before the two that are measured.
            overlaps = [1.0, found["refitted_overlap"].value, found["support_overlap"].value]
        self.tables["amortisation"] = {
            "coder": list(names.values()),
            "l0": [found[f"{which}_l0"].value for which in names],
            "fraction_variance_unexplained": [found[f"{which}_unexplained"].value for which in names],
            "overlap": overlaps,
            "overlap_with": [truth or "the encoder's support"] * len(names),
            "rows": [len(given)] * len(names),
        }

    def recovery(self) -> Generator[Progress, None, None]:
        """View 5: success curves on this dictionary, with random supports and with those of data."""
        W = self.W
        predicted = predicted_count(W.n, W.d, nonnegative=self.nonnegative)
        ks = grid(predicted, min(W.n - 1, W.d))
        solvers = ["Thresholding", "NNOMP" if self.nonnegative else "OMP"]
        if W.n <= self.study.whole:
            solvers.append("BasisPursuit")
        sources: dict[str, tuple[CodeSource, tuple[int, ...]]] = {
            "random": (random_codes(W.n, "uniform", signed=self.study.signed), ks)
        }
        if self.code is not None:
            sources["data"] = data_codes(self.code), tuple(k for k in data_grid(self.code) if k <= min(W.n - 1, W.d))
        columns: dict[str, list[Any]] = {
            name: [] for name in ("supports", "solver", "k", "trials", "successes", "share", "low", "high", "converged")
        }
        total, done = len(solvers) * len(sources), 0
        for supports, (source, sizes) in sources.items():
            for solver in solvers:
                stage = "Recovering known codes"
                yield Progress(stage, done, total, f"{solver}, {supports} supports")
                rows = list(
                    success_curve(
                        W,
                        solver,
                        sizes,
                        source,
                        trials=self.study.trials,
                        nonnegative=self.nonnegative,
                        generator=self.generator(6),
                    )
                )
                for row in rows:
                    for column in columns:
                        columns[column].append(({"supports": supports} | row)[column])
                threshold = half_point(rows)
                threshold = with_chance(threshold, solver, W, "uniform", nonnegative=self.nonnegative)
                self.measurements.append(threshold.at_site(supports=supports, solver=solver))
                done += 1
        self.tables["recovery"] = columns
        yield Progress("Recovering known codes", total, total)

    def phase(self) -> Generator[Progress, None, None]:
        """View 10: basis pursuit on random parts of the dictionary, from d/n up to nearly 1."""
        W, d = self.W, self.W.d
        names = ("n", "delta", "k", "rho", "trials", "share", "predicted_rho")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        most = min(W.n, self.study.whole)
        sizes: list[int] = []
        if most > d + 1:
            sizes = sorted({round(d / delta) for delta in np.geomspace(d / most, 0.9, 5)} & set(range(d + 1, most + 1)))
        generator = self.generator(7)
        for done, n in enumerate(sizes):
            yield Progress("Phase diagram", done, len(sizes), f"{n} of {W.n} atoms")
            part = Dictionary(W.atoms[torch.randperm(W.n, generator=generator)[:n].sort().values])
            predicted = predicted_count(n, d, nonnegative=self.nonnegative)
            ks = sorted({min(max(1, round(share * predicted)), min(n - 1, d)) for share in _PHASE_SHARES})
            for row in success_curve(
                part,
                "BasisPursuit",
                ks,
                random_codes(n, "uniform", signed=self.study.signed),
                trials=self.study.trials,
                nonnegative=self.nonnegative,
                generator=generator,
            ):
                cells = (n, d / n, row["k"], row["k"] / d, row["trials"], row["share"], predicted / d)
                for name, cell in zip(names, cells, strict=True):
                    columns[name].append(cell)
        self.tables["phase"] = columns
        yield Progress("Phase diagram", len(sizes), max(len(sizes), 1))

    def findings(self) -> list[str]:
        """The main results as sentences."""
        n, d = self.W.n, self.W.d
        mu, near = self.value("coherence"), self.value("atoms_with_a_true_neighbour")
        assert mu is not None
        assert mu.value is not None
        assert near is not None
        found = [
            f"Coherence {mu.value:.3f} (atoms {mu.at['atom']} and {mu.at['other']}): no frame is below "
            f"{mu.reference:.3f}, random ones have {mu.chance:.3f}. {near.value:.0%} of atoms have a neighbour nearer "
            "than chance gives."
        ]
        own, null = self.value("mean_max_cosine"), self.value("mean_max_cosine_same_spectrum")
        if own is not None and null is not None and None not in (own.value, own.chance, null.value):
            found.append(
                f"The nearest atom has |cosine| {own.value:.3f} on average; {own.chance:.3f} in a random frame, "
                f"{null.value:.3f} in a random one that fills the dimensions as unevenly: what is above that is "
                "neighbours, what is between the two is shape."
            )
        ratio = self.value("frame_participation_ratio")
        if ratio is not None and ratio.value is not None and ratio.chance is not None:
            found.append(
                f"The atoms fill {ratio.value:.0f} of {d} dimensions (participation ratio); random ones would fill "
                f"{ratio.chance:.0f}."
            )
        thresholds = [m for m in self.measurements if m.name == "recovery_threshold" and m.value is not None]
        if thresholds:
            said = ", ".join(f"{m.value:.0f} by {m.at['solver']} ({m.at['supports']} supports)" for m in thresholds)
            chance = predicted_count(n, d, nonnegative=self.nonnegative)
            found.append(
                f"Half of all codes are found exactly at k = {said}; theory for random atoms and l1: {chance:.0f}."
            )
        gap = self.value("amortisation_gap")
        if gap is not None and gap.value is not None:
            unexplained = self.tables["amortisation"]["fraction_variance_unexplained"]
            difference = f"{gap.value:.3g}" if gap.low is None else f"{gap.low:.3g} to {gap.high:.3g}"
            found.append(
                f"With the same number of active features, {gap.at['encoder']} leaves {unexplained[0]:.3g} of the "
                f"variance unexplained and pursuit {unexplained[-1]:.3g} (difference {difference})."
            )
        certified = self.value("certified_codes")
        if certified is not None and certified.value is not None:
            found.append(
                f"{certified.value:.0%} of tokens have a code that basis pursuit provably recovers "
                f"(l0 {certified.at['l0']:g})."
            )
        axis = self.value("axis_alignment")
        if axis is not None:
            found.append(f"Axis alignment {axis.value:.3g}; {axis.chance_is}: {axis.chance:.3g}.")
        duplicates = self.value("duplicate_atoms")
        if duplicates is not None and duplicates.value:
            found.append(f"{duplicates.value:.2%} of atoms have a duplicate up to sign and length.")
        return found

    def _listed(self) -> Int[Tensor, "listed"]:
        if self.W.n <= _LISTED:
            return torch.arange(self.W.n)
        return torch.randperm(self.W.n, generator=self.generator(0))[:_LISTED].sort().values


def _random_share(n: int, d: int, level: float) -> float:
    """Share of random atoms whose nearest neighbour is beyond a level."""
    return -math.expm1((n - 1) * math.log1p(-math.exp(bounds.cap_fraction(d, level))))


def _per_atom(code: SparseCode, weights: Float[Tensor, "rows k"]) -> Float[Tensor, "n"]:
    """Sum of weights over rows, for each atom."""
    return torch.zeros(code.n, dtype=torch.float64).index_add_(0, code.indices.reshape(-1), weights.reshape(-1))


def _columns(table: Table) -> dict[str, list[Any]]:
    return {name: list(cells) for name, cells in table.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
