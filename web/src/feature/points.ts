/** Many points on a canvas, pixel by pixel: a hundred thousand in a few milliseconds, on any machine. */

/** What part of the map is seen: its middle, and pixels per unit of the map. */
export interface Window {
  x: number;
  y: number;
  scale: number;
}

export interface Cloud {
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  /** Of each point, its place in the palette. */
  shade: Uint8Array;
  /** 1 where a point is lit, 0 where it stands aside. */
  lit: Uint8Array;
}

export const SHADES = 32;

/** The whole cloud, with a margin. */
export function whole(cloud: Pick<Cloud, "x" | "y">, width: number, height: number): Window {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < cloud.x.length; i++) {
    const [x, y] = [cloud.x[i]!, cloud.y[i]!];
    if (Number.isNaN(x)) continue;
    left = Math.min(left, x);
    right = Math.max(right, x);
    low = Math.min(low, y);
    high = Math.max(high, y);
  }
  if (!(left <= right)) return { x: 0, y: 0, scale: 1 };
  return { x: (left + right) / 2, y: (low + high) / 2, scale: 0.92 * Math.min(width / Math.max(right - left, 1e-9), height / Math.max(high - low, 1e-9)) };
}

/** Draws all points; those that stand aside first. Returns how many of the lit ones are in sight. */
export function draw(canvas: HTMLCanvasElement, cloud: Cloud, seen: Window, palette: Uint32Array, aside: number, ratio: number): number {
  const [width, height] = [canvas.width, canvas.height];
  const context = canvas.getContext("2d");
  if (!context || !width || !height) return 0;
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const n = cloud.x.length;
  // Smaller where there are many, larger as one comes nearer.
  const crowd = Math.sqrt((n * 60) / (width * height)) * Math.max(1, 1 / (seen.scale * 0.02));
  const size = Math.max(1, Math.round(ratio * Math.max(1.4, Math.min(6, 3.4 / Math.max(crowd, 0.4)))));
  const [scale, middle, centre] = [seen.scale * ratio, width / 2 - (size - 1) / 2, height / 2 - (size - 1) / 2];
  // What each line of a disc leaves out at either end.
  const cuts = Array.from({ length: size }, (_, row) => Math.ceil(size / 2 - Math.sqrt((size / 2) ** 2 - (row + 0.5 - size / 2) ** 2) - 0.3));
  let inSight = 0;
  for (let pass = 0; pass < 2; pass++) {
    for (let i = 0; i < n; i++) {
      if (cloud.lit[i] !== pass) continue;
      const left = Math.round((cloud.x[i]! - seen.x) * scale + middle);
      const top = Math.round((seen.y - cloud.y[i]!) * scale + centre);
      if (!(left >= 0 && top >= 0 && left + size <= width && top + size <= height)) continue;
      inSight += pass;
      const ink = pass ? palette[cloud.shade[i]!]! : aside;
      for (let row = 0, at = top * width + left; row < size; row++, at += width) {
        const cut = cuts[row]!;
        for (let column = cut; column < size - cut; column++) pixels[at + column] = ink;
      }
    }
  }
  context.putImageData(picture, 0, 0);
  return inSight;
}

/** The point nearest to a place of the map among those that are lit; -1 where none is within reach. */
export function nearest(cloud: Cloud, x: number, y: number, reach: number): number {
  let [found, best] = [-1, reach * reach];
  for (let i = 0; i < cloud.x.length; i++) {
    if (!cloud.lit[i]) continue;
    const distance = (cloud.x[i]! - x) ** 2 + (cloud.y[i]! - y) ** 2;
    if (distance < best) [found, best] = [i, distance];
  }
  return found;
}

/** The nearest lit point in a direction: within 45 degrees of it, distances across it counting double. */
export function next(cloud: Cloud, from: number, dx: number, dy: number): number {
  let [found, best] = [-1, Infinity];
  for (let i = 0; i < cloud.x.length; i++) {
    if (!cloud.lit[i] || i === from) continue;
    const [a, b] = [cloud.x[i]! - cloud.x[from]!, cloud.y[i]! - cloud.y[from]!];
    const [ahead, across] = [a * dx + b * dy, Math.abs(a * dy - b * dx)];
    if (!(ahead > 0) || across > ahead) continue;
    const distance = ahead + 2 * across;
    if (distance < best) [found, best] = [i, distance];
  }
  return found;
}

/** A number's place in a palette: from the 2nd to the 98th of a hundred, what lies beyond counted at the ends. */
export function shaded(values: ArrayLike<number>, logarithmic: boolean): { shade: Uint8Array; low: number; high: number } {
  const shade = new Uint8Array(values.length);
  const known = Float64Array.from(values).filter((v) => Number.isFinite(v) && (!logarithmic || v > 0)).sort();
  if (!known.length) return { shade, low: NaN, high: NaN };
  const at = (q: number) => known[Math.min(known.length - 1, Math.floor(q * known.length))]!;
  const [low, high] = [at(0.02), at(0.98)];
  const of = (v: number) => (logarithmic ? Math.log(Math.max(v, 1e-300)) : v);
  const span = of(high) - of(low) || 1;
  for (let i = 0; i < values.length; i++) {
    const share = (of(values[i]!) - of(low)) / span;
    shade[i] = Math.max(0, Math.min(SHADES - 1, Math.floor((Number.isFinite(share) ? share : 0) * SHADES)));
  }
  return { shade, low, high };
}

type Ink = [number, number, number];

/** A colour of the theme, written #rrggbb. */
export function ink(name: string): Ink {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const six = text.length === 4 ? [...text.slice(1)].map((c) => c + c).join("") : text.slice(1);
  return [0, 2, 4].map((at) => parseInt(six.slice(at, at + 2), 16) || 0) as Ink;
}

const mixed = (a: Ink, b: Ink, share: number) => a.map((v, i) => Math.round(v + share * (b[i]! - v))) as Ink;
const packed = ([r, g, b]: Ink) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** From pale to strong in the theme's one hue, so that order can be seen without it. */
export function palette(): { inks: Uint32Array; aside: number; css: string[] } {
  const [panel, hue, text, line] = [ink("--panel"), ink("--trained"), ink("--ink"), ink("--line")];
  const [pale, strong] = [mixed(panel, hue, 0.38), mixed(hue, text, 0.72)];
  const steps = Array.from({ length: SHADES }, (_, i) => {
    const share = i / (SHADES - 1);
    return share < 0.55 ? mixed(pale, hue, share / 0.55) : mixed(hue, strong, (share - 0.55) / 0.45);
  });
  return { inks: Uint32Array.from(steps, packed), aside: packed(line), css: steps.map((step) => `rgb(${step.join(" ")})`) };
}
