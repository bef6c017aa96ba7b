import { dimensionalities, interference } from "../toy/geometry";
import { polygon, type Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "geometry",
  order: 3,
  title: "Geometry: how features share",
  text: [
    "Features that share repel each other, as charges on a sphere do, and settle into regular figures: pairs that point opposite ways, triangles, pentagons, tetrahedra, square antiprisms.",
    "How much of a dimension does a feature get? **Dimensionality** D = |W_i|² / Σ_j (Ŵ_i · W_j)², where Ŵ_i is W_i at length 1: the feature’s own squared length, over that of all features seen along its direction. Alone it is 1, in an opposite pair 1/2. In one figure all features have the same D, and models jump between such values like electrons between levels.",
  ],
  controls: [
    { name: "n", label: "features on the circle", min: 1, max: 8, step: 1, value: 5 },
    { name: "long", label: "length of feature 0", min: 0.1, max: 2, step: 0.05, value: 1 },
  ],
  *run({ n = 5, long = 1 }) {
    const atoms = polygon(n).map((a, i) => (i === 0 ? a.map((x) => x * long) : a));
    const D = dimensionalities(atoms);
    const total = D.reduce((a, b) => a + b, 0);
    yield {
      says: `Feature 0 has dimensionality ${D[0]!.toFixed(3)} and suffers interference ${interference(atoms)[0]!.toFixed(3)}, the squared overlaps with all others added up; all together use ${total.toFixed(3)} of ${Math.min(n, 2)} dimension${n > 1 ? "s" : ""}.`,
      values: { D: D[0]!, total },
      arrows: atoms,
      plot: {
        title: "Dimensionality of each feature",
        x: "feature",
        y: "dimensionality",
        series: [{ name: "D", points: D.map((v, i) => [i, v]), dots: true }],
        levels: [
          { at: 1, label: "alone", kind: "chance", quiet: true },
          { at: 2 / 3, label: "triangle", kind: "chance", quiet: true },
          { at: 1 / 2, label: "pair, square", kind: "chance", quiet: true },
          { at: 2 / 5, label: "pentagon", kind: "chance", quiet: true },
        ],
      },
    };
  },
  questions: [
    {
      ask: "Four features point to the corners of a tetrahedron, in three dimensions. What dimensionality has each?",
      answer: 3 / 4,
      because: "Four equal features share three dimensions evenly: 3/4. In any tight frame it is d / n.",
    },
  ],
  cells: [
    {
      task: "analyze_superposition: what does a matrix of features do?",
      code: `def analyze_superposition(W):
    """W: n features as rows of d numbers."""
    norms = ⟦norms⟧
    unit = W / norms[:, None]
    overlap = ⟦overlap⟧  # with each W_j
    return {
        "features_per_dimension": float((norms**2).sum() / ⟦dimensions⟧),
        "dimensionality": norms**2 / ⟦shared⟧,
    }`,
      gaps: {
        norms: { hint: "the length of each row", accept: ["W.norm(dim=1)", "W.norm(dim=-1)", "W.norm(2, 1)", "W.norm(2, dim=1)", "W.norm(p=2, dim=1)", "torch.linalg.norm(W, dim=1)", "torch.linalg.vector_norm(W, dim=1)", "torch.norm(W, dim=1)", "(W**2).sum(1)**0.5", "(W**2).sum(1).sqrt()", "(W**2).sum(dim=1).sqrt()", "W.square().sum(1).sqrt()", "W.pow(2).sum(1).sqrt()"] },
        overlap: { hint: "all dot products of directions with features", accept: ["unit @ W.T", "unit @ W.mT", "unit.matmul(W.T)", "torch.matmul(unit, W.T)", "unit @ W.t()", "unit.mm(W.T)"] },
        dimensions: { hint: "how many dimensions there are", accept: ["W.shape[1]", "W.shape[-1]", "W.size(1)", "W.size(-1)", "len(W[0])"] },
        shared: { hint: "the squared overlaps of each feature, summed", accept: ["(overlap**2).sum(1)", "(overlap**2).sum(dim=1)", "(overlap**2).sum(-1)", "(overlap**2).sum(dim=-1)", "overlap.square().sum(1)", "overlap.square().sum(dim=1)", "overlap.square().sum(-1)", "overlap.pow(2).sum(1)", "overlap.pow(2).sum(dim=1)", "torch.sum(overlap**2, dim=1)"] },
      },
    },
  ],
  python: "ss.measure.dimensionalities(ss.frames.polygon(5).atoms)",
};
