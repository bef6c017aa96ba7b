import { number } from "../data/format";
import { Random } from "../toy/random";
import type { Lesson } from "./lesson";

/** Mean square of c f with f uniform on [0, 1] with probability p: see superscope.theory.pair_interference. */
const square = (c: number, p: number) => (c * c * p) / 3;

export const lesson: Lesson = {
  id: "interference",
  order: 4,
  title: "Interference, and how sparsity tames it",
  text: [
    "Two features share one dimension; their cosine is c (−1 if they point opposite ways). Each is active with probability p = 1 − S, where S is the sparsity, and then uniform on [0, 1]. The read-out of the first picks up c times the second.",
    "The mean square of what it picks up is **c² p / 3 = c² (1 − S) / 3**. It falls in a straight line with sparsity: sparsity makes interference **rarer**, not smaller when it happens.",
    "A ReLU does better for opposite features. While only one is active its twin’s read-out is negative and cut to nothing, so harm needs both at once, which is rarer by another factor 1 − S.",
  ],
  controls: [
    { name: "S", label: "sparsity S", min: 0, max: 0.99, step: 0.01, value: 0.9 },
    { name: "c", label: "cosine of the two directions", min: -1, max: 1, step: 0.05, value: -1 },
  ],
  *run({ S = 0.9, c = -1 }) {
    const p = 1 - S;
    const random = new Random(1);
    const draws = 40_000;
    let [sum, both] = [0, 0];
    for (let i = 0; i < draws; i++) {
      const first = random.uniform() < p ? random.uniform() : 0;
      const second = random.uniform() < p ? random.uniform() : 0;
      sum += (c * second) ** 2;
      // What a ReLU reader of the first gets wrong.
      both += (Math.max(first + c * second, 0) - first) ** 2;
    }
    const line = Array.from({ length: 50 }, (_, i): [number, number] => [i / 50, square(c, 1 - i / 50)]);
    yield {
      says: `Expected interference c²(1 − S)/3 = ${square(c, p).toFixed(4)}; ${number(draws)} draws give ${(sum / draws).toFixed(4)}. Behind a ReLU the same draws give ${(both / draws).toFixed(4)}.`,
      values: { expected: square(c, p), measured: sum / draws, relu: both / draws },
      plot: {
        title: "Expected interference falls in a line with sparsity",
        x: "sparsity S = P(feature is 0)",
        y: "mean square of interference",
        series: [
          { name: "c² (1 − S) / 3", points: line, kind: "theory" },
          { name: "drawn here, linear read-out", points: [[S, sum / draws]], dots: true },
          { name: "drawn here, behind a ReLU", points: [[S, both / draws]], dots: true, kind: "control" },
        ],
      },
    };
  },
  questions: [
    {
      ask: "Two features share one dimension, in opposite directions, at sparsity S = 0.9, uniform on [0, 1] when active. What is the expected squared interference in a linear read-out?",
      answer: square(-1, 0.1),
      because: "(1 − S)/3 = 0.1/3 = 0.0333: it is there one time in ten, and then has mean square 1/3.",
    },
  ],
  cells: [
    {
      task: "measure_interference: mean and variance of what others add to each read-out.",
      code: `def measure_interference(W, p, first=1/2, second=1/3):
    """W: unit features as rows; first, second: moments of an active feature."""
    G = ⟦gram⟧
    others = G - torch.diag(G.diagonal())
    mean = p * first * ⟦sums⟧
    variance = (p * second - ⟦square⟧) * (others**2).sum(1)
    return mean, variance`,
      gaps: {
        gram: { hint: "all cosines", accept: ["W @ W.T", "W @ W.mT", "W.matmul(W.T)", "torch.matmul(W, W.T)", "W.mm(W.T)", "W @ W.t()"] },
        sums: { hint: "the cosines with the others, summed for each feature", accept: ["others.sum(1)", "others.sum(dim=1)", "others.sum(-1)", "others.sum(0)", "others.sum(dim=0)", "torch.sum(others, dim=1)"] },
        square: { hint: "the square of one feature’s mean", accept: ["(p * first)**2", "(p * first) ** 2", "p**2 * first**2", "first**2 * p**2", "p * p * first * first", "(first * p)**2"] },
      },
    },
  ],
  python: "ss.theory.pair_interference(cosine=-1, density=1 - 0.9, first=1/2, second=1/3)\nss.theory.opposite_relu_error(-1, 0.1, ss.theory.uniform())",
};
