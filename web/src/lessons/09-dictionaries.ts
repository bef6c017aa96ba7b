import { dot, Random, unit } from "../toy/random";
import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "dictionaries",
  order: 9,
  title: "Dictionary learning",
  text: [
    "In a real network nobody tells us W. But if few features are active at a time, activations lie close to few directions, and these can be found from x alone: guess a dictionary, code each x with as few atoms as possible, move the atoms towards what they had to explain, and again. **Sparse autoencoders** do it with an encoder, so that coding is one step.",
    "Below, points in the plane come from a few true directions, one active at a time, with noise. Atoms (arrows) start at random and move. Try more atoms than features: some split, some die. Try fewer: one atom has to stand for two.",
  ],
  controls: [
    { name: "n", label: "true features", min: 2, max: 6, step: 1, value: 3 },
    { name: "atoms", label: "atoms to learn", min: 1, max: 8, step: 1, value: 3 },
    { name: "noise", label: "noise", min: 0, max: 0.3, step: 0.02, value: 0.06 },
    { name: "seed", label: "start", min: 0, max: 9, step: 1, value: 1 },
  ],
  starts: true,
  *run({ n = 3, atoms = 3, noise = 0.06, seed = 1 }) {
    const random = new Random(seed);
    const truth = Array.from({ length: n }, (_, i) => [Math.cos(0.4 + (2 * Math.PI * i) / n), Math.sin(0.4 + (2 * Math.PI * i) / n)]);
    const x = Array.from({ length: 300 }, () => {
      const size = 0.3 + random.uniform();
      return truth[Math.floor(random.uniform() * n)]!.map((v) => size * v + noise * random.normal());
    });
    let learned = Array.from({ length: atoms }, () => random.direction(2));
    const total = x.reduce((sum, p) => sum + dot(p, p), 0);
    const errors: [number, number][] = [];
    for (let step = 0; step <= 30; step++) {
      const sums = learned.map(() => [0, 0]);
      const used = learned.map(() => 0);
      let missed = 0;
      for (const point of x) {
        // One atom each, nonnegative: the one that explains most.
        let [best, most] = [-1, 0];
        learned.forEach((a, i) => {
          const c = dot(a, point);
          if (c > most) [best, most] = [i, c];
        });
        missed += dot(point, point) - most * most;
        if (best < 0) continue;
        used[best]!++;
        point.forEach((v, k) => (sums[best]![k]! += most * v));
      }
      const score = truth.reduce((sum, t) => sum + Math.max(...learned.map((a) => dot(a, t))), 0) / n;
      const dead = used.filter((count) => count === 0).length;
      errors.push([step, missed / total]);
      yield {
        says: `Step ${step}: ${(100 * (missed / total)).toFixed(1)} % of the variance is unexplained; the nearest atom has cosine ${score.toFixed(3)} with a true feature on average; ${dead} of ${atoms} atoms are dead.`,
        values: { unexplained: missed / total, score, dead },
        arrows: learned,
        plot: {
          title: "Activations, and where the true directions end",
          x: "first dimension",
          y: "second dimension",
          series: [
            { name: "activations", points: x.map((p) => [p[0]!, p[1]!]), dots: true },
            { name: "true features", points: truth.map((t) => [1.4 * t[0]!, 1.4 * t[1]!]), dots: true, kind: "control" },
          ],
        },
        share: step / 30,
      };
      learned = learned.map((a, i) => (used[i] ? unit(sums[i]!) : a));
    }
  },
  questions: [
    {
      ask: "A dictionary explains 99 % of the variance. Has it found the true features?",
      options: ["Yes: it could not explain them otherwise", "Not necessarily: other dictionaries can explain as much", "No: noise is at least 5 %"],
      answer: 1,
      because: "With four atoms for three features everything is explained and one feature is split; with other seeds the split is elsewhere. So count what dictionaries from different seeds find again, and where the truth is known, judge by it.",
    },
  ],
  python: "# superscope train world:exactly_k --n 256 --k 4, then: superscope judge",
};
