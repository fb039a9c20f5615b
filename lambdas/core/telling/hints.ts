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
