import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { commandLine, runbookAt } from '../../../../lambdas/core/telling/hints.ts';

test('a command is to be typed as it is where the defaults find the stack', () => {
  expect(commandLine({ stack: 'EncryptionRollout' }, 'status')).toBe('npm run rollout -- status');
});

test('what the defaults would not find is named', () => {
  expect(commandLine({ stack: 'Payments' }, 'decide hold-7k2m9q go')).toBe(
    'npm run rollout -- decide hold-7k2m9q go --stack Payments',
  );
  expect(
    commandLine({ stack: 'EncryptionRollout', profile: 'prod', region: 'eu-west-1' }, 'start --dry-run'),
  ).toBe('npm run rollout -- start --dry-run --profile prod --region eu-west-1');
});

test.each(["R. Roe's", '$(touch x)', 'a;b', 'ü'])('a shell reads the profile %s as it is', (profile) => {
  const line = commandLine({ stack: 'EncryptionRollout', profile }, 'status');
  const printed = execFileSync('bash', ['-c', `printf '%s\\n' ${line}`], { encoding: 'utf8' });
  expect(printed.trim().split('\n').at(-1)).toBe(profile);
});

test('the runbook is in the repository, or where the operator keeps it', () => {
  expect(runbookAt(undefined, 'rolloutfailed')).toBe('docs/runbook.md#rolloutfailed');
  expect(runbookAt('https://wiki.example.com/runbook', 'rolloutfailed')).toBe(
    'https://wiki.example.com/runbook#rolloutfailed',
  );
  expect(runbookAt()).toBe('docs/runbook.md');
});
