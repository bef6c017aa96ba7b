import { Training } from "../toy/model";
import { norm } from "../toy/random";
import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "sparsity",
  order: 2,
  title: "Why sparsity makes it possible",
  text: [
    "Overlap only costs something when two features are active **at once**. If each of two is active one time in a hundred, both are one time in ten thousand: the profit of storing both comes a hundred times as often as the accident.",
    "So the same model, with the same loss, does two different things. Where features are dense it keeps the two that matter most, at right angles, and drops the rest. Where they are rare it stores all five, as a pentagon. The model below is f′ = ReLU(WᵀW f + b): W writes five features into two numbers and reads them back, and a ReLU cuts what is below 0 to 0. Each feature matters 0.9 times as much as the one before it. It is trained here, in this page.",
  ],
  controls: [
    { name: "p", label: "P(feature active)", min: -2, max: 0, step: 0.1, value: -1.3, shows: (v) => (10 ** v).toPrecision(2) },
    { name: "seed", label: "start", min: 0, max: 9, step: 1, value: 0 },
  ],
  starts: true,
  *run({ p = -1.3, seed = 0 }) {
    const density = 10 ** p;
    const importance = [0, 1, 2, 3, 4].map((i) => 0.9 ** i);
    const model = new Training(5, 2, density, importance, { seed, lr: 0.01, batch: 256 });
    const losses: [number, number][] = [];
    const steps = 3000;
    while (model.step < steps) {
      model.run(50);
      losses.push([model.step, model.loss]);
      const { atoms } = model;
      const stored = atoms.filter((a) => norm(a) > 0.5).length;
      yield {
        says: `Step ${model.step}: ${stored} of 5 features are stored at P(active) = ${density.toPrecision(2)}.`,
        values: { stored, density, ...Object.fromEntries([...model.weights.W].map((w, i) => [`W${i}`, w])), ...Object.fromEntries([...model.weights.b].map((b, i) => [`b${i}`, b])) },
        arrows: atoms,
        plot: { title: "Loss of each batch", x: "training step", y: "squared error", series: [{ name: "loss", points: losses }], logY: true },
        share: model.step / steps,
      };
    }
  },
  questions: [
    {
      ask: "At P(active) = 1 every feature is always there. How many of the five does the model store in two dimensions?",
      answer: 2,
      within: 0,
      because: "Two, the most important ones. With dense features the model does what principal components would do; the other three cost their whole variance, and overlap would cost more.",
    },
    {
      ask: "Two features are independent, each with P(active) = 0.01. How often are both active at once?",
      answer: 1e-4,
      because: "p² = 0.0001, a hundred times rarer than either alone. Gain grows with p, accidents with p².",
    },
  ],
  python: "ss.studies.ToySweep(n=5, d=2, densities=(1.0, 0.05), importance=0.9).run()",
};
