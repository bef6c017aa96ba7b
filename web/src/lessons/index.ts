import type { Lesson } from "./lesson";

const files = import.meta.glob<{ lesson: Lesson }>("./[0-9]*.ts", { eager: true });

/** All lessons, in their order. A new one is a new file here whose name begins with a number. */
export const LESSONS: readonly Lesson[] = Object.values(files)
  .map(({ lesson }) => lesson)
  .sort((a, b) => a.order - b.order);
