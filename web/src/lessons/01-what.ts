import { gram } from "../toy/geometry";
import { polygon, type Lesson } from "./lesson";

const cosine = (n: number, steps: number) => Math.cos((2 * Math.PI * steps) / n);

export const lesson: Lesson = {
  id: "what",
  order: 1,
  title: "What superposition is",
  text: [
    "A network holds what it knows at one moment in d numbers: a point in d dimensions. A **feature** (“this is French”, “we are inside a quotation”) is a **direction** there, and how strongly it is present is how far the point lies in that direction. In short x = W f: f lists how strong each of the n features is, and the columns of W are their directions.",
    "Think of paint. Three tubes give every colour, and a painter who knows that only one or two pigments are ever mixed at once can tell far more than three pigments apart by the mixture’s hue. **Superposition** is that: more features than dimensions, in directions that overlap.",
    "The price is read-out. To ask “how much of feature 0 is there?” one measures along its direction, and other features answer too: each with **alignment times size**, the cosine between the two directions times how strong the other is.",
  ],
  controls: [
    { name: "n", label: "features in two dimensions", min: 3, max: 9, step: 1, value: 5 },
    { name: "size", label: "size of the feature next to it", min: 0, max: 2, step: 0.1, value: 1 },
  ],
  *run({ n = 5, size = 1 }) {
    const atoms = polygon(n);
    const read = cosine(n, 1) * size;
    yield {
      says: `${n} features in 2 dimensions: ${(n / 2).toFixed(1)} per dimension. Feature 0 is absent, feature 1 has size ${size.toFixed(1)}, and the read-out of feature 0 says ${read.toFixed(3)}: cosine ${cosine(n, 1).toFixed(3)} times ${size.toFixed(1)}.`,
      values: { ratio: n / 2, cosine: cosine(n, 1), read },
      arrows: atoms,
      grid: { title: "The cosine of every feature with every other", matrix: gram(atoms), limit: 1 },
    };
  },
  questions: [
    {
      ask: "Five features stand as a pentagon. Only feature 1 is active, with size 1. What does the read-out of its neighbour, feature 0, say?",
      answer: cosine(5, 1),
      because: "The cosine of 72 degrees: 0.309. A reader with a threshold above it is not fooled; that is what a bias below 0 before a ReLU does.",
    },
  ],
  python: "W = ss.frames.polygon(5)\nW.atoms @ W.atoms.T",
};
