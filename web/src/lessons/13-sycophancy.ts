import type { Lesson } from "./lesson";

const said = (value: number) => value.toFixed(2).replace("-", "−");

export const lesson: Lesson = {
  id: "sycophancy",
  order: 13,
  title: "Sycophancy: taking one direction out",
  text: [
    "A model that agrees with whatever its user believes may hold two features: what is **true**, and what the **user thinks**. If a direction for the second can be found, one can project it out of every activation: x − v (v · x).",
    "If the two directions overlap, with cosine c, that costs truth too. Of the truth’s own read-out **1 − c²** remains. A clean-looking ablation of deference can so make a model worse at what we wanted to keep, and the damage must be measured, on questions without any user’s opinion.",
  ],
  controls: [
    { name: "c", label: "cosine of “true” and “the user thinks so”", min: -0.95, max: 0.95, step: 0.05, value: 0.5 },
    { name: "truth", label: "evidence that it is true", min: -1, max: 1, step: 0.1, value: -0.5 },
    { name: "user", label: "the user’s belief", min: -1, max: 1, step: 0.1, value: 1 },
  ],
  *run({ c = 0.5, truth = -0.5, user = 1 }) {
    const s = Math.sqrt(1 - c * c);
    const before = truth + c * user;
    const after = (1 - c * c) * truth;
    yield {
      says: `Read along “true”: ${said(before)} before, ${said(after)} after the user’s direction is projected out. Of the evidence ${(100 * (1 - c * c)).toFixed(0)} % is left, of the user’s belief nothing.`,
      values: { before, after, left: 1 - c * c },
      arrows: [
        [1, 0],
        [c, s],
      ],
      plot: {
        title: "What is left of the truth’s read-out when the other direction is projected out",
        x: "cosine of the two directions",
        y: "share left",
        series: [{ name: "1 − c²", points: Array.from({ length: 39 }, (_, i) => [-0.95 + 0.05 * i, 1 - (-0.95 + 0.05 * i) ** 2]) }],
        at: [{ at: c, label: "here", kind: "chance" }],
      },
    };
  },
  questions: [
    { ask: "“True” and “the user thinks so” have cosine 0.5. What share of the truth’s read-out is left after the other is projected out?", answer: 0.75, because: "1 − 0.5² = 0.75." },
    {
      ask: "After the ablation the model agrees with users less. What else must be measured?",
      options: ["Nothing: that was the aim", "How well it answers where no user has said what they think", "Whether the direction is long"],
      answer: 1,
      because: "Projection takes a share c² of everything that overlaps. Less agreement with users who are wrong is only worth something if agreement with those who are right, and plain accuracy, stay.",
    },
  ],
  python: "v = W.atoms[1]\nP = torch.eye(W.d) - torch.outer(v, v)\nW.atoms[0] @ P @ W.atoms[0]        # 1 - c^2",
};
