/** A message of the deployment's in the window of a rehearsal: what works on AWS alone is left out, or named as it is here. Pure. */
import { runbookAt } from '../lambdas/core/telling/hints.ts';

/** Lines about the console's pages and buttons, and about the report of an execution with which the rehearsal ends. */
const onAws = /https:\/\/[\w-]+\.console\.|^No checkout at hand\?|^As a page to hand over: /;

export function asHere(message: string): string {
  return (
    message
      .split('\n')
      .filter((line) => !onAws.test(line))
      .join('\n')
      // What is left when it has stopped, and how it goes on, is told below the message.
      .replaceAll(/npm run rollout -- report, (?=npm run rollout -- runbook)/g, '')
      .replaceAll(/, then start a new execution \([^)]*\): it resumes run [\w-]+/g, '')
      .replaceAll(/npm run rollout -- runbook (\w+)/g, (_, heading: string) =>
        runbookAt(undefined, heading.toLowerCase()),
      )
      .replaceAll(/npm run rollout -- start\b/g, 'npm start')
      .replaceAll(
        /npm run rollout -- (?:decide \S+ [\w-]+|status|report|pause|resume|tune|abort)\b/g,
        '$& --rehearsal',
      )
      .replaceAll(/\n{3,}/g, '\n\n')
      .trimEnd()
  );
}
