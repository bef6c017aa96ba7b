import type { TextReading } from "./api";
import type { Cell, Head, LeftOut, Measurement, Packed, Row, Run, Table, Tensor, Where } from "./run";
import type { Answer, Asked, Numbers } from "./search";

export type { Head, LeftOut };

/**
 * Where a view's data comes from. Views never fetch: the same views read a page's own data (EmbedSource), a server's
 * (LiveSource in live.ts) and a notebook kernel's (KernelSource in kernel.ts).
 */
export interface DataSource {
  /** What every view may know at once: everything but the tables' rows and the arrays' numbers. */
  readonly head: Head;
  /** Whether a server answers, which has all rows and can start studies. */
  readonly live: boolean;
  /** Where the data is, in a sentence, for the foot of the page. */
  readonly place: string;
  /** Rows of one table whose columns equal `where`; [] where there is no such table. */
  rows(table: string, where?: Where): Promise<Row[]>;
  /** An array that `head.arrays` names; refused, in a sentence, where it is not here. */
  array(name: string): Promise<Tensor>;
  /** Searches a table where its rows are; without it, views search the rows: see search.ts. */
  search?(table: string, asked: Asked): Promise<Answer>;
  /** Columns of numbers, without making a row of each. */
  columns?(table: string, names: string[], where: Where): Promise<Numbers>;
  /** What the run's dictionary at a site answers to a text; `head.reads` says where it can. */
  read?(site: string, model: string, text: string): Promise<TextReading>;
}

/** Whether the run looked at a model's sites one by one, with dictionaries: what the sections by site speak of. */
export function isSurvey(head: Head): boolean {
  return (head.tables.sites ?? 0) > 0;
}

/** The data inside a self-contained page. */
export class EmbedSource implements DataSource {
  readonly head: Head;
  readonly live = false;
  readonly place = "This file is complete: it needs no network and sends nothing.";
  readonly #tables: Run["tables"];
  readonly #packed: Record<string, Packed>;

  constructor(run: Run) {
    const { packed = {}, ...rest } = run;
    this.#tables = run.tables;
    this.#packed = packed;
    const sizes = Object.entries(run.tables).map(([name, table]) => [name, length(Object.values(table)[0])] as const);
    this.head = { ...rest, tables: Object.fromEntries(sizes) };
  }

  /** What `compressed` of superscope/studio/html.py wrote into the page. */
  static async fromPage(page: Document): Promise<EmbedSource> {
    if (!("DecompressionStream" in window)) {
      throw new Error("This browser cannot unpack the report. Open it in Chrome 80, Firefox 113, Safari 16.4 or later.");
    }
    try {
      const packed = bytes(page.getElementById("run")!.textContent!);
      const run: unknown = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
      return new EmbedSource(run as Run);
    } catch (reason) {
      throw new Error(`This file is damaged: its data cannot be unpacked (${String(reason)}). Get it again, or make it again with superscope.`);
    }
  }

  rows(name: string, where: Where = {}): Promise<Row[]> {
    return Promise.resolve(name in this.#tables ? select(this.#plain(name), where) : []);
  }

  columns(name: string, names: string[], where: Where): Promise<Numbers> {
    const table = this.#tables[name] ?? {};
    const rows = matching(this.#plain(name, Object.keys(where)), where, length(Object.values(table)[0]));
    const found = names.map((column) => {
      const cells = table[column] ?? [];
      const numbers = Array.isArray(cells) ? cells : unpack(cells).data;
      return [column, Float64Array.from(rows, (row) => (typeof numbers[row] === "number" ? numbers[row] : NaN))] as const;
    });
    return Promise.resolve(Object.fromEntries(found));
  }

  /** A table whose columns are all lists, or some of its columns; what travelled as an array is unpacked once. */
  #plain(name: string, columns: string[] = Object.keys(this.#tables[name] ?? {})): Table {
    const table = this.#tables[name] ?? {};
    return Object.fromEntries(
      columns.flatMap((column) => {
        const cells = table[column];
        if (cells === undefined) return [];
        return [[column, Array.isArray(cells) ? cells : (table[column] = listed(cells))] as const];
      }),
    );
  }

  array(name: string): Promise<Tensor> {
    const packed = this.#packed[name];
    if (packed) return Promise.resolve(unpack(packed));
    const why = name in this.head.arrays ? "is too large for this page; the run folder has it in arrays.safetensors" : "is none of this run's";
    return Promise.reject(new Error(`The array ${name} ${why}.`));
  }
}

/** The rows of a table whose columns equal `where`. */
export function select(table: Table, where: Where = {}): Row[] {
  const columns = Object.entries(table);
  return matching(table, where, length(Object.values(table)[0])).map((row) => Object.fromEntries(columns.map(([column, cells]) => [column, cells[row] ?? null])));
}

/** Places of the rows that fit. */
function matching(table: Table, where: Where, rows: number): number[] {
  const conditions = Object.entries(where).map(([column, value]) => ({ cells: table[column], value, several: Array.isArray(value) ? new Set<Cell>(value) : undefined }));
  const found: number[] = [];
  for (let row = 0; row < rows; row++) {
    if (conditions.every(({ cells, value, several }) => (several ? several.has(cells?.[row] ?? null) : cells?.[row] === value))) found.push(row);
  }
  return found;
}

function listed(column: Packed): Cell[] {
  return Array.from(unpack(column).data, (value) => (Number.isNaN(value) ? null : value));
}

export function unpack({ dtype, shape, base64 }: Packed): Tensor {
  const kinds = { float32: Float32Array, float64: Float64Array, int32: Int32Array, uint8: Uint8Array };
  return { shape, data: new kinds[dtype](bytes(base64).buffer) };
}

function bytes(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) found[index] = text.charCodeAt(index);
  return found;
}

function length(column: Cell[] | Packed | undefined): number {
  return Array.isArray(column) ? column.length : (column?.shape[0] ?? 0);
}

/** The measurements of one name at one place, those for a single seed left aside unless asked for. */
export function measured(all: Measurement[], name: string, where: Where): Measurement[] {
  return all.filter(
    (m) =>
      m.name === name &&
      Object.entries(where).every(([key, value]) => m.at[key] === value) &&
      ("seed" in where || !("seed" in m.at)),
  );
}
