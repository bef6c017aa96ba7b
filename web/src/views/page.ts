import type { Component } from "svelte";
import type { DataSource, Head } from "../data/source";
import type { View } from "../view.svelte";

/** What every section of the page is given; it takes what it needs. */
export interface PageProps {
  source: DataSource;
  view: View;
  sites: string[];
  site: string;
  model: string;
  /** Names of the measurements that sections by site show. */
  placed: ReadonlySet<string>;
}

/** What a section says of itself, beside its component in the same file. */
export interface About {
  /** Its place in the address. */
  id: string;
  /** Its line in the contents. */
  label: string;
  /** What it speaks of: all sites beside each other, the one chosen, or the run. */
  of: "sites" | "site" | "run";
  /** The measurements it shows at a site; those that no section shows stand in the general table. */
  measurements?: readonly string[];
  /** Whether this run has anything for it. */
  shows(head: Head): boolean;
}

export interface Page {
  default: Component<PageProps>;
  about: About;
}

/** Whether a run has one of these measurements at a site, or rows in one of these tables. */
export function holds(head: Head, measurements: readonly string[], ...tables: string[]): boolean {
  return (
    tables.some((name) => (head.tables[name] ?? 0) > 0) ||
    head.measurements.some((m) => "site" in m.at && measurements.includes(m.name))
  );
}
