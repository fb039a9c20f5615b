/** Cuts a report to what a message takes. Pure. */

/** Of a message, in UTF-8: one of SNS and the data of a state take 256 KiB, other things beside this. */
const MAX_BYTES = 120_000;
/** Of a section that is longer, its beginning and its end are shown. Three of them grow with the run. */
const MAX_SECTION_BYTES = 34_000;
const MAX_LINE = 400;

export type Lines = readonly string[];

/** The lines of a section as a message takes them: the beginning and the end of each that is too long. */
export function shortened(lines: Lines): Lines {
  const cut = lines.map((line) => (line.length > MAX_LINE ? `${line.slice(0, MAX_LINE - 1)}…` : line));
  if (fitting(cut, MAX_SECTION_BYTES) === cut.length) return cut;
  const first = fitting(cut, MAX_SECTION_BYTES / 2);
  const last = fitting(cut.toReversed(), MAX_SECTION_BYTES / 2);
  return [
    ...cut.slice(0, first),
    `- … ${cut.length - first - last} lines left out; PostgreSQL has them …`,
    ...cut.slice(-last),
  ];
}

/** How many of the lines, from the first one on, fit into so many bytes of UTF-8, with what parts one from the next. */
export function fitting(lines: readonly string[], bytes: number): number {
  let left = bytes;
  const tooLong = lines.findIndex((line) => {
    left -= Buffer.byteLength(line) + 1;
    return left < 0;
  });
  return tooLong === -1 ? lines.length : tooLong;
}

/** Cuts a report to what a message takes, between two lines. */
export function capped(text: string): string {
  if (Buffer.byteLength(text) <= MAX_BYTES) return text;
  const kept = Buffer.from(text).subarray(0, MAX_BYTES).toString();
  return `${kept.slice(0, kept.lastIndexOf('\n'))}\n\n… cut: a message takes no more. The command line has all of it: report.\n`;
}
