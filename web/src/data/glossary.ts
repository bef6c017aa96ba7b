import { getContext, setContext } from "svelte";
import type { Word } from "./run";

/** What a run's names are called and mean: App puts it into the page's context, every view takes it from there. */
export interface Glossary {
  /** The word of a measurement; none where nobody has explained it. */
  wordFor(name: string): Word | undefined;
  /** A readable name for any measurement, column or setting. */
  labelOf(name: string): string;
  /** The same for the head of a column. */
  headingOf(name: string): string;
}

const KEY = Symbol("glossary");

export function setGlossary(words: () => Record<string, Word>): Glossary {
  const wordFor = (name: string) => (Object.hasOwn(words(), name) ? words()[name] : undefined);
  return setContext<Glossary>(KEY, {
    wordFor,
    labelOf: (name) => wordFor(name)?.label ?? capital(name.replaceAll("_", " ")),
    headingOf: (name) => capital(wordFor(name)?.heading ?? name.replaceAll("_", " ")),
  });
}

export function glossary(): Glossary {
  return getContext<Glossary>(KEY);
}

function capital(words: string): string {
  // n, d and k are the symbols themselves.
  return words.length === 1 ? words : words.charAt(0).toUpperCase() + words.slice(1);
}
