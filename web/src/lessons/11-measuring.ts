import { dot, Random } from "../toy/random";
import type { Lesson } from "./lesson";

/** No n unit vectors in R^d have a smaller largest |cosine|: superscope.theory.welch. */
export const welch = (n: number, d: number) => (n > d ? Math.sqrt((n - d) / (d * (n - 1))) : 0);

export const lesson: Lesson = {
  id: "measuring",
  order: 11,
  title: "Measuring, beside chance",
  text: [
    "“Its nearest neighbour has cosine 0.6” sounds like structure. It is structure only if **random** directions, as many in as few dimensions, do not have the same. A number about superposition without its chance level says nothing.",
    "Two yardsticks: the **Welch bound**, the least coherence that any n directions in d dimensions can have, and a **random frame**, what comes for free. Here both stand beside directions drawn now.",
  ],
  controls: [
    { name: "n", label: "directions n", min: 4, max: 120, step: 2, value: 40 },
    { name: "d", label: "dimensions d", min: 2, max: 40, step: 1, value: 10 },
    { name: "seed", label: "draw", min: 0, max: 20, step: 1, value: 0 },
  ],
  *run({ n = 40, d = 10, seed = 0 }) {
    const random = new Random(seed);
    const atoms = Array.from({ length: n }, () => random.direction(d));
    const nearest = atoms.map((a, i) => Math.max(...atoms.map((b, j) => (i === j ? 0 : Math.abs(dot(a, b))))));
    const sorted = [...nearest].sort((a, b) => a - b);
    const [mean, most] = [nearest.reduce((a, b) => a + b, 0) / n, sorted[n - 1]!];
    yield {
      says: `${n} random directions in ${d} dimensions: the nearest other has |cosine| ${mean.toFixed(3)} on average and ${most.toFixed(3)} at most. No arrangement is below ${welch(n, d).toFixed(3)}.`,
      values: { welch: welch(n, d), coherence: most, nearest: mean },
      plot: {
        title: "The nearest neighbour of each random direction, in order",
        x: "share of directions",
        y: "|cosine| with the nearest",
        series: [{ name: "random", points: sorted.map((v, i) => [(i + 1) / n, v]), dots: true }],
        levels: [
          { at: welch(n, d), label: "Welch bound", kind: "bound", quiet: true },
          { at: 1 / Math.sqrt(d), label: "", kind: "chance", quiet: true },
          { at: mean, label: "mean", kind: "chance", quiet: true },
        ],
      },
    };
  },
  questions: [
    { ask: "What is the Welch bound for 20 directions in 8 dimensions?", answer: welch(20, 8), because: "√((n − d) / (d (n − 1))) = √(12 / 152) = 0.281." },
    {
      ask: "The atoms of a dictionary have a mean nearest cosine of 0.35. Is that much?",
      options: ["Yes", "No", "It cannot be said before one knows what random directions of that n and d have"],
      answer: 2,
      because: "40 directions in 10 dimensions have about 0.7 by chance; in 768 dimensions chance is near 0.1.",
    },
  ],
  python: "ss.theory.welch(20, 8)\nss.theory.random_nearest(40, 10)\nss.measure.mean_max_cosine(W)          # with its chance level",
};
