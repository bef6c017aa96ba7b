"""Orthogonal matching pursuit in rows per CPU second, beside scikit-learn and SPAMS, interleaved, with quality.

    python benchmarks/recovery_omp.py                       # d = 256, n = 1024, k = 10
    python benchmarks/recovery_omp.py --d 768 --n 24576 --k 32 --rows 400 --peer-rows 2 --only numba scikit
    python benchmarks/recovery_omp.py --d 768 --n 24576 --k 32 --rows 400 --only numba SPAMS

Claims: at 256 x 1024 x 10 at least 12 times scikit-learn (torch), 40 times and 1.5 times SPAMS with `superscope[fast]`;
at 768 x 24 576 x 32 at least 200 times scikit-learn and 2 times SPAMS. Peers are the extra [bench]; SPAMS (`spams-bin`)
is under the GPL and is only ever compared with. All run single-threaded in float32. scikit-learn works one row after
the other, so a few rows give its rate. Building the Gram matrix is outside the clock for us and for scikit-learn,
inside for SPAMS, which has no call without it; at large n a last line says what a further row costs SPAMS.

SPAMS is told its error bound and penalty, 0, in so many words: where they are left out, its wrapper reads them from
numbers that have gone out of scope, and with what happens to lie there it may stop before the first atom, all codes
zero, at twice the rate.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from results import available, claim, report
from timing import Contest

from superscope.core import Dictionary, SparseCode
from superscope.recovery import NNOMP, OMP, MatchingPursuit

PACKAGES = {"numba": "numba", "sklearn": "scikit-learn", "skglm": "skglm", "celer": "celer", "spams": "spams-bin"}
"""The distribution of each module."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument(
        "--peer-rows", type=int, default=400, help="rows for scikit-learn, whose cost per row is constant"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="PART", help="contestants whose names contain one of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="fewer rounds; printed only")
    parser.add_argument("--no-file", action="store_true", help="print only; else append to recovery_results.md")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.no_file = 3, True
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    W = Dictionary(torch.randn(options.n, options.d, generator=generator)).unit()
    indices = torch.rand(options.rows, options.n, generator=generator).topk(options.k, dim=1).indices
    truth = SparseCode(torch.rand(options.rows, options.k, generator=generator) + 0.5, indices, options.n)
    x = W.compose(truth)
    support = truth.support

    def recovered(found: torch.Tensor) -> float:
        return float((found == support[: len(found)]).all(1).double().mean())

    contest = Contest(options.rounds)

    def wanted(name: str, module: str = "torch") -> bool:
        chosen = options.only is None or any(part in name for part in options.only)
        return chosen and (module == "torch" or available(name, module, PACKAGES[module]))

    for name, make in {
        "superscope OMP (torch)": lambda: OMP(W, k=options.k, gram=True, engine="torch"),
        "superscope OMP, no Gram": lambda: OMP(W, k=options.k, gram=False),
        "superscope NNOMP (torch)": lambda: NNOMP(W, k=options.k),
        "superscope MP (torch)": lambda: MatchingPursuit(W, k=options.k, gram=True),
    }.items():
        if wanted(name):
            coder = make()
            contest.add(name, options.rows, lambda c=coder: c.encode(x), lambda code: recovered(code.support))
    if wanted("superscope OMP (numba)", "numba"):
        fast = OMP(W, k=options.k, gram=True, engine="numba")
        contest.add(
            "superscope OMP (numba)", options.rows, lambda: fast.encode(x), lambda code: recovered(code.support)
        )
    few = x[: options.peer_rows]
    if wanted("scikit-learn, Gram", "sklearn"):
        from sklearn.linear_model import orthogonal_mp_gram

        gram, products = (W.atoms @ W.W).numpy(), (few @ W.W).T.numpy().copy()
        norms = few.square().sum(1).numpy()
        contest.add(
            "scikit-learn, Gram",
            len(few),
            lambda: orthogonal_mp_gram(gram, products, n_nonzero_coefs=options.k, norms_squared=norms),
            lambda f: recovered(torch.from_numpy(f.T != 0)),
        )
    if wanted("scikit-learn, no Gram", "sklearn"):
        from sklearn.linear_model import orthogonal_mp

        matrix, targets = np.array(W.W.numpy(), order="F"), np.array(few.T.numpy(), order="F")
        contest.add(
            "scikit-learn, no Gram",
            len(few),
            lambda: orthogonal_mp(matrix, targets, n_nonzero_coefs=options.k, precompute=False),
            lambda f: recovered(torch.from_numpy(f.reshape(options.n, -1).T != 0)),
        )
    if wanted("SPAMS", "spams"):
        import spams

        columns, atoms = np.array(x.T.numpy(), order="F"), np.array(W.W.numpy(), order="F")
        contest.add(
            "SPAMS",
            options.rows,
            lambda: spams.omp(columns, atoms, L=options.k, eps=0.0, lambda1=0.0, numThreads=1),
            lambda f: recovered(torch.from_numpy(f.toarray().T != 0)),
        )
    title = (
        f"OMP, d = {options.d}, n = {options.n}, k = {options.k}, seed {options.seed}; quality: share of exact supports"
    )
    lines = [title, contest.run().table(against=("scikit-learn, Gram", "scikit-learn, no Gram", "SPAMS"))]
    if wanted("SPAMS", "spams") and options.n > 8192:
        # Each call of SPAMS builds the Gram matrix anew; what a further row costs is the fairer figure.
        spent = []
        for times in (1, 8):
            many = np.asfortranarray(np.tile(columns, times))
            start = time.process_time()
            spams.omp(many, atoms, L=options.k, eps=0.0, lambda1=0.0, numThreads=1)
            spent.append(time.process_time() - start)
        rate = 7 * options.rows / (spent[1] - spent[0])
        line = f"SPAMS without its Gram matrix: {rate:.1f} rows/s"
        if wanted("superscope OMP (numba)", "numba"):
            line += f"; superscope OMP (numba) {contest.rate('superscope OMP (numba)') / rate:.2f} times"
        lines.append(line)
    mine = "superscope OMP (numba)"
    for peer, module in {"scikit-learn, Gram": "sklearn", "scikit-learn, no Gram": "sklearn", "SPAMS": "spams"}.items():
        if {mine, peer} <= set(contest.names):
            reached = f"exact supports {contest.quality(mine):.1%} and {contest.quality(peer):.1%}"
            what = f"orthogonal matching pursuit, {options.d} x {options.n}, {options.k} active"
            claim(what, peer, contest.ratio(mine, peer), reached, PACKAGES[module])
    report("\n".join(lines), None if options.no_file else "recovery_results.md")


if __name__ == "__main__":
    main()
