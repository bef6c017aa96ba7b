import { Random } from "../toy/random";
import type { Lesson } from "./lesson";

export const lesson: Lesson = {
  id: "bases",
  order: 6,
  title: "Privileged bases",
  text: [
    "Why should features care about neurons at all? Turn the whole space by R, and turn it back before the next layer. If everything in between is linear, **nothing changes**: read-outs give the same numbers, so training cannot prefer one basis to another. A residual stream, which layers only add to and read from linearly, has no privileged basis.",
    "A ReLU acts on each axis by itself, and ReLU(R x) is not R ReLU(x). Behind it only one basis gives the same function, the one with the axes: it is **privileged**, and features have a reason to line up with neurons.",
  ],
  controls: [{ name: "turn", label: "rotation, degrees", min: 0, max: 90, step: 5, value: 45 }],
  *run({ turn = 45 }) {
    const angle = (turn * Math.PI) / 180;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const forth = ([x = 0, y = 0]: number[]) => [c * x - s * y, s * x + c * y];
    const back = ([x = 0, y = 0]: number[]) => [c * x + s * y, -s * x + c * y];
    const through = (act: (x: number) => number) => (point: number[]) => back(forth(point).map(act));
    const random = new Random(3);
    const at = (angleNow: number) => [Math.cos(angleNow), Math.sin(angleNow)];
    const relu = (x: number) => Math.max(x, 0);
    let [linear, bent, size] = [0, 0, 0];
    for (let i = 0; i < 4000; i++) {
      const x = [random.normal(), random.normal()];
      const sum = (a: number[], b: number[]) => a.reduce((total, v, k) => total + (v - b[k]!) ** 2, 0);
      linear += sum(through((v) => v)(x), x);
      bent += sum(through(relu)(x), x.map(relu));
      size += sum(x.map(relu), [0, 0]);
    }
    const circle = Array.from({ length: 73 }, (_, i) => (i * 5 * Math.PI) / 180);
    yield {
      says: `Turned by ${turn} degrees and back: the linear read-out changes by ${(linear / size).toFixed(3)} of its square, what a ReLU gives by ${(bent / size).toFixed(3)}.`,
      values: { linear: linear / size, relu: bent / size },
      plot: {
        title: "First output as the input goes round a circle",
        x: "angle of the input, degrees",
        y: "first output",
        series: [
          { name: "ReLU on the axes", points: circle.map((a) => [(a * 180) / Math.PI, relu(at(a)[0]!)]) },
          { name: "ReLU on turned axes, turned back", points: circle.map((a) => [(a * 180) / Math.PI, through(relu)(at(a))[0]!]), kind: "control" },
          { name: "linear, either way", points: circle.map((a) => [(a * 180) / Math.PI, at(a)[0]!]), kind: "theory" },
        ],
      },
    };
  },
  questions: [
    {
      ask: "Why has a layer of ReLU neurons a privileged basis, and a residual stream none?",
      options: [
        "A ReLU acts on each axis alone, so it does not commute with rotations; linear maps absorb any rotation",
        "A residual stream has more dimensions",
        "A ReLU makes activations sparse, and a residual stream is dense",
      ],
      answer: 0,
      because: "What commutes with every rotation cannot tell bases apart. In our runs a random rotation of the hidden space changes the loss of a linear hidden layer by 0.00 % and that of a ReLU layer by +468 % (experiment E18, docs/toy-lab.md). Optimisers that step each coordinate by itself, as Adam does, can still leave traces of the axes in a residual stream.",
    },
    { ask: "Turned by 45 degrees, by how much of its square does the linear read-out change?", answer: 0, within: 1e-9, because: "Nothing: RᵀR is the identity." },
  ],
  python: "ss.measure.axis_alignment(W, rotations=50)          # beside random rotations\n# superscope reproduce toy-models --only E18",
};
