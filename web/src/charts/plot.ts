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
