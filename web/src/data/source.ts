import type { LeftOut, Measurement, Row, Run, Table, Where } from "./run";

/** What every view may know at once: everything but the tables. */
export interface Head extends Omit<Run, "tables"> {
  /** Names of the tables and how many rows each has here. */
  tables: Record<string, number>;
}

/**
 * Where a view's data comes from. Views never fetch: the same views read a page's own data here, and can read a
 * server or a notebook kernel through another class with these two members.
 */
export interface DataSource {
  readonly head: Head;
  /** Rows of one table whose columns equal `where`; [] where there is no such table. */
  rows(table: string, where?: Where): Promise<Row[]>;
}

/** Whether the run looked at a model's sites one by one, with dictionaries: what the sections by site speak of. */
export function isSurvey(head: Head): boolean {
  return (head.tables.sites ?? 0) > 0;
}

/** The data inside a self-contained page. */
export class EmbedSource implements DataSource {
  readonly head: Head;
  readonly #tables: Record<string, Table>;

  constructor(run: Run) {
    this.#tables = run.tables;
    const sizes = Object.entries(run.tables).map(([name, table]) => [name, length(table)] as const);
    this.head = { ...run, tables: Object.fromEntries(sizes) };
  }

  static fromPage(page: Document): EmbedSource {
    return new EmbedSource(JSON.parse(page.getElementById("run")!.textContent!) as Run);
  }

  rows(name: string, where: Where = {}): Promise<Row[]> {
    const table = this.#tables[name];
    if (!table) return Promise.resolve([]);
    const conditions = Object.entries(where);
    const columns = Object.entries(table);
    const found: Row[] = [];
    for (let row = 0; row < length(table); row++) {
      if (conditions.every(([column, value]) => table[column]?.[row] === value)) {
        found.push(Object.fromEntries(columns.map(([column, cells]) => [column, cells[row] ?? null])));
      }
    }
    return Promise.resolve(found);
  }
}

function length(table: Table): number {
  return Object.values(table)[0]?.length ?? 0;
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

export type { LeftOut };
