/** Sentences that were put together and do not fit: in a text that people read, none does. */

const seams = [
  // `secret..`, `to text., measured`, `dropped;.`
  /[.,;:][.,;]/,
  // `expected The key`, `expected: Correct the canary`
  /expected:? (?:A|An|Correct|Give|Have|Name|Take|The)\b/,
  // `rows , of`, `( none`
  /\w [.,;)]|\( /,
  // `of of`
  /\b(and|are|for|in|is|not|of|or|than|the|to) \1\b/,
];

/** The lines of the text that have a seam. */
export function glued(text: string): string[] {
  return text.split('\n').filter((line) => seams.some((seam) => seam.test(line)));
}
