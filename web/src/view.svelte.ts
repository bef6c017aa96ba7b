/**
 * What the page shows, held in the address: #/section?site=...&model=...&feature=...
 * A link restores it, back and forward walk through it, and keys this page does not know are kept.
 */
export interface ViewState {
  section: string;
  site: string;
  model: string;
  feature: string;
  q: string;
  sort: string;
  rows: string;
}

const KEYS = ["site", "model", "feature", "q", "sort", "rows"] as const;

export function parse(hash: string): { state: ViewState; unknown: [string, string][] } {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parameters = new URLSearchParams(query);
  const state: ViewState = { section: path, site: "", model: "", feature: "", q: "", sort: "", rows: "" };
  const unknown: [string, string][] = [];
  for (const [key, value] of parameters) {
    if ((KEYS as readonly string[]).includes(key)) state[key as (typeof KEYS)[number]] = value;
    else unknown.push([key, value]);
  }
  return { state, unknown };
}

export class View {
  /** Keys that belong to single sections, and those of other versions: all are kept. */
  #others: [string, string][] = $state.raw([]);
  state: ViewState = $state(parse("").state);
  /** Counts navigations, so that a link to the section one is in scrolls to it again. */
  visits = $state(0);

  constructor() {
    this.#read();
    addEventListener("hashchange", () => {
      this.#read();
      this.visits++;
    });
  }

  #read(): void {
    const { state, unknown } = parse(location.hash);
    this.state = state;
    this.#others = unknown;
  }

  /** The address of this view with some of it changed, and some of sections' own keys; empty values are left out. */
  href(change: Partial<ViewState>, own: Record<string, string> = {}): string {
    const next = { ...this.state, ...change };
    const parameters = new URLSearchParams();
    for (const key of KEYS) if (next[key]) parameters.set(key, next[key]);
    for (const [key, value] of this.#others) if (!(key in own)) parameters.append(key, value);
    for (const [key, value] of Object.entries(own)) if (value) parameters.append(key, value);
    const query = parameters.toString();
    return `#/${next.section}${query ? `?${query}` : ""}`;
  }

  /** What the address says under a section's own key; "" where nothing. */
  own(key: string): string {
    return this.#others.find(([name]) => name === key)?.[1] ?? "";
  }

  /** Changes sections' own keys without a step in the history; empty values are left out. */
  keep(change: Record<string, string>): void {
    const kept = this.#others.filter(([name]) => !(name in change));
    this.#others = [...kept, ...Object.entries(change).filter(([, value]) => value !== "")];
    history.replaceState(null, "", this.href({}));
  }

  /** Changes the view without a step in the history: for typing and choosing an order. */
  adjust(change: Partial<ViewState>): void {
    history.replaceState(null, "", this.href(change));
    this.#read();
  }
}
