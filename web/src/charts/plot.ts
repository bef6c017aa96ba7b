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
