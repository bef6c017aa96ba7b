import { Random } from "./random";

/**
 * The toy model f' = ReLU(W'W f + b), one matrix read and written: superscope.toys.Tied with Adam, small enough to train
 * while one looks. W is stored as n rows of R^d, as in Python.
 */
export interface Weights {
  n: number;
  d: number;
  /** n x d, one feature a row. */
  W: Float64Array;
  b: Float64Array;
}

/** The mean loss of rows of f, sum_i I_i (f'_i - f_i)^2, and its gradient, as `Tied.loss_gradient` gives them. */
export function lossGradient(
  { n, d, W, b }: Weights,
  f: Float64Array,
  importance: ArrayLike<number>,
): { loss: number; dW: Float64Array; db: Float64Array } {
  const rows = f.length / n;
  const dW = new Float64Array(n * d);
  const db = new Float64Array(n);
  const h = new Float64Array(d);
  const back = new Float64Array(d);
  const error = new Float64Array(n);
  let loss = 0;
  for (let row = 0; row < rows; row++) {
    const at = row * n;
    h.fill(0);
    for (let i = 0; i < n; i++) {
      const value = f[at + i]!;
      if (value !== 0) for (let j = 0; j < d; j++) h[j]! += value * W[i * d + j]!;
    }
    back.fill(0);
    for (let i = 0; i < n; i++) {
      let z = b[i]!;
      for (let j = 0; j < d; j++) z += h[j]! * W[i * d + j]!;
      const missed = Math.max(z, 0) - f[at + i]!;
      loss += importance[i]! * missed * missed;
      // d ReLU: the error survives where the output is positive.
      error[i] = z > 0 ? (2 * importance[i]! * missed) / rows : 0;
      for (let j = 0; j < d; j++) back[j]! += error[i]! * W[i * d + j]!;
    }
    for (let i = 0; i < n; i++) {
      db[i]! += error[i]!;
      const value = f[at + i]!;
      for (let j = 0; j < d; j++) dW[i * d + j]! += error[i]! * h[j]! + value * back[j]!;
    }
  }
  return { loss: loss / rows, dW, db };
}

/** One toy model in training: features uniform on [0, 1] with probability `density`, independent. */
export class Training {
  readonly weights: Weights;
  step = 0;
  /** Of the last step's batch. */
  loss = NaN;
  readonly #random: Random;
  readonly #moments: { first: Float64Array; second: Float64Array }[];

  constructor(
    n: number,
    d: number,
    public density: number,
    public importance: number[],
    readonly how: { seed?: number; lr?: number; batch?: number; start?: Weights } = {},
  ) {
    this.#random = new Random(how.seed ?? 0);
    // Xavier's normal start, as in Python; the numbers drawn are this browser's own.
    const spread = Math.sqrt(2 / (n + d));
    this.weights = how.start
      ? { n, d, W: how.start.W.slice(), b: how.start.b.slice() }
      : { n, d, W: Float64Array.from({ length: n * d }, () => spread * this.#random.normal()), b: new Float64Array(n) };
    this.#moments = [n * d, n].map((size) => ({ first: new Float64Array(size), second: new Float64Array(size) }));
  }

  sample(rows: number): Float64Array {
    const f = new Float64Array(rows * this.weights.n);
    for (let i = 0; i < f.length; i++) if (this.#random.uniform() < this.density) f[i] = this.#random.uniform();
    return f;
  }

  /** Steps of Adam (0.9, 0.999, 1e-8) without weight decay. */
  run(steps: number): void {
    const { lr = 0.01, batch = 128 } = this.how;
    for (let k = 0; k < steps; k++) {
      const { loss, dW, db } = lossGradient(this.weights, this.sample(batch), this.importance);
      this.step++;
      this.loss = loss;
      const [fade, fade2] = [1 - 0.9 ** this.step, 1 - 0.999 ** this.step];
      [this.weights.W, this.weights.b].forEach((values, which) => {
        const slope = which ? db : dW;
        const { first, second } = this.#moments[which]!;
        for (let i = 0; i < values.length; i++) {
          first[i] = 0.9 * first[i]! + 0.1 * slope[i]!;
          second[i] = 0.999 * second[i]! + 0.001 * slope[i]! * slope[i]!;
          values[i]! -= (lr * (first[i]! / fade)) / (Math.sqrt(second[i]! / fade2) + 1e-8);
        }
      });
    }
  }

  /** W as a list of atoms. */
  get atoms(): number[][] {
    const { n, d, W } = this.weights;
    return Array.from({ length: n }, (_, i) => [...W.subarray(i * d, (i + 1) * d)]);
  }
}
