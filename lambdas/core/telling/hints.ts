/** Command lines that people copy from a screen or a page, and links that they open. Pure. */

/** The setting stackName, and the option --stack, of who says nothing else. */
export const defaultStackName = 'EncryptionRollout';

/** How the command line finds a deployment: what is undefined it finds by itself. */
export interface Address {
  readonly stack: string;
  readonly profile?: string | undefined;
  readonly region?: string | undefined;
}

/** `words` as a command line that reaches the deployment at this address. */
export function commandLine({ stack, profile, region }: Address, words: string): string {
  const options = { stack: stack === defaultStackName ? undefined : stack, profile, region };
  return [
    `npm run rollout -- ${words}`,
    ...Object.entries(options).flatMap(([name, value]) =>
      value === undefined ? [] : [`--${name} ${quoted(value)}`],
    ),
  ].join(' ');
}

/** The runbook, at a heading's anchor if there is one. */
export function runbookAt(runbookUrl = 'docs/runbook.md', anchor?: string): string {
  return anchor === undefined ? runbookUrl : `${runbookUrl}#${anchor}`;
}

/** A word of a command line: names of profiles may have spaces, and more. */
export function quoted(text: string): string {
  return /^[\w./:@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** `35 s`, `4 min`, `2 h 30 min`, `3 days 4 h`: of a time that is told to people. */
export function hoursInWords(hours: number): string {
  const seconds = Math.round(hours * 3_600);
  const [days, whole, minutes] = [86_400, 3_600, 60].map((unit) => Math.floor(seconds / unit)) as [
    number,
    number,
    number,
  ];
  if (days > 0) return `${days} day${days > 1 ? 's' : ''} ${whole % 24} h`;
  if (whole > 0) return minutes % 60 > 0 ? `${whole} h ${minutes % 60} min` : `${whole} h`;
  return minutes > 0 ? `${minutes} min` : `${seconds} s`;
}
