import type { Component } from "svelte";
import type { Session } from "../data/api";

/** What a screen of the live studio is given. */
export interface ScreenProps {
  session: Session;
  /** What follows the screen's own part of the address: `/run/toy` gives run `toy`. */
  rest: string;
}

/** A page of the live studio that is no run's section: one file, and its name in the list. */
export interface Screen {
  default: Component<ScreenProps>;
  /** First part of its address; "" is the start page. */
  path: string;
  /** Its name in the bar at the top; none where one only comes to it from another screen. */
  label: string;
}

/** Keeps what a screen shows in the query of its address, in one order whichever was chosen first; empty values are left out. */
export function query(change: Record<string, string>): void {
  const parameters = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(change)) {
    parameters.delete(key);
    if (value) parameters.set(key, value);
  }
  const text = parameters.toString();
  history.replaceState(null, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
}

export function asked(key: string): string {
  return new URLSearchParams(location.search).get(key) ?? "";
}

/** How a moment in UTC is shown: without its seconds. */
export function moment(iso: string): string {
  return iso.slice(0, 16).replace("T", " ");
}
