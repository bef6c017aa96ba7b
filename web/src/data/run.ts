/** The shapes that Python writes into the page: see superscope/studio/html.py. */

export type Where = Record<string, string | number>;

export interface Measurement {
  name: string;
  value: number | null;
  unit: string;
  n: number;
  of: string;
  low: number | null;
  high: number | null;
  how: string;
  reference: number | null;
  reference_is: string;
  chance: number | null;
  chance_is: string;
  at: Where;
  caution: string;
}

export type Cell = string | number | boolean | null | Cell[] | { [key: string]: Cell };

/** Columns of equal length by name. */
export type Table = Record<string, Cell[]>;

export type Row = Record<string, Cell>;

export interface LeftOut {
  kept: number;
  of: number;
}

/** A drawing that lies beside the page in the run's folder. */
export interface Drawing {
  name: string;
  shows: string;
  /** An SVG file in base64. */
  svg: string;
}

/** What a measurement is called and means: see superscope/measure/words. */
export interface Word {
  label: string;
  /** The label where there is room for a column's head only. */
  heading: string;
  definition: string;
  /** How to read it, for someone who has never met it. */
  reading: string;
}

export interface Run {
  title: string;
  kind: string;
  findings: string[];
  measurements: Measurement[];
  settings: Record<string, Cell>;
  environment: Record<string, Cell>;
  tables: Record<string, Table>;
  arrays: Record<string, number[]>;
  /** Tables of which only the first rows by importance are in the page. */
  left_out: Record<string, LeftOut>;
  figures: Drawing[];
  /** The words of the names above, of those that have one. */
  words: Record<string, Word>;
}
