import type {
  AskText, BenchState, Columns, Comparable, Found, Head, Job, JobList, Kept, Packed, RunList, Rows, Session, StartJob, StudyForm,
  TextReading, Try,
} from "./api";
import type { Row, Run, Tensor, Where } from "./run";
import type { Answer, Asked, Numbers } from "./search";
import { select, unpack, type DataSource } from "./source";

/** Asks the studio's server; what it refuses, or has not yet, arrives as an Error with the server's sentence. */
async function ask<T>(path: string, body?: unknown): Promise<T> {
  const request: RequestInit =
    body === undefined
      ? {}
      : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer: Response;
  try {
    answer = await fetch(`/api/${path}`, { ...request, credentials: "same-origin" });
  } catch {
    throw new Error("The studio's server does not answer. Start it again with `superscope studio`, then reload.");
  }
  const said: unknown = await answer.json().catch(() => undefined);
  // 202: what is asked for is still being made, which is no failure to the browser.
  if (!answer.ok || answer.status === 202) {
    const sentence = (said as { error?: string } | undefined)?.error;
    throw new Error(sentence ?? `The server answered ${answer.status}.`);
  }
  return said as T;
}

const part = encodeURIComponent;

function compared(of: string[], threshold: string): string {
  return new URLSearchParams([...of.map((each) => ["of", each]), ["threshold", threshold]]).toString();
}

/** The server's routes, one member each: see superscope/studio/server/routes/. */
export const server = {
  session: () => ask<Session>("session"),
  runs: () => ask<RunList>("runs"),
  head: (run: string) => ask<Head>(`runs/${part(run)}`),
  rows: (run: string, table: string, how: { where?: Where; sort?: string; descending?: boolean; limit?: number; offset?: number } = {}) => {
    const query = new URLSearchParams();
    if (how.where && Object.keys(how.where).length) query.set("where", JSON.stringify(how.where));
    if (how.sort) query.set("sort", how.sort);
    if (how.descending) query.set("descending", "true");
    if (how.limit !== undefined) query.set("limit", String(how.limit));
    if (how.offset) query.set("offset", String(how.offset));
    return ask<Rows>(`runs/${part(run)}/tables/${part(table)}?${query}`);
  },
  array: (run: string, name: string) => ask<Packed>(`runs/${part(run)}/arrays/${part(name)}`),
  columns: (run: string, table: string, names: string[], where: Where) => {
    const query = new URLSearchParams(names.map((name) => ["names", name]));
    query.set("where", JSON.stringify(where));
    return ask<Columns>(`runs/${part(run)}/columns/${part(table)}?${query}`);
  },
  search: (run: string, table: string, { where = {}, limit = 60, ...asked }: Asked) => {
    const query = new URLSearchParams({ asked: JSON.stringify(asked), where: JSON.stringify(where), limit: String(limit) });
    return ask<Found>(`runs/${part(run)}/search/${part(table)}?${query}`);
  },
  read: (run: string, asked: AskText) => ask<TextReading>(`runs/${part(run)}/text`, asked),
  /** Where the run's single-file page is downloaded from. */
  pageOf: (run: string) => `/api/runs/${part(run)}/report.html`,
  studies: () => ask<StudyForm[]>("studies"),
  jobs: () => ask<JobList>("jobs"),
  start: (job: StartJob) => ask<Job>("jobs", job),
  cancel: (job: string) => ask<Job>(`jobs/${part(job)}/cancel`, {}),
  resume: (job: string) => ask<Job>(`jobs/${part(job)}/resume`, {}),
  bench: () => ask<BenchState>("bench"),
  /** What a trial at the bench found, whole. */
  trial: (id: string) => ask<Run>(`bench/${part(id)}`),
  pageOfTrial: (id: string) => `/api/bench/${part(id)}/report.html`,
  tryOut: (asked: Try) => ask<BenchState>("bench", asked),
  stopTrial: () => ask<BenchState>("bench/stop", {}),
  keepTrial: (id: string) => ask<Kept>(`bench/${part(id)}/keep`, {}),
  comparable: () => ask<Comparable>("compare/sources"),
  compare: (of: string[], threshold: string) => ask<Run>(`compare?${compared(of, threshold)}`),
  pageOfComparison: (of: string[], threshold: string) => `/api/compare/report.html?${compared(of, threshold)}`,
  /** Calls back with all jobs whenever one of them has changed; returns what ends it. */
  watch: (take: (jobs: Job[]) => void, lost: (isLost: boolean) => void): (() => void) => {
    const events = new EventSource("/api/events");
    events.addEventListener("jobs", (event) => {
      lost(false);
      take((JSON.parse(event.data as string) as JobList).jobs);
    });
    events.onerror = () => lost(true);
    return () => events.close();
  },
};

/** A run that the server reads from its folder, with all its rows. */
export class LiveSource implements DataSource {
  readonly live = true;
  readonly place = "Read from the run's folder by the server on this machine; nothing is sent anywhere.";
  /** Calls that ask for the same are answered once. */
  readonly #asked = new Map<string, Promise<unknown>>();

  constructor(
    readonly id: string,
    readonly head: Head,
    /** Told, in a sentence, whatever could not be read. */
    readonly failed: (sentence: string) => void = () => {},
  ) {}

  static async open(id: string, failed?: (sentence: string) => void): Promise<LiveSource> {
    return new LiveSource(id, await server.head(id), failed);
  }

  rows(table: string, where: Where = {}): Promise<Row[]> {
    if (!(table in this.head.tables)) return Promise.resolve([]);
    return this.#once(`table ${table} ${JSON.stringify(where)}`, async () => select((await server.rows(this.id, table, { where })).columns));
  }

  async search(table: string, asked: Asked): Promise<Answer> {
    if (!(table in this.head.tables)) return { matching: 0, of: 0, keys: [], rows: [] };
    const { matching, of, keys, columns } = await this.#said(server.search(this.id, table, asked));
    return { matching, of, keys: unpack(keys).data, rows: select(columns) };
  }

  columns(table: string, names: string[], where: Where): Promise<Numbers> {
    return this.#once(`columns ${table} ${names.join()} ${JSON.stringify(where)}`, async () => {
      const { columns } = await server.columns(this.id, table, names, where);
      return Object.fromEntries(Object.entries(columns).map(([name, packed]) => [name, unpack(packed).data]));
    });
  }

  read(site: string, model: string, text: string): Promise<TextReading> {
    return server.read(this.id, { site, model, text });
  }

  array(name: string): Promise<Tensor> {
    return this.#once(`array ${name}`, async () => unpack(await server.array(this.id, name)));
  }

  #once<T>(key: string, question: () => Promise<T>): Promise<T> {
    let answer = this.#asked.get(key) as Promise<T> | undefined;
    if (!answer) {
      answer = this.#said(question());
      answer.catch(() => this.#asked.delete(key));
      this.#asked.set(key, answer);
    }
    return answer;
  }

  /** Tells what went wrong, too. */
  #said<T>(answer: Promise<T>): Promise<T> {
    answer.catch((reason: unknown) => this.failed(reason instanceof Error ? reason.message : String(reason)));
    return answer;
  }
}
