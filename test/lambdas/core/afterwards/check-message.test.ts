import { expect, test } from 'vitest';
import { checkMessage } from '../../../../lambdas/core/afterwards/check-message.ts';
import { about, criterion, judge } from '../../../../lambdas/core/gates/judgement.ts';
import { healthy } from '../healthy.ts';

test('the message of a check leaves room for the report, whatever the number of tables', () => {
  const names = Array.from({ length: 2_000 }, (_, n) => `public.table_${n}`);
  const { message } = checkMessage(
    judge(
      'Check on day 30',
      names.flatMap((name) => about(name, [criterion('Missing IVs', '0', '0', name !== names[0])])),
    ),
    {
      now: new Date(0),
      period: { name: 'since the rollout' },
      tables: names.map((name) => ({ name, health: healthy(100).health })),
      dailyErrors: [],
      errors: [],
      keyAccess: [],
    },
    {
      origin: {
        stack: 'Payments',
        execution: 'arn:aws:states:eu-west-1:123456789012:execution:Payments-PostRolloutChecks:one',
        ownAlarms: [],
        runbookUrl: null,
        commandLine: (words) => `npm run rollout -- ${words}`,
      },
      run: 'run-1',
      input: {},
      day: 30,
      days: 30,
      report: undefined,
    },
  );
  expect(Buffer.byteLength(message)).toBeLessThanOrEqual(60_000);
  expect(message).toMatch(
    /^Check on day 30 .*NO_GO\. Public\.table_0: Missing IVs: expected 0, measured 0\.\n/,
  );
});
