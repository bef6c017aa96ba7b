import { Random, dot } from "../toy/random";
import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "steering",
  order: 12,
  title: "Steering, and what it moves besides",
  text: [
    "If a feature is a direction, one can add its direction w to what the network holds: x + α w. α is the dose. The read-out of that feature rises by α. But so does, by **α times cosine**, the read-out of every feature that overlaps it. In superposition there is no push that touches one feature alone, unless directions are chosen against all the others at once, and then the push is longer.",
    "And any large vector changes something. So a steering experiment needs a **control**: random directions of the same length. Where 19 of 20 of them stay is the control band; what a feature does beyond it is the feature’s own.",
  ],
  controls: [
    { name: "alpha", label: "dose α", min: -3, max: 3, step: 0.1, value: 2 },
    { name: "n", label: "features", min: 4, max: 60, step: 2, value: 24 },
    { name: "d", label: "dimensions", min: 4, max: 32, step: 2, value: 12 },
  ],
  *run({ alpha = 2, n = 24, d = 12 }) {
    const random = new Random(4);
    const atoms = Array.from({ length: n }, () => random.direction(d));
    const moved = atoms.map((a) => alpha * dot(a, atoms[0]!));
    const side = Math.sqrt(moved.slice(1).reduce((sum, v) => sum + v * v, 0) / (n - 1));
    const control = Array.from({ length: 200 }, () => dot(atoms[0]!, random.direction(d)) * alpha);
    const band = 2 * Math.sqrt(control.reduce((sum, v) => sum + v * v, 0) / 200);
    yield {
      says: `Feature 0 moves by ${moved[0]!.toFixed(2)}, the other ${n - 1} by ${side.toFixed(2)} (root mean square; ${(Math.abs(alpha) / Math.sqrt(d)).toFixed(2)} = |α|/√d is expected of random directions).`,
      values: { target: moved[0]!, side, expected: Math.abs(alpha) / Math.sqrt(d) },
      plot: {
        title: "What a push along feature 0 does to every read-out",
        x: "feature",
        y: "change of the read-out",
        series: [{ name: "change", points: moved.map((v, i) => [i, v]), dots: true }],
        levels: [
          { at: band, label: "control band", kind: "chance", quiet: true },
          { at: -band, label: "", kind: "chance", quiet: true },
        ],
      },
    };
  },
  questions: [
    { ask: "Two features have cosine 0.3. One pushes the first by α = 2. By how much does the read-out of the second change?", answer: 0.6, because: "α times cosine: 2 · 0.3 = 0.6." },
    {
      ask: "A steering vector changes a model’s text a lot. What must be shown before it counts as a feature’s effect?",
      options: ["That it works on three prompts", "That random directions of the same length do not do the same", "That the vector is long"],
      answer: 1,
      because: "Any large vector changes text. The effect must leave the band of random directions, at equal norm.",
    },
  ],
  python: "W = ss.frames.random_unit(n=24, d=12, seed=0)\n2.0 * (W.atoms @ W.atoms[0])",
};
