/** Marks that differ in shape as well as in colour: disc for the model, diamond for its random-weight control. */
export function diamond(x: number, y: number, r: number): string {
  return `M${x},${y - r}L${x + r},${y}L${x},${y + r}L${x - r},${y}Z`;
}

export const isControl = (model: string | number | undefined) => model === "control";
