import type { Cell, Row, Where } from "./run";
import type { DataSource } from "./source";

/** What is sought in a table: see superscope/studio/server/finding.py, which answers alike. */
export interface Asked {
  where?: Where;
  /** Sought in the texts, small letters and capitals alike; a number is the key of one row too. */
  words?: string;
  /** Columns of texts, or of lists of texts. */
  texts?: string[];
  /** The column of whole numbers that names a row. */
  key: string;
  /** The lowest and the highest value of a column, null where there is no bound. */
  between?: Record<string, [number | null, number | null]>;
  /** Columns, the first the most important; "-" before it is downwards, "~" upwards with zeros last. */
  order?: string[];
  limit?: number;
}

export interface Answer {
  /** Rows found. */
  matching: number;
  /** Rows searched. */
  of: number;
  /** Names of all rows found, in order. */
  keys: ArrayLike<number>;
  /** The first of them. */
  rows: Row[];
}

export const NOTHING: Answer = { matching: 0, of: 0, keys: [], rows: [] };

/** Columns of numbers; NaN where one is missing. */
export type Numbers = Record<string, ArrayLike<number>>;

/** Searches a table where it is: in the server, or in the page. */
export async function search(source: DataSource, table: string, asked: Asked): Promise<Answer> {
  return source.search ? source.search(table, asked) : searched(await source.rows(table, asked.where), asked);
}

/** Columns of numbers of the rows that equal `where`. */
export async function columns(source: DataSource, table: string, names: string[], where: Where): Promise<Numbers> {
  if (source.columns) return source.columns(table, names, where);
  const rows = await source.rows(table, where);
  return Object.fromEntries(names.map((name) => [name, Float64Array.from(rows, (row) => (typeof row[name] === "number" ? row[name] : NaN))]));
}

const GLYPHS: Record<string, string> = { "·": " ", "↵": "\n", "⇥": "\t", "␍": "\r" };

/** What someone means who types the signs that tokens are shown with. */
export function meant(typed: string): string {
  return typed.trim().replace(/[·↵⇥␍]/g, (sign) => GLYPHS[sign]!);
}

export function searched(rows: Row[], asked: Asked): Answer {
  const words = (asked.words ?? "").toLowerCase();
  const bounds = Object.entries(asked.between ?? {});
  const found = rows.filter((row) => {
    for (const [column, [low, high]] of bounds) {
      const value = row[column];
      if (typeof value !== "number" || (low !== null && value < low) || (high !== null && value > high)) return false;
    }
    if (!words || words === String(row[asked.key])) return true;
    return (asked.texts ?? []).some((name) => holds(row[name], words));
  });
  const order = (asked.order ?? []).map((name) => ({ name: name.replace(/^[-~]/, ""), sign: name.startsWith("-") ? -1 : 1, zerosLast: name.startsWith("~") }));
  const value = (row: Row, { name, sign, zerosLast }: (typeof order)[number]) => {
    const cell = row[name];
    if (typeof cell !== "number" || (zerosLast && cell <= 0)) return Infinity;
    return sign * cell;
  };
  if (order.length) {
    found.sort((a, b) => {
      for (const by of order) {
        const [first, second] = [value(a, by), value(b, by)];
        if (first !== second) return first < second ? -1 : 1;
      }
      return 0;
    });
  }
  return { matching: found.length, of: rows.length, keys: found.map((row) => Number(row[asked.key])), rows: found.slice(0, asked.limit ?? 60) };
}

function holds(cell: Cell | undefined, words: string): boolean {
  if (typeof cell === "string") return cell.toLowerCase().includes(words);
  return Array.isArray(cell) && cell.some((each) => typeof each === "string" && each.toLowerCase().includes(words));
}
