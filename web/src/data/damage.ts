import type { Head } from "./run";

/** Whether a run measured ablations apart on texts that have what is taken out and on texts that have not. */
export function holdsAblations(head: Head): boolean {
  return head.measurements.some((m) => m.name === "loss_added" && "edit" in m.at && "where" in m.at);
}
