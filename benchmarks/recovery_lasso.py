"""The lasso in rows per CPU second, beside scikit-learn, skglm, celer and SPAMS, interleaved, with the objective.

    python benchmarks/recovery_lasso.py                     # d = 256, n = 1024, 10 nonzeros
    python benchmarks/recovery_lasso.py --d 768 --n 24576 --k 32 --rows 200 --peer-rows 2 --only numba scikit
    python benchmarks/recovery_lasso.py --d 768 --n 24576 --k 32 --rows 200 --peer-rows 2 --only numba SPAMS

Claims, at an objective within 1e-3 of the optimum: at least 10 times the best of scikit-learn, skglm and celer in
batch, and at least SPAMS at 768 x 24 576. Quality is the mean objective over the optimum, less one; the optimum is ours
in float64 at a tolerance of 1e-9, which the tests check against scikit-learn. Single-threaded, float32. Building the
Gram matrix is outside the clock for us, inside for SPAMS, which has no call without it; at large n a last line says
what a further row costs SPAMS. scikit-learn, skglm and celer take one row at a time (above n = 8192 LARS without a Gram
matrix, which it would build for every call), so a few rows give their rates. Peers are the extra [bench]; SPAMS
(`spams-bin`) is under the GPL and is only ever compared with.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from typing import Any

import numpy as np
import torch
from results import available, claim, report
from timing import Contest

from superscope.core import Dictionary, SparseCode
from superscope.recovery import FISTA, CoordinateDescent, lasso_objective

PACKAGES = {"numba": "numba", "sklearn": "scikit-learn", "skglm": "skglm", "celer": "celer", "spams": "spams-bin"}
"""The distribution of each module."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--penalty", type=float, default=0.05)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--peer-rows", type=int, default=100, help="rows for the peers that solve one at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="PART", help="contestants whose names contain one of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="fewer rounds; printed only")
    parser.add_argument("--no-file", action="store_true", help="print only; else append to recovery_results.md")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.no_file = 3, True
    # A peer that says it stopped early is judged by its objective like everyone.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    W = Dictionary(torch.randn(options.n, options.d, generator=generator)).unit()
    indices = torch.rand(options.rows, options.n, generator=generator).topk(options.k, dim=1).indices
    x = W.compose(SparseCode(torch.rand(options.rows, options.k, generator=generator) + 0.5, indices, options.n))
    wide = W.to(torch.float64)
    exact = CoordinateDescent(wide, penalty=options.penalty, tolerance=1e-9, engine="torch").encode(x.double())
    best = lasso_objective(wide, x.double(), exact.dense(), options.penalty)

    def excess(f: torch.Tensor) -> float:
        rows = len(f)
        found = lasso_objective(wide, x[:rows].double(), f.double(), options.penalty)
        return float(found.mean() / best[:rows].mean() - 1)

    def ours(code: SparseCode) -> float:
        return excess(code.dense())

    def theirs(f: np.ndarray) -> float:
        return excess(torch.from_numpy(np.ascontiguousarray(f)))

    contest = Contest(options.rounds)

    def wanted(name: str, module: str = "torch") -> bool:
        chosen = options.only is None or any(part in name for part in options.only)
        return chosen and (module == "torch" or available(name, module, PACKAGES[module]))

    for engine in ("torch", "numba"):
        if wanted(f"superscope CD ({engine})", engine):
            descent = CoordinateDescent(W, options.penalty, tolerance=1e-3, gram=True, engine=engine)
            contest.add(f"superscope CD ({engine})", options.rows, lambda c=descent: c.encode(x), ours)
    if wanted("superscope FISTA (torch)"):
        some = x[: options.peer_rows * 4]
        fista = FISTA(W, options.penalty, tolerance=1e-3)
        contest.add("superscope FISTA (torch)", len(some), lambda: fista.encode(some), ours)
    few = x[: options.peer_rows].numpy()
    matrix = np.array(W.W.numpy(), order="F")
    alpha = options.penalty / options.d

    def one_by_one(name: str, model: Any) -> None:
        contest.add(name, len(few), lambda: np.stack([np.array(model.fit(matrix, row).coef_) for row in few]), theirs)

    if wanted("scikit-learn lasso_lars", "sklearn"):
        from sklearn.decomposition import sparse_encode
        from sklearn.linear_model import LassoLars

        if options.n > 8192:
            # Its stub knows only the words.
            lars = LassoLars(alpha=alpha, fit_intercept=False, precompute=False)  # pyright: ignore[reportArgumentType]
            one_by_one("scikit-learn lasso_lars", lars)
        else:
            atoms = W.atoms.numpy()
            contest.add(
                "scikit-learn lasso_lars",
                len(few),
                lambda: sparse_encode(few, atoms, algorithm="lasso_lars", alpha=options.penalty),
                theirs,
            )
    for name, module in {
        "scikit-learn Lasso": "sklearn.linear_model",
        "skglm": "skglm",
        "celer": "celer",
    }.items():
        if wanted(name, module.partition(".")[0]):
            one_by_one(name, importlib.import_module(module).Lasso(alpha=alpha, fit_intercept=False, tol=1e-4))
    if wanted("SPAMS lasso (LARS)", "spams"):
        import spams

        columns = np.array(x.T.numpy(), order="F")
        contest.add(
            "SPAMS lasso (LARS)",
            options.rows,
            lambda: spams.lasso(columns, matrix, lambda1=options.penalty, mode=2, numThreads=1),
            lambda f: theirs(f.toarray().T),
        )
    title = (
        f"lasso, d = {options.d}, n = {options.n}, {options.k} nonzeros, penalty {options.penalty}, "
        f"seed {options.seed}; "
        "quality: mean objective above the optimum, relative"
    )
    peers = ("scikit-learn lasso_lars", "scikit-learn Lasso", "skglm", "celer", "SPAMS lasso (LARS)")
    lines = [title, contest.run().table(against=peers)]
    if wanted("SPAMS lasso (LARS)", "spams") and options.n > 8192:
        # Each call of SPAMS builds the Gram matrix anew; what a further row costs is the fairer figure.
        spent = []
        for times in (1, 8):
            many = np.asfortranarray(np.tile(columns, times))
            start = time.process_time()
            spams.lasso(many, matrix, lambda1=options.penalty, mode=2, numThreads=1)
            spent.append(time.process_time() - start)
        rate = 7 * options.rows / (spent[1] - spent[0])
        line = f"SPAMS without its Gram matrix: {rate:.1f} rows/s"
        if wanted("superscope CD (numba)", "numba"):
            line += f"; superscope CD (numba) {contest.rate('superscope CD (numba)') / rate:.2f} times"
        lines.append(line)
    mine = "superscope CD (numba)"
    for peer in peers:
        if {mine, peer} <= set(contest.names):
            module = "spams" if peer.startswith("SPAMS") else "sklearn" if peer.startswith("scikit") else peer
            reached = f"objective {contest.quality(mine):.0e} and {contest.quality(peer):.0e} above the optimum"
            what = f"the lasso, {options.d} x {options.n}, {options.k} nonzeros"
            claim(what, peer, contest.ratio(mine, peer), reached, PACKAGES[module])
    report("\n".join(lines), None if options.no_file else "recovery_results.md")


if __name__ == "__main__":
    main()
