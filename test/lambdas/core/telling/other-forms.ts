/** What the project does not write of times, in a text that people read: core/telling/time.ts has the one way. */

const others = [
  // `0.28 h`, `6.05 hours`, `90 minutes`
  /\d\s?(?:hours?|minutes?|seconds?|milliseconds?|hrs?|mins|secs?)\b/,
  /\d\.\d+ ?(?:h|min|days?)\b/,
  // `5,000 ms`, `90 s`, `120 min`
  /(?<![\d.,])(?:\d{4,}|\d+,\d{3})(?:\.\d+)? ms\b/,
  /(?<![\d.,:-])(?:[6-9]\d|\d{3,})(?:\.\d+)? (?:s|min)\b/,
  /(?<![\d.,:-])(?:2[4-9]|[3-9]\d|\d{3,}) h\b/,
  // `2026-07-03T14:05:31.000Z`
  /\d{4}-\d\d-\d\dT\d\d:/,
];

/** The lines of the text that write a time another way. */
export function otherForms(text: string): string[] {
  return text.split('\n').filter((line) => others.some((form) => form.test(line)));
}
