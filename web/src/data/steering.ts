import type { Head, Measurement, Row } from "./run";

/** What is known of one dose, whichever study gave it. Null where it was not measured. */
export interface Dose {
  dose: number;
  norms: number | null;
  predicted: number | null;
  effect: Range;
  /** What unrelated predictions lose: their divergence where it was measured, else the loss that is added. */
  cost: Range;
  loss: Range;
  normRatio: number | null;
  offTarget: number | null;
  /** Random directions at this dose. */
  effectChance: Range;
  costChance: Range;
}

export interface Range {
  value: number | null;
  low: number | null;
  high: number | null;
}

const NONE: Range = { value: null, low: null, high: null };
const num = (cell: unknown): number | null => (typeof cell === "number" ? cell : null);
const range = (row: Row | undefined, value: string, low: string, high: string): Range => (row ? { value: num(row[value]), low: num(row[low]), high: num(row[high]) } : NONE);
const of = (m: Measurement | undefined): Range => (m ? { value: m.value, low: m.low, high: m.high } : NONE);

/** The doses of a run, from the least to the most. */
export function dosesOf(head: Head, table: Row[], chance: Row[]): Dose[] {
  const at = (name: string, dose: unknown) => head.measurements.find((m) => m.name === name && (m.at.strength === dose || m.at.dose === dose));
  return table
    .map((row): Dose => {
      const random = chance.find((each) => each.dose === row.dose);
      const dose = Number(row.dose ?? row.strength);
      // `superscope steer` keeps in its table what no measurement says.
      const isBench = "effect" in row;
      const loss = isBench ? range(row, "delta_loss", "loss_low", "loss_high") : of(at("loss_added", dose));
      return {
        dose,
        norms: num(row.norms) ?? (head.settings.unit === "nats" ? null : dose),
        predicted: num(row.predicted_nats),
        effect: isBench ? range(row, "effect", "effect_low", "effect_high") : of(at("steered_log_odds", dose)),
        cost: isBench ? range(row, "kl", "kl_low", "kl_high") : of(at("steering_kl", dose) ?? at("loss_added", dose)),
        loss,
        normRatio: num(row.norm_ratio),
        offTarget: num(row.off_target),
        effectChance: range(random, "effect_median", "effect_low", "effect_high"),
        costChance: range(random, "kl_median", "kl_low", "kl_high"),
      };
    })
    .sort((a, b) => a.dose - b.dose);
}

/** Points of a curve over doses, with the ends of their intervals; what was not measured is left out. */
export function curve(doses: Dose[], x: (dose: Dose) => number | null, y: (dose: Dose) => Range) {
  const known = doses.flatMap((dose) => {
    const [a, b] = [x(dose), y(dose)];
    return a === null || b.value === null ? [] : [{ a, b }];
  });
  return {
    points: known.map(({ a, b }): [number, number] => [a, b.value!]),
    low: known.map(({ b }) => b.low ?? b.value!),
    high: known.map(({ b }) => b.high ?? b.value!),
  };
}
