/** What an arrangement of atoms is: the same quantities as superscope.measure.toy, and coordinates to draw it in. */
import { dot, norm } from "./random";

type Atoms = readonly (readonly number[])[];

/** Norm below which a feature counts as not represented. */
export const FAINT = 0.1;

export const gram = (atoms: Atoms): number[][] => atoms.map((a) => atoms.map((b) => dot(a, b)));

/** D_i = |W_i|^2 / sum_j (W_i/|W_i| . W_j)^2: how much of a dimension each feature has to itself. */
export function dimensionalities(atoms: Atoms): number[] {
  return atoms.map((a) => {
    const square = dot(a, a);
    return square < 1e-12 ? 0 : square ** 2 / atoms.reduce((sum, b) => sum + dot(a, b) ** 2, 0);
  });
}

/** sum over j != i of (W_i/|W_i| . W_j)^2: what the others do to a feature's direction. */
export function interference(atoms: Atoms): number[] {
  return atoms.map((a, i) => {
    const square = dot(a, a);
    return square < 1e-12 ? 0 : atoms.reduce((sum, b, j) => (j === i ? sum : sum + dot(a, b) ** 2 / square), 0);
  });
}

/** Groups of represented features that overlap by more than `threshold`, largest first: factors of a tegum product. */
export function components(atoms: Atoms, threshold = 0.1): number[][] {
  const waiting = new Set(atoms.flatMap((a, i) => (norm(a) > FAINT ? [i] : [])));
  const found: number[][] = [];
  while (waiting.size) {
    const members: number[] = [];
    const edge = [Math.min(...waiting)];
    waiting.delete(edge[0]!);
    while (edge.length) {
      const i = edge.pop()!;
      members.push(i);
      for (const j of [...waiting]) {
        if (Math.abs(dot(atoms[i]!, atoms[j]!)) > threshold) {
          waiting.delete(j);
          edge.push(j);
        }
      }
    }
    found.push(members.sort((a, b) => a - b));
  }
  return found.sort((a, b) => b.length - a.length || a[0]! - b[0]!);
}

/** Eigenvalues, largest first, and unit eigenvectors of a symmetric matrix: Jacobi's rotations. */
export function eigen(matrix: readonly (readonly number[])[]): { values: number[]; vectors: number[][] } {
  const n = matrix.length;
  const A = matrix.map((row) => [...row]);
  const V = A.map((_, i) => A.map((__, j) => (i === j ? 1 : 0) as number));
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += A[p]![q]! ** 2;
    if (off < 1e-22) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (Math.abs(A[p]![q]!) < 1e-15) continue;
        const theta = (A[q]![q]! - A[p]![p]!) / (2 * A[p]![q]!);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (let k = 0; k < n; k++) {
          const [kp, kq] = [A[k]![p]!, A[k]![q]!];
          A[k]![p] = c * kp - s * kq;
          A[k]![q] = s * kp + c * kq;
        }
        for (let k = 0; k < n; k++) {
          const [pk, qk] = [A[p]![k]!, A[q]![k]!];
          A[p]![k] = c * pk - s * qk;
          A[q]![k] = s * pk + c * qk;
          const [vp, vq] = [V[k]![p]!, V[k]![q]!];
          V[k]![p] = c * vp - s * vq;
          V[k]![q] = s * vp + c * vq;
        }
      }
    }
  }
  const order = A.map((_, i) => i).sort((a, b) => A[b]![b]! - A[a]![a]!);
  return { values: order.map((i) => A[i]![i]!), vectors: order.map((i) => V.map((row) => row[i]!)) };
}

/** Coordinates of atoms in the `dims` directions that hold most of them, and the share of squared length these hold. */
export function principal(atoms: Atoms, dims: number): { points: number[][]; share: number } {
  if (!atoms.length || atoms[0]!.length <= dims) return { points: atoms.map((a) => [...a]), share: 1 };
  const { values, vectors } = eigen(gram(atoms));
  const points = atoms.map((_, i) => Array.from({ length: dims }, (__, k) => Math.sqrt(Math.max(values[k] ?? 0, 0)) * (vectors[k]?.[i] ?? 0)));
  const sum = (all: number[]) => all.reduce((total, v) => total + Math.max(v, 0), 0);
  return { points, share: sum(values.slice(0, dims)) / (sum(values) || 1) };
}

/** Faces of the convex hull of points in R^3, as triples; [] where they lie in a plane. For up to about 40 points. */
export function hull(points: readonly (readonly number[])[]): [number, number, number][] {
  const n = points.length;
  const faces: [number, number, number][] = [];
  if (n < 4 || n > 40) return faces;
  const scale = Math.max(...points.map(norm)) || 1;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      for (let k = j + 1; k < n; k++) {
        const [a, b, c] = [points[i]!, points[j]!, points[k]!];
        const u = [0, 1, 2].map((x) => b[x]! - a[x]!);
        const v = [0, 1, 2].map((x) => c[x]! - a[x]!);
        const normal = [u[1]! * v[2]! - u[2]! * v[1]!, u[2]! * v[0]! - u[0]! * v[2]!, u[0]! * v[1]! - u[1]! * v[0]!];
        if (norm(normal) < 1e-9 * scale * scale) continue;
        let [above, below] = [false, false];
        for (let m = 0; m < n && !(above && below); m++) {
          const side = dot(normal, points[m]!) - dot(normal, a);
          if (side > 1e-6 * scale ** 3) above = true;
          if (side < -1e-6 * scale ** 3) below = true;
        }
        // Points that all lie in one plane have no inside.
        if (above !== below) faces.push([i, j, k]);
      }
    }
  }
  return faces;
}
