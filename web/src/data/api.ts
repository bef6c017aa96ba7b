/** Made by scripts/api_types.py from superscope/studio/server/shapes.py; not to be changed by hand. */

/** Whatever JSON can say. */
export type Cell = string | number | boolean | null | Cell[] | { [key: string]: Cell };

/** A text to be read with a run's model. */
export interface AskText {
  site: string;
  /** As the run calls it: trained or control. */
  model: string;
  text: string;
}

/** What the bench does, and what it has. */
export interface BenchState {
  can_try: boolean;
  /** Why nothing can be tried; empty where it can. */
  why_not: string;
  state: "idle" | "working" | "failed";
  /** Id of what is being tried, or was last. */
  trial: string;
  stage: string;
  done: number;
  total: number;
  /** Why the last trial failed; empty where it did not. */
  error: string;
  /** The model that is kept; empty where none is. */
  model: string;
  site: string;
  /** Ids of the trials whose answers can be asked for. */
  kept: string[];
  concepts: string[];
  edits: string[];
  dictionaries: Place[];
}

/** Columns of numbers, for drawings of many points. */
export interface Columns {
  /** NaN where a number is missing. */
  columns: Record<string, Packed>;
  matching: number;
}

/** What can be compared: runs, and dictionaries in them. */
export interface Comparable {
  sources: Place[];
}

/** A drawing that lies in the run's folder. */
export interface Drawing {
  name: string;
  shows: string;
  /** An SVG file in base64. */
  svg: string;
}

/** The answer to a search in a table. */
export interface Found {
  /** Rows found. */
  matching: number;
  /** Rows searched. */
  of: number;
  /** Names of all rows found, in order. */
  keys: Packed;
  /** The first of them, whole. */
  columns: Record<string, Cell[]>;
  /** That the server took. */
  seconds: number;
}

/** A run but for its tables' rows and its arrays' numbers. */
export interface Head {
  title: string;
  kind: string;
  findings: string[];
  measurements: Measurement[];
  settings: Record<string, Cell>;
  environment: Record<string, Cell>;
  /** Rows of each table. */
  tables: Record<string, number>;
  /** Shape of each array. */
  arrays: Record<string, number[]>;
  left_out: Record<string, LeftOut>;
  figures: Drawing[];
  /** The words of the names above, of those that have one. */
  words: Record<string, Word>;
  /** What of the run cannot be read, in sentences; the rest stands without it. */
  problems: string[];
  /** Whether the study has ended; where it has not, this is what it has kept so far. */
  finished: boolean;
  /** Sites, each with a space and its model, at which the server can read a text with the run's dictionary. */
  reads: string[];
}

/** One command that runs, waits or has ended. "lost": its process is gone and did not say why. */
export interface Job {
  id: string;
  study: string;
  settings: Record<string, Cell>;
  /** The same in a terminal. */
  command: string;
  /** Id of the run it writes. */
  run: string;
  state: "queued" | "running" | "finished" | "failed" | "cancelled" | "lost";
  created: string;
  stage: string;
  detail: string;
  /** Of its stage; null while nothing says so. */
  share: number | null;
  /** Of all its stages; null where the study cannot say. */
  whole: number | null;
  /** Seconds that it will still take; null where nobody knows. */
  left: number | null;
  error: string;
  can_resume: boolean;
}

/** All jobs, those that were asked for last before the others. */
export interface JobList {
  jobs: Job[];
}

/** The run that a trial was kept as. */
export interface Kept {
  run: string;
}

/** A table of which only the first rows by importance are there. */
export interface LeftOut {
  kept: number;
  of: number;
}

/** One number beside what was possible: see superscope.core.Measurement. */
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
  at: Record<string, string | number>;
  caution: string;
}

/** An array: its numbers little-endian, in row-major order, in base64. */
export interface Packed {
  dtype: "float32" | "float64" | "int32" | "uint8";
  shape: number[];
  base64: string;
}

/** A dictionary in a run, that can be compared or steered by. */
export interface Place {
  /** Its place in addresses: the run, or the run, a colon and a folder in it. */
  id: string;
  title: string;
  /** Where it was learned, where it says so. */
  site: string;
}

/** Why a request was refused, with what to do; the body of every answer that is no success. */
export interface Problem {
  error: string;
}

/** Rows of a table, column by column. */
export interface Rows {
  columns: Record<string, Cell[]>;
  /** Rows that the conditions hold for, of which these are some. */
  matching: number;
}

/** One run in the list. */
export interface RunEntry {
  /** Its place in addresses. */
  id: string;
  title: string;
  /** The study that made it. */
  kind: string;
  state: "finished" | "unfinished" | "damaged";
  created: string;
  finished: string;
  /** It travels in the package and cannot be written to. */
  bundled: boolean;
  /** Why it cannot be read; empty where it can. */
  error: string;
}

/** All runs that the server sees, newest first, those in the package last. */
export interface RunList {
  runs: RunEntry[];
  /** Runs beyond the most that are listed. */
  left_out: number;
}

/** What this server is and what it will do. */
export interface Session {
  /** Of Superscope. */
  version: string;
  /** Where new runs are written. */
  folder: string;
  /** Whether studies can be started here. */
  can_start: boolean;
  /** Why they cannot; empty where they can. */
  why_not: string;
  /** Id of the run that the studio was started with; empty where it was a folder or nothing. */
  opens: string;
}

/** One field of a study's form: see superscope.studies.settings. */
export interface Setting {
  name: string;
  kind: "whole" | "number" | "text" | "flag";
  /** It holds several values. */
  many: boolean;
  /** It may be null. */
  optional: boolean;
  required: boolean;
  default: Cell;
  /** The values there are, where they are listed. */
  choices: (string | number)[];
  /** As they follow "must be". */
  limits: string[];
  low: number | null;
  high: number | null;
  help: string;
}

/** A study to start; what is not set is as it is by default. */
export interface StartJob {
  study: string;
  settings: Record<string, Cell>;
}

/** A study that can be started. */
export interface StudyForm {
  command: string;
  summary: string;
  about: string;
  settings: Setting[];
}

/** What a run's dictionary answers to a text, token by token. */
export interface TextReading {
  tokens: string[];
  /** Of each token, the strongest first. */
  latents: number[][];
  values: number[][];
  /** How many are active at each token. */
  active: number[];
  /** Whether the text went on beyond what was read. */
  cut: boolean;
  seconds: number;
}

/** What is tried on the bench; see superscope.studies.Bench. What is not set is as it is by default. */
export interface Try {
  model: string;
  site: string;
  /** Id of a dictionary in a run; empty for none. */
  dictionary: string;
  targets: string[];
  towards: string[];
  away: string[];
  edit: "add" | "norm_kept" | "least" | "project_out" | "gated";
  doses: number[];
  unit: "norms" | "nats";
  prompts: string[];
  new_tokens: number;
  controls: number;
  tokens: number;
  matrix: boolean;
  seed: number;
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
