/** What Plot.svelte draws. */
export interface Series {
  name: string;
  points: [number, number][];
  low?: number[];
  high?: number[];
  /** Points instead of a line. */
  dots?: boolean;
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
