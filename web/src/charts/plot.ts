import { scaleLinear, scaleLog } from "d3-scale";

/** Ticks of a logarithmic axis: powers of ten, with 2 and 5 where there is room; of less than half a decade, even steps. */
export function logTicks([low, high]: [number, number], most: number): number[] {
  if (high / low < 4) return scaleLinear([low, high], [0, 1]).ticks(Math.min(most, 4));
  const all = scaleLog([low, high], [0, 1]).ticks();
  for (const first of [/^[1235]/, /^[125]/, /^[13]/]) {
    const some = all.filter((t) => first.test(t.toExponential()));
    if (some.length <= most + 2 && some.length > 1) return some;
  }
  const powers = all.filter((t) => /^1/.test(t.toExponential()));
  const every = Math.ceil(powers.length / most);
  return powers.filter((_, i) => i % every === 0);
}

/** What Plot.svelte draws. */
export interface Series {
  name: string;
  points: [number, number][];
  low?: number[];
  high?: number[];
  /** Points instead of a line. */
  dots?: boolean;
  /** Low and high as an area behind everything, instead of whiskers. */
  ribbon?: boolean;
  /** Its look: the thing itself, what it is compared with, or theory. */
  kind?: "control" | "theory" | "faint";
}

export interface Line {
  at: number;
  label: string;
  kind?: "bound" | "chance";
  /** Its name stands beside it, not in the legend. */
  quiet?: boolean;
}

/** What Whiskers.svelte draws on one line. */
export interface Bar {
  label: string;
  /** null where it is undefined, with the reason in `why`. */
  value: number | null;
  low?: number | null;
  high?: number | null;
  why?: string;
  /** What the others are compared with: a diamond. */
  control?: boolean;
}

/** What Dots.svelte draws: one value of one thing. */
export interface Dot {
  label: string;
  value: number | null;
  low?: number | null;
  high?: number | null;
  chance?: number | null;
  /** 0 a disc, 1 a diamond. */
  series?: 0 | 1;
}

/** What Scatter.svelte draws. */
export interface Mark {
  label: string;
  x: number;
  y: number;
  xLow?: number | null;
  xHigh?: number | null;
  yLow?: number | null;
  yHigh?: number | null;
  kind?: "control" | "faint";
  /** Its name stands beside it. */
  named?: boolean;
}
