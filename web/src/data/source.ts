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

type Columns = Run["tables"][string];

/** The data inside a self-contained page, or a whole run that a server made. */
export class EmbedSource implements DataSource {
  readonly live = false;
  readonly place = "This file is complete: it needs no network and sends nothing.";

  private constructor(
    readonly head: Head,
    readonly table: (name: string) => Promise<Columns>,
    readonly packed: Record<string, Packed>,
  ) {}

  static of({ packed = {}, ...run }: Run): EmbedSource {
    const rows = Object.entries(run.tables).map(([name, table]) => [name, length(Object.values(table)[0])] as const);
    return new EmbedSource({ ...run, tables: Object.fromEntries(rows) }, (name) => Promise.resolve(run.tables[name]!), packed);
  }

  /** What `in_lines` of superscope/studio/html.py wrote into the page: each table is unpacked when it is first asked for. */
  static async fromPage(page: Document): Promise<EmbedSource> {
    if (!("DecompressionStream" in window)) {
      throw new Error("This browser cannot unpack the report. Open it in Chrome 80, Firefox 113, Safari 16.4 or later.");
    }
    const [first = "", ...lines] = page.getElementById("run")!.textContent!.split("\n");
    const { packed, names, ...head } = (await unzip(first)) as Head & { packed: Record<string, Packed>; names: string[] };
    const found = new Map<string, Promise<Columns>>();
    const table = (name: string) => {
      if (!found.has(name)) found.set(name, unzip(lines[names.indexOf(name)] ?? "") as Promise<Columns>);
      return found.get(name)!;
    };
    return new EmbedSource(head, table, packed);
  }

  async rows(name: string, where: Where = {}): Promise<Row[]> {
    return name in this.head.tables ? select(plain(await this.table(name)), where) : [];
  }

  async columns(name: string, names: string[], where: Where): Promise<Numbers> {
    const table = name in this.head.tables ? await this.table(name) : {};
    const rows = matching(plain(table, Object.keys(where)), where, length(Object.values(table)[0]));
    const found = names.map((column) => {
      const cells = table[column] ?? [];
      const numbers = Array.isArray(cells) ? cells : unpack(cells).data;
      return [column, Float64Array.from(rows, (row) => (typeof numbers[row] === "number" ? numbers[row] : NaN))] as const;
    });
    return Object.fromEntries(found);
  }

  array(name: string): Promise<Tensor> {
    const packed = this.packed[name];
    if (packed) return Promise.resolve(unpack(packed));
    const why = name in this.head.arrays ? "is too large for this page; the run folder has it in arrays.safetensors" : "is none of this run's";
    return Promise.reject(new Error(`The array ${name} ${why}.`));
  }
}

/** A line of JSON as `compressed` of superscope/studio/html.py wrote it. */
async function unzip(line: string): Promise<unknown> {
  try {
    return await new Response(new Blob([bytes(line)]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  } catch (reason) {
    throw new Error(`This file is damaged: its data cannot be unpacked (${String(reason)}). Get it again, or make it again with superscope.`);
  }
}

/** A table whose columns are all lists, or some of its columns; what travelled as an array is unpacked once. */
function plain(table: Columns, columns: string[] = Object.keys(table)): Table {
  return Object.fromEntries(
    columns.flatMap((column) => {
      const cells = table[column];
      if (cells === undefined) return [];
      return [[column, Array.isArray(cells) ? cells : (table[column] = listed(cells))] as const];
    }),
  );
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
