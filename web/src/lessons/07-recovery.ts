import { dot, Random, unit } from "../toy/random";
import type { Lesson } from "./lesson";

const phi = (z: number) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
/** Upper tail of the normal law, to about 1e-13: a continued fraction far out, a series near 0. */
export function tail(z: number): number {
  if (z < 0) return 1 - tail(-z);
  if (z > 3) {
    let fraction = z;
    for (let k = 60; k > 0; k--) fraction = z + k / fraction;
    return phi(z) / fraction;
  }
  let [term, sum] = [z, z];
  for (let k = 1; k < 80; k++) {
    term *= (z * z) / (2 * k + 1);
    sum += term;
  }
  return 0.5 - phi(z) * sum;
}

/** Measurements per atom that l1 needs for a share of active ones: superscope.theory.statistical_dimension. */
export function needed(share: number): number {
  const cost = (t: number) => share * (1 + t * t) + (1 - share) * 2 * ((1 + t * t) * tail(t) - t * phi(t));
  let [low, high] = [0, 12];
  for (let i = 0; i < 100; i++) {
    const [a, b] = [low + (high - low) / 3, high - (high - low) / 3];
    if (cost(a) < cost(b)) high = b;
    else low = a;
  }
  return cost((low + high) / 2);
}

/** The Donoho-Tanner weak threshold as a count: superscope.theory.weak_count. */
export function weakCount(n: number, d: number): number {
  let [low, high] = [0, d / n];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (needed(middle) < d / n) low = middle;
    else high = middle;
  }
  return ((low + high) / 2) * n;
}

/** Orthogonal matching pursuit: the support of k atoms that explains x, grown one by one. */
function pursuit(atoms: number[][], x: number[], k: number): number[] {
  const chosen: number[] = [];
  const basis: number[][] = [];
  let rest = [...x];
  for (let step = 0; step < k; step++) {
    let [best, most] = [-1, -1];
    atoms.forEach((atom, i) => {
      const score = Math.abs(dot(atom, rest));
      if (score > most && !chosen.includes(i)) [best, most] = [i, score];
    });
    chosen.push(best);
    let fresh = [...atoms[best]!];
    for (const b of basis) {
      const part = dot(b, fresh);
      fresh = fresh.map((v, j) => v - part * b[j]!);
    }
    fresh = unit(fresh);
    basis.push(fresh);
    const part = dot(fresh, rest);
    rest = rest.map((v, j) => v - part * fresh[j]!);
  }
  return chosen;
}

export const lesson: Lesson = {
  id: "recovery",
  order: 7,
  title: "Compressed sensing: reading it back",
  text: [
    "x = W f has fewer equations than unknowns, and yet f can be found again if it is **sparse**: among all f that give x, take the one with the fewest active features. Trying all of them would take for ever; the f with the smallest sum of sizes (**l1**) can be computed, and is most often the same one. That is compressed sensing, and superposition is its mirror image in a network.",
    "How many active features are too many? **Donoho and Tanner**: for random directions there is a sharp line. Below it nearly every f comes back exactly, above it nearly none, and where it lies depends on d/n and k/d alone.",
    "Here a greedy reader, orthogonal matching pursuit, tries codes on random directions before your eyes.",
  ],
  controls: [
    { name: "n", label: "features n", min: 20, max: 120, step: 10, value: 60 },
    { name: "d", label: "dimensions d", min: 8, max: 40, step: 2, value: 24 },
  ],
  starts: true,
  *run({ n = 60, d = 24 }) {
    const size = Math.min(d, n - 2);
    const random = new Random(5);
    const atoms = Array.from({ length: n }, () => random.direction(size));
    const dt = weakCount(n, size);
    const points: [number, number][] = [];
    const trials = 40;
    const most = Math.min(size - 1, Math.ceil(dt * 1.7));
    for (let k = 1; k <= most; k++) {
      let found = 0;
      for (let t = 0; t < trials; t++) {
        const support = new Set<number>();
        while (support.size < k) support.add(Math.floor(random.uniform() * n));
        const x = new Array<number>(size).fill(0);
        for (const i of support) {
          const value = 0.5 + random.uniform();
          atoms[i]!.forEach((v, j) => (x[j]! += value * v));
        }
        if (pursuit(atoms, x, k).every((i) => support.has(i))) found++;
      }
      points.push([k, found / trials]);
      yield {
        says: `k = ${k}: ${found} of ${trials} codes came back exactly. The line of Donoho and Tanner for n = ${n}, d = ${size} is at k = ${dt.toFixed(1)}.`,
        values: { weak: dt, share: found / trials },
        plot: {
          title: "Codes that come back exactly",
          x: "active features k",
          y: "share found",
          series: [{ name: "orthogonal matching pursuit, here", points: [...points] }],
          at: [{ at: dt, label: `Donoho-Tanner, l1 (${dt.toFixed(1)})`, kind: "bound" }],
          levels: [{ at: 0, label: "" }, { at: 1, label: "" }],
        },
        share: k / most,
      };
    }
  },
  questions: [
    {
      ask: "n = 60 features in d = 24 dimensions. Up to how many active features, about, does l1 find nearly every code (Donoho and Tanner’s line, one decimal)?",
      answer: weakCount(60, 24),
      within: 0.1,
      because: "About a third of d. Neither d (linear algebra without sparsity) nor the one or two that coherence guarantees for every code.",
    },
  ],
  python: "ss.theory.weak_count(60, 24)\nW = ss.frames.random_unit(n=60, d=24, seed=0)\nss.recovery.OMP(W, k=4).solve(x)",
};
