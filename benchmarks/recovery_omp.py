"""Orthogonal matching pursuit in rows per CPU second, beside scikit-learn and SPAMS, interleaved, with quality.

    python benchmarks/recovery_omp.py                       # d = 256, n = 1024, k = 10
    python benchmarks/recovery_omp.py --d 768 --n 24576 --k 32 --rows 400 --peer-rows 4

Claims: at 256 x 1024 x 10 at least 12 times scikit-learn (torch), 40 times and 1.5 times SPAMS with `superscope[fast]`;
at 768 x 24 576 x 32 at least 200 times scikit-learn and 2 times SPAMS. Peers are the extra [bench]; SPAMS (`spams-bin`)
is under the GPL and is only ever compared with. All run single-threaded in float32; building the Gram matrix is outside
the clock for us and for scikit-learn, inside for SPAMS, which has no call
without it; at large n a last line says what a further row costs SPAMS. Look at the quality beside each rate: in some
processes this build of SPAMS returns wrong codes, faster, which counts for nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import time

import numpy as np
import torch
from results import report
from timing import Contest

from superscope.core import Dictionary, SparseCode
from superscope.recovery import NNOMP, OMP, MatchingPursuit


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-file", action="store_true", help="print only; else append to recovery_results.md")
    options = parser.parse_args()
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
    for name, coder in {
        "superscope OMP (torch)": OMP(W, k=options.k, gram=True, engine="torch"),
        "superscope NNOMP (torch)": NNOMP(W, k=options.k),
        "superscope MP (torch)": MatchingPursuit(W, k=options.k, gram=True),
    }.items():
        contest.add(name, options.rows, lambda c=coder: c.encode(x), lambda code: recovered(code.support))
    if importlib.util.find_spec("numba"):
        fast = OMP(W, k=options.k, gram=True, engine="numba")
        contest.add(
            "superscope OMP (numba)", options.rows, lambda: fast.encode(x), lambda code: recovered(code.support)
        )
    if importlib.util.find_spec("sklearn"):
        from sklearn.linear_model import orthogonal_mp_gram

        few = x[: options.peer_rows]
        gram, products = (W.atoms @ W.W).numpy(), (few @ W.W).T.numpy().copy()
        norms = few.square().sum(1).numpy()
        contest.add(
            "scikit-learn",
            len(few),
            lambda: orthogonal_mp_gram(gram, products, n_nonzero_coefs=options.k, norms_squared=norms),
            lambda f: recovered(torch.from_numpy(f.T != 0)),
        )
    if importlib.util.find_spec("spams"):
        import spams

        columns, atoms = np.array(x.T.numpy(), order="F"), np.array(W.W.numpy(), order="F")
        contest.add(
            "SPAMS",
            options.rows,
            lambda: spams.omp(columns, atoms, L=options.k, numThreads=1),
            lambda f: recovered(torch.from_numpy(f.toarray().T != 0)),
        )
    title = (
        f"OMP, d = {options.d}, n = {options.n}, k = {options.k}, seed {options.seed}; quality: share of exact supports"
    )
    lines = [title, contest.run().table(against=("scikit-learn", "SPAMS"))]
    if importlib.util.find_spec("spams") and options.n > 8192:
        # Each call of SPAMS builds the Gram matrix anew; what a further row costs is the fairer figure.
        spent = []
        for times in (1, 4):
            many = np.asfortranarray(np.tile(columns, times))
            start = time.process_time()
            spams.omp(many, atoms, L=options.k, numThreads=1)
            spent.append(time.process_time() - start)
        rate = 3 * options.rows / (spent[1] - spent[0])
        fast_rate = contest.rate("superscope OMP (numba)") if importlib.util.find_spec("numba") else float("nan")
        lines.append(
            f"SPAMS without its Gram matrix: {rate:.1f} rows/s; superscope (numba) {fast_rate / rate:.2f} times"
        )
    report("\n".join(lines), None if options.no_file else "recovery_results.md")


if __name__ == "__main__":
    main()
