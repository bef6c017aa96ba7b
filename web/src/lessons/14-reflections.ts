import type { Lesson } from "./lesson";

/** Mean square of U[0,1] features with P(active) = p that n directions in d dimensions cannot keep apart, per feature. */
const floor = (n: number, d: number, p: number) => (p / 3 - (p * p) / 4) * Math.max(n / d - 1, 0);

export const lesson: Lesson = {
  id: "reflections",
  order: 14,
  title: "Three reflections",
  text: [
    "**Is compression the enemy of interpretability?** The same overlap that stores more features makes each neuron say less. A penalty on hidden units takes superposition away: in our runs the share of a neuron’s weight outside its main feature falls from 0.47 to 0.004, and the loss does not come for free: 0.067 at best against 0.084 (experiment E24 of superscope reproduce). And overlap is what attacks use: the vulnerability of models rises to 16.5 times that of one without superposition, in step with features per dimension (E16), and training against strong attacks drives features per dimension from 5.26 down to 0.66 (E17). Squeezing a layer after training is another matter: in the pocket model neither rare nor frequent features outlive a projection better (docs/compression.md).",
    "**Do brains do it?** Neurons in cortex often answer to mixtures, and populations are read linearly; sparse firing would permit superposition. But mixed selectivity alone does not show it: turned axes give the same (lesson 5). One would need to count directions in a population, beside random rotations, with the cells’ number as d. We have not measured a brain; nothing here says that they do.",
    "**Where do directions break down?** Where features are not added but composed (an AND of two is not a direction among inputs), where values lie on curves rather than rays (days of the week on a circle: two dimensions that only make sense together), where magnitudes are coded without a line (a nonlinear code stores two dense numbers in one with a squared error of 0.0265 where the best linear one leaves 0.0833: E25), and where features come in correlated sets that share a subspace (E11, E12). We looked for the week, the year, digits and letters in the pocket model: no circle there carries a concept, and positions lie on a bent line (docs/manifolds.md).",
    "The slider shows the trade in one line: the least interference that n features in d dimensions must have, which no arrangement can beat.",
  ],
  controls: [
    { name: "n", label: "features per 100 dimensions", min: 100, max: 2000, step: 50, value: 500 },
    { name: "p", label: "P(feature active)", min: -3, max: 0, step: 0.1, value: -1, shows: (v) => (10 ** v).toPrecision(2) },
  ],
  *run({ n = 500, p = -1 }) {
    const density = 10 ** p;
    yield {
      says: `${(n / 100).toFixed(1)} features per dimension at P(active) = ${density.toPrecision(2)}: each read-out has interference of variance at least ${floor(n, 100, density).toFixed(4)}, where a feature itself has ${(density / 3 - density ** 2 / 4).toFixed(4)}.`,
      values: { floor: floor(n, 100, density) },
      plot: {
        title: "Least interference, by how much is stored",
        x: "features per dimension",
        y: "variance of interference",
        series: [{ name: "tight frames reach it", points: Array.from({ length: 40 }, (_, i) => [1 + i / 2, floor(100 + 50 * i, 100, density)]) }],
        at: [{ at: n / 100, label: "here", kind: "chance" }],
      },
    };
  },
  questions: [
    {
      ask: "Which observation would show superposition in a layer, and not only mixed neurons?",
      options: ["Most neurons answer to several features", "More reproducible directions than dimensions, beyond what random data give", "A sparse autoencoder reconstructs well"],
      answer: 1,
      because: "Mixed neurons can be turned axes; reconstruction can be split features. A count above d, with its null, is the claim itself.",
    },
  ],
  python: "ss.theory.interference_floor(n=500, d=100, density=0.1, first=1/2, second=1/3)\n# superscope reproduce toy-models --only E16 E17 E24 E25",
};
