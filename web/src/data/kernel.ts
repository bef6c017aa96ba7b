import type { Head, Packed, Row, Table, Tensor, Where } from "./run";
import { select, unpack, type DataSource } from "./source";

/** What superscope/studio/notebook.py says and hears; each question has a number, which its answer repeats. */
type Question = { ask: "head" } | { ask: "rows"; table: string; where: Where } | { ask: "array"; name: string };
type Answer = { number: number; error: string } | { number: number; error?: undefined; value: string };

/** A run that the kernel of a notebook holds: this page stands in a frame of its cell, and asks through a port. */
export class KernelSource implements DataSource {
  readonly live = false;
  readonly place = "Read from the notebook's kernel; nothing is sent anywhere else.";
  readonly #waiting = new Map<number, { done: (value: unknown) => void; failed: (reason: Error) => void }>();
  #asked = 0;
  head!: Head;

  private constructor(readonly port: MessagePort) {
    port.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.get(data.number);
      this.#waiting.delete(data.number);
      if (data.error === undefined) waiting?.done(JSON.parse(data.value));
      else waiting?.failed(new Error(data.error));
    };
  }

  static isMeant(page: Document): boolean {
    return page.getElementById("run")!.textContent === '"kernel"';
  }

  /** Waits for the port that the cell hands in, and for what every view may know at once. */
  static async open(): Promise<KernelSource> {
    const port = await new Promise<MessagePort>((done) => {
      addEventListener("message", (event) => {
        if (event.source === parent && event.ports[0]) done(event.ports[0]);
      });
      parent.postMessage("superscope", "*");
    });
    // A frame of no origin may not follow links to itself; it may say that it has.
    document.addEventListener("click", (event) => {
      const link = (event.target as Element).closest("a[href^='#']");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      history.pushState(null, "", link.getAttribute("href"));
      dispatchEvent(new HashChangeEvent("hashchange"));
    });
    const source = new KernelSource(port);
    source.head = (await source.#ask({ ask: "head" })) as Head;
    return source;
  }

  async rows(table: string, where: Where = {}): Promise<Row[]> {
    if (!(table in this.head.tables)) return [];
    return select((await this.#ask({ ask: "rows", table, where })) as Table);
  }

  async array(name: string): Promise<Tensor> {
    return unpack((await this.#ask({ ask: "array", name })) as Packed);
  }

  #ask(question: Question): Promise<unknown> {
    const number = this.#asked++;
    return new Promise((done, failed) => {
      this.#waiting.set(number, { done, failed });
      // Svelte's proxies cannot be sent; what they hold can.
      this.port.postMessage({ number, ...(JSON.parse(JSON.stringify(question)) as Question) });
    });
  }
}
