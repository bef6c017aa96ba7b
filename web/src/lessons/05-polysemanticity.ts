import { gram } from "../toy/geometry";
import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "polysemanticity",
  order: 5,
  title: "Superposition is not polysemanticity",
  text: [
    "A **neuron** is an axis of the space. It is polysemantic if several features have a part in it. Superposition makes that unavoidable: n > d directions cannot all lie along d axes.",
    "But the converse is false. Two features at right angles, turned by 45 degrees against the axes, make both neurons polysemantic, and there is no superposition at all: two dimensions, two features, nothing overlaps, and turning back separates them perfectly. To tell the two apart one must look at directions, not at neurons.",
  ],
  controls: [{ name: "turn", label: "turn against the axes, degrees", min: 0, max: 90, step: 1, value: 30 }],
  *run({ turn = 30 }) {
    const angle = (turn * Math.PI) / 180;
    const atoms = [
      [Math.cos(angle), Math.sin(angle)],
      [-Math.sin(angle), Math.cos(angle)],
    ];
    const shares = [atoms[0]![0]! ** 2, atoms[1]![0]! ** 2];
    const mixed = 1 / (shares[0]! ** 2 + shares[1]! ** 2);
    const overlap = gram(atoms)[0]![1]!;
    yield {
      says: `The first neuron mixes ${mixed.toFixed(2)} features; the two features overlap by ${Math.abs(overlap).toFixed(2)}.`,
      values: { mixed, overlap },
      arrows: atoms,
      grid: { title: "Weight of each feature (row) on each neuron (column)", matrix: atoms, limit: 1 },
    };
  },
  questions: [
    {
      ask: "Two orthogonal features, turned by 45 degrees. How many features does each neuron mix (one over the sum of squared shares)?",
      answer: 2,
      because: "Each has half of it: 1 / (1/4 + 1/4) = 2, with no superposition at all.",
    },
    {
      ask: "A neuron answers to four unrelated things. What follows?",
      options: ["The layer stores more features than dimensions", "The layer may, or its features may lie askew to the axes", "The neuron is useless"],
      answer: 1,
      because: "Compare with a random rotation of the basis, and count directions: that is what a scan does.",
    },
  ],
  python: "report = ss.studies.Scan().run()\nreport.tables[\"neurons\"]        # what each neuron mixes, beside random rotations",
};
