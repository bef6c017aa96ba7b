import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "wrong",
  order: 10,
  title: "What goes wrong",
  text: [
    "**Shrinkage.** A penalty λ on the size of f makes every active feature too small: the best f for min (x − f)²/2 + λ|f| is x − λ (0 where x is below λ), never x. Two kinds of sparse autoencoder, TopK and JumpReLU, avoid it by choosing **which** features are on, not how much of each.",
    "**Absorption.** If “begins with S” is always there when “snake” is, the sparsest dictionary gives “snake” an atom that contains both and leaves a hole in “begins with S”. One atom active costs less than two.",
    "**Splitting, dead atoms, duplicates.** A larger dictionary cuts one feature into several, leaves atoms that never fire, or keeps two copies. None of these show in the error of reconstruction.",
  ],
  controls: [
    { name: "lambda", label: "penalty λ", min: 0, max: 1, step: 0.05, value: 0.2 },
    { name: "x", label: "true size", min: 0, max: 2, step: 0.05, value: 1 },
  ],
  *run({ lambda = 0.2, x = 1 }) {
    const shrink = (v: number) => Math.max(v - lambda, 0);
    const xs = Array.from({ length: 41 }, (_, i) => i / 20);
    yield {
      says: `A feature of size ${x.toFixed(2)} is read as ${shrink(x).toFixed(2)}: ${x > 0 ? Math.round((100 * (x - shrink(x))) / x) : 0} % is lost.`,
      values: { read: shrink(x) },
      plot: {
        title: "What an L1 penalty makes of each size",
        x: "true size",
        y: "size that is read",
        series: [
          { name: "with the penalty", points: xs.map((v) => [v, shrink(v)]) },
          { name: "hard choice (TopK, JumpReLU)", points: xs.map((v) => [v, v > lambda ? v : 0]), kind: "control" },
          { name: "truth", points: xs.map((v) => [v, v]), kind: "theory" },
        ],
        at: [{ at: x, label: "this size", kind: "chance" }],
      },
    };
  },
  questions: [
    { ask: "A feature of size 1 under a penalty of 0.2: what size is read?", answer: 0.8, because: "1 − 0.2 = 0.8, at every size above 0.2." },
    {
      ask: "“Snake” always comes with “begins with S”. Which dictionary does sparsity prefer?",
      options: ["One atom for each, both active on snakes", "A snake atom that contains both, and a hole in “begins with S”", "It cannot tell them apart"],
      answer: 1,
      because: "It needs one active atom instead of two for the same reconstruction. That is absorption.",
    },
  ],
  python: "ss.recovery.ISTA        # l1: shrinks;   ss.recovery.OMP: chooses and refits",
};
