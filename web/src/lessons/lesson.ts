import type { Line, Series } from "../charts/plot";

export type Values = Record<string, number>;

/** A slider of an experiment. */
export interface Control {
  name: string;
  label: string;
  min: number;
  max: number;
  step: number;
  value: number;
  /** What stands beside it, where that is not its number. */
  shows?: (value: number) => string;
}

/** What an experiment has come to: one sentence, numbers by name, and pictures. */
export interface Outcome {
  says: string;
  values: Values;
  arrows?: number[][];
  plot?: { title: string; x: string; y: string; series: Series[]; at?: Line[]; levels?: Line[]; logX?: boolean; logY?: boolean };
  grid?: { title: string; matrix: number[][]; limit?: number };
  /** How far a long experiment has come, from 0 to 1. */
  share?: number;
}

export interface Question {
  ask: string;
  /** A number, or the place of the right one among `options`. */
  answer: number;
  options?: string[];
  /** How far from it still counts; half a unit of the third digit without it. */
  within?: number;
  because: string;
}

/** A piece of Python with gaps ⟦name⟧ to fill in; every accepted filling is run against the library by a test. */
export interface Cell {
  task: string;
  code: string;
  gaps: Record<string, { hint: string; accept: string[] }>;
}

/** One lesson, one file: the list finds it by itself. */
export interface Lesson {
  /** Its place in the address. */
  id: string;
  order: number;
  title: string;
  /** Paragraphs; **bold** is all the markup there is. */
  text: string[];
  controls: Control[];
  /** Yields once, or again and again while it goes on. The same values give the same outcome. */
  run(values: Values): Generator<Outcome>;
  /** Begins at a button, because it takes a moment. */
  starts?: boolean;
  questions: Question[];
  cells?: Cell[];
  /** The lines of Python that give the same numbers. */
  python: string;
  /** What was found, with where it was measured. */
  after?: string[];
}

export const polygon = (n: number, turn = Math.PI / 2): number[][] =>
  Array.from({ length: n }, (_, i) => [Math.cos(turn + (2 * Math.PI * i) / n), Math.sin(turn + (2 * Math.PI * i) / n)]);
