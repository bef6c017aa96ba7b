import type { Cell, Measurement } from "./run";

const MINUS = "\u2212";
const THIN = "\u202f";

/** A number for reading: whole numbers in full with thin spaces, others to `digits` significant digits. */
export function number(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined) return "undefined";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text: string;
  if (Number.isInteger(value) && size < 1e15) text = group(String(size));
  else if (size >= 1e6 || size < 1e-4) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    text = `${mantissa} × 10${superscript(Number(exponent))}`;
  } else if (size >= 10 ** digits) text = group(String(Math.round(size)));
  else text = size.toPrecision(digits);
  return value < 0 ? MINUS + text : text;
}

export function superscript(value: number): string {
  return [...String(value)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
}

/** A number beside an axis: no zeros that say nothing. */
export function tick(value: number): string {
  const text = number(Number(value.toPrecision(4)), 4);
  return text.includes(".") && !text.includes("×") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

/** 10^x as text: 10⁻³. */
export function powerOfTen(exponent: number): string {
  return Number.isInteger(exponent) ? `10${superscript(exponent)}` : number(10 ** exponent, 2);
}

export function percent(share: number): string {
  return `${share === 0 ? "0" : number(Number((100 * share).toPrecision(2)), 2)}${THIN}%`;
}

/** Wilson's 95 % interval of a share of n. */
export function wilson(share: number, n: number): [number, number] {
  if (!n) return [0, 1];
  const z = 1.959964;
  const middle = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function group(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, THIN);
}

export function interval(m: Measurement): string {
  return m.low === null || m.high === null ? "" : `${number(m.low)} to ${number(m.high)}`;
}

/** Everything a reader must see beside a value, in one line. */
export function circumstances(m: Measurement): string {
  const spread = m.low === null ? noInterval(m) : `${interval(m)} (${m.how})`;
  return `${spread}; n = ${number(m.n)} ${m.of}`;
}

export function noInterval(m: Measurement): string {
  return /no interval/i.test(m.how) ? m.how : `no interval: ${m.how || "none was computed"}`;
}

export function sentence(m: Measurement): string {
  const parts = [`${number(m.value)} ${m.unit}`, circumstances(m)];
  if (m.chance !== null) parts.push(`chance ${number(m.chance)} (${m.chance_is})`);
  if (m.reference !== null) parts.push(`${m.reference_is} ${number(m.reference)}`);
  if (m.caution) parts.push(m.caution);
  return parts.join("; ");
}

/** A cell of any table as text. */
export function cellText(cell: Cell | undefined): string {
  if (cell === null || cell === undefined) return "";
  if (typeof cell === "number") return number(cell, 4);
  if (typeof cell === "object") return JSON.stringify(cell);
  return String(cell);
}
