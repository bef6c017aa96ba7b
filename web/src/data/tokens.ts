/** A stretch of a token: `mark` is set where it stands for a character that cannot be seen. */
export interface Piece {
  text: string;
  mark: boolean;
}

const NAMED: Record<string, string> = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽", "\u007f": "␡" };

/**
 * Token text with every character visible: spaces as ·, line ends as ↵, control characters as their pictures,
 * and what reorders or hides text (bidirectional marks, zero-width characters, halves of pairs) by its code.
 */
export function pieces(token: string): Piece[] {
  if (token === "") return [{ text: "⟨empty⟩", mark: true }];
  const found: Piece[] = [];
  const characters = [...token];
  characters.forEach((character, index) => {
    const inside = index > 0 && index < characters.length - 1;
    const sign = glyph(character, inside);
    const text = sign ?? character;
    const last = found.at(-1);
    if (last && last.mark === (sign !== undefined)) last.text += text;
    else found.push({ text, mark: sign !== undefined });
  });
  return found;
}

function glyph(character: string, inside: boolean): string | undefined {
  if (character in NAMED) return NAMED[character];
  const code = character.codePointAt(0)!;
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  const joins = code === 0x200c || code === 0x200d;
  const hides =
    (code >= 0x80 && code < 0xa0) ||
    (code >= 0x200b && code <= 0x200f && !(joins && inside)) ||
    (code >= 0x2028 && code <= 0x202e) ||
    (code >= 0x2060 && code <= 0x206f) ||
    code === 0x061c ||
    code === 0xfeff ||
    code === 0x00ad ||
    (code >= 0xd800 && code <= 0xdfff) ||
    (code >= 0xe0000 && code <= 0xe007f);
  return hides ? `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩` : undefined;
}

/** Prose with what reorders, hides or controls text made visible, and everything else as it is. */
export function legible(text: string): string {
  return [...text].map((character) => (character === " " ? character : (glyph(character, true) ?? character))).join("");
}

/** The pieces of a token as one string, for labels. */
export function visible(token: string): string {
  return pieces(token)
    .map((piece) => piece.text)
    .join("");
}
