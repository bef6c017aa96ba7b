import { dot, Random, unit } from "../toy/random";
import type { Lesson } from "./lesson";

/** The most lines with |cosine| <= eps that the Welch (Rankin, Levenshtein of order 1) bound allows; for eps^2 d < 1. */
export const welchCount = (d: number, eps: number) => Math.floor((d * (1 - eps * eps)) / (1 - d * eps * eps) + 1e-9);

export const lesson: Lesson = {
  id: "packing",
  order: 8,
  title: "How many directions are there?",
  text: [
    "“In d dimensions there are exponentially many almost orthogonal directions.” How many exactly, at cosine at most 0.1? The honest answer at real sizes is a bracket (somebody has built as many as its lower end, and no arrangement can have more than its upper end), and for small d it is sobering: in 10 dimensions **11**, a simplex, and no more. In 64 dimensions between 65 and 176; in 256 at least 33 024; in 768, the width of a small language model, at least 295 680 and at most about 10¹¹.",
    "The famous argument (directions drawn at random, or greedily until the sphere is covered) promises fewer than a plain basis until d reaches 1 096. What does better are **constructions**: Kerdock and Delsarte-Goethals sets, which coding theory found.",
    "Below, directions are drawn at random and pushed apart until all cosines are below the line; one more is asked for as long as that succeeds. Watch how hard it is to beat a basis.",
  ],
  controls: [
    { name: "d", label: "dimensions d", min: 2, max: 24, step: 1, value: 6 },
    { name: "eps", label: "largest |cosine|", min: 0.1, max: 0.6, step: 0.05, value: 0.35 },
  ],
  starts: true,
  *run({ d = 6, eps = 0.35 }) {
    const random = new Random(2);
    let kept: number[][] = [];
    const points: [number, number][] = [];
    const bound = eps * eps * d < 1 ? welchCount(d, eps) : Infinity;
    const worst = (atoms: number[][]) => {
      let most = 0;
      for (let i = 0; i < atoms.length; i++) for (let j = 0; j < i; j++) most = Math.max(most, Math.abs(dot(atoms[i]!, atoms[j]!)));
      return most;
    };
    const started = { steps: 0 };
    for (let count = d; count <= Math.min(bound, 4 * d + 8) && started.steps < 60_000; count++) {
      // Begin from an orthonormal basis, and from then on from what fitted so far.
      let atoms = kept.length ? [...kept, random.direction(d)] : Array.from({ length: d }, (_, i) => Array.from({ length: d }, (__, j) => (i === j ? 1 : 0)));
      let reached = worst(atoms);
      let tries = 0;
      for (; reached > eps + 1e-9 && tries < 3000; tries++) {
        // Every pair that is too close is pushed apart, a little beyond the line.
        const push = atoms.map((a) => [...a]);
        for (let i = 0; i < atoms.length; i++) {
          for (let j = 0; j < i; j++) {
            const c = dot(atoms[i]!, atoms[j]!);
            const over = Math.abs(c) - (eps - 0.002);
            if (over <= 0) continue;
            const by = 0.5 * Math.sign(c) * over;
            for (let k = 0; k < d; k++) {
              push[i]![k]! -= by * atoms[j]![k]!;
              push[j]![k]! -= by * atoms[i]![k]!;
            }
          }
        }
        atoms = push.map(unit);
        if (tries % 1000 === 999) atoms = atoms.map((a) => unit(a.map((v) => v + 0.2 * random.normal())));
        reached = worst(atoms);
      }
      started.steps += tries * (count / d);
      points.push([count, reached]);
      const fits = reached <= eps + 1e-9;
      if (fits) kept = atoms;
      yield {
        says: `${kept.length} directions in ${d} dimensions have all |cosines| at most ${eps.toFixed(2)}${fits ? "" : `; ${count} did not fit here (${reached.toFixed(3)})`}. ${Number.isFinite(bound) ? `No more than ${bound} can exist (Welch).` : "Here ε² d is 1 or more, so Welch’s bound says nothing."}`,
        values: { packed: kept.length, bound: Number.isFinite(bound) ? bound : -1, worst: worst(kept) },
        ...(d <= 3 ? { arrows: kept } : {}),
        plot: {
          title: "Largest cosine that pushing reaches",
          x: "number of directions",
          y: "largest |cosine|",
          series: [{ name: "reached here", points: [...points], dots: true }],
          levels: [{ at: eps, label: "allowed", kind: "chance", quiet: true }],
          at: Number.isFinite(bound) ? [{ at: bound, label: `Welch: at most ${bound}`, kind: "bound" }] : [],
        },
        ...(d > 3 && kept.length <= 40 ? { grid: { title: "Cosines of the directions that fit", matrix: kept.map((a) => kept.map((b) => dot(a, b))), limit: 1 } } : {}),
      };
      if (!fits) break;
    }
  },
  questions: [
    {
      ask: "How many directions with |cosine| at most 0.1 are there at most in 10 dimensions?",
      answer: welchCount(10, 0.1),
      within: 0,
      because: "11: the simplex, whose cosines are exactly 1/10. The Welch bound d(1 − ε²)/(1 − d ε²) = 10 · 0.99 / 0.9 allows no twelfth.",
    },
    {
      ask: "And in 64 dimensions: how many does Welch’s bound, d(1 − ε²)/(1 − d ε²), allow at most?",
      answer: welchCount(64, 0.1),
      within: 0,
      because: "64 · 0.99 / (1 − 0.64) = 176. Only 65 are known from a simple construction: the truth is between.",
    },
  ],
  python: "ss.theory.direction_count(d=10, eps=0.1)        # a bracket: lower, upper, and by whom\nss.theory.direction_count(d=768, eps=0.1)\nss.frames.packed(12, 6)",
};
