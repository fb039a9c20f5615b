/** A page, as whoever subscribes to the topic receives it: what somebody needs who is woken by it. */

export interface Page {
  readonly subject: string;
  readonly message: string;
}

/** What the page lacks, by name; nothing when it can be acted on. It is of a stop, of a question, or of a check. */
export function missingIn({ subject, message }: Page): string[] {
  const [first = '', harm = '', until = '', ...rest] = message.split('\n');
  const has = (pattern: RegExp) => rest.some((line) => pattern.test(line));
  const table = /: (\w+\.\w+)(?: and \d+ more)?(?:, phase \d)?(?:: |$)/.exec(subject)?.[1];
  const needs = {
    what:
      /^[\w-]+: (stopped|rollback too late, nothing done|decide|approve|[\w ]+ (NO_GO|INCONCLUSIVE)): /.test(
        subject,
      ) && / (has stopped|nothing was switched off|waits for a person|NO_GO|INCONCLUSIVE)\b/.test(first),
    where: table !== undefined && first.includes(table),
    // Of an approval that it is wanted is the cause.
    cause:
      /: approve: /.test(subject) ||
      (subject.split(': ').length > 3 && /expected .* measured |went off|ended as |[A-Z]\w+: \S/.test(first)),
    harm: /^Customers: \w/.test(harm),
    'until when': /^Until morning: (NO\.|it can wait|the rollout can wait)/.test(until),
    link:
      ['Execution', 'Dashboard', 'Log'].every((name) => has(new RegExp(`^${name}: https://\\S+#\\S+$`))) &&
      has(/npm run rollout -- (runbook [A-Z]\w+|decide hold-\w+ go)|^Runbook: https:\S+#\w+$/),
  };
  return Object.entries(needs).flatMap(([need, met]) => (met ? [] : [need]));
}
