/** The shapes of a run: those that the server says too are made from Python, see api.ts. */
import type { Cell, Head, Packed } from "./api";

export type { Cell, Drawing, Head, LeftOut, Measurement, Packed, Word } from "./api";

/** What columns must equal; a list allows each of its values. */
export type Where = Record<string, string | number | (string | number)[]>;

/** Columns of equal length by name. */
export type Table = Record<string, Cell[]>;

export type Row = Record<string, Cell>;

/** Numbers in row-major order. */
export interface Tensor {
  shape: number[];
  data: Float32Array | Float64Array | Int32Array | Uint8Array;
}

/** What Python writes into a self-contained page: see superscope/studio/html.py. */
export interface Run extends Omit<Head, "tables"> {
  /** Long columns of numbers travel as arrays. */
  tables: Record<string, Record<string, Cell[] | Packed>>;
  /** The arrays there is room for. */
  packed?: Record<string, Packed>;
}
