import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { dryRunScreen, statusScreen } from '../../cli/aws/screen.ts';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { status } from './status.ts';

const now = new Date('2026-11-23T12:00:00Z');
const place = {
  stack: 'Rollout',
  account: '123456789012',
  region: 'eu-west-1',
  commandLine: (words: string) => commandLine({ stack: 'Rollout', profile: 'night shift' }, words),
};
const plain = (text: string) => stripVTControlCharacters(text);

describe('the screen of status', () => {
  test('shows what a deployment of an earlier release tells, which is not brought up to date while it is at work', () => {
    const { accepted: _, ...earlier } = status;
    expect(plain(statusScreen(earlier as RolloutStatus, place, now))).toBe(
      plain(statusScreen({ ...status, accepted: [] }, place, now)),
    );
  });

  test('says where the rollout is, what it waits for and how to answer', () => {
    expect(plain(statusScreen(status, place, now))).toBe(
      `public.appointments, stack Rollout (account 123456789012, eu-west-1)

ACTIVE  Phase 3 Bulk Migration, begun 10 min ago
████████████████████████░░░░░░░░░░░░░░░░ 61.2 %  612,000 of 1,000,000 rows
480 rows/s · 0.08 ms a row · 4 h 30 min left if it goes on now, waits included
Waiting, begun 5 min ago: Paused by R. Roe: a sale
  npm run rollout -- resume --stack Rollout --profile 'night shift'
A person is asked, for 2 h more; no answer is no-go. Phase 3 Bulk Migration: Gate
  CPU could not be measured
  npm run rollout -- decide hold-7k2m9q go --stack Rollout --profile 'night shift'
  npm run rollout -- decide hold-7k2m9q no-go --stack Rollout --profile 'night shift'
  npm run rollout -- decide hold-7k2m9q retry --stack Rollout --profile 'night shift'
May be unknown, on the word of R. Roe, for 3 h 30 min more in this phase: Replica lag

Last gate   GO Phase 2 Expanded Batch: SoakGate, 10 min ago
Trigger     off
Errors      3 encryption
Tuned       batches of 1,000 rows
Run         6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11, attempt 2, begun 2 h 30 min ago
Execution   arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one`,
    );
  });

  test('shows nothing that would move the cursor', () => {
    const waiting = { for: 'Paused by R. Roe: \u001b[2J\u0007sale', since: status.run?.startedAt ?? '' };
    const screen = statusScreen({ ...status, waiting }, place, now);
    expect(screen).toContain('\\u{1b}[2J\\u{7}sale');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(screen).not.toMatch(/\u001b\[2J|\u0007/);
  });

  test('of a stopped run it says what can be done next', () => {
    const screen = statusScreen(
      { ...status, run: status.run && { ...status.run, status: 'STOPPED' } },
      place,
      now,
    );
    expect(plain(screen)).toMatch(
      /\n\nWhat happened: npm run rollout -- report --stack Rollout .*\nGo on: npm run rollout -- start --stack Rollout .*, with the same input$/,
    );
  });

  test('before the first run it says how to begin', () => {
    const screen = statusScreen({ ...status, run: null, phase: null, rows: null, holds: [] }, place, now);
    expect(plain(screen)).toBe(
      `public.appointments, stack Rollout (account 123456789012, eu-west-1)\nNo rollout has begun yet. Try one: npm run rollout -- start --dry-run --stack Rollout --profile 'night shift'`,
    );
  });
});

test('the screen of a dry run: every criterion, the forecast, the verdict', () => {
  const screen = dryRunScreen({
    gate: 'DryRun',
    verdict: 'NO_GO',
    reason: 'DryRun: NO_GO: Database backup: expected one younger than 24 h, measured none',
    criteria: [
      { name: 'Trigger', expected: 'disabled', measured: 'disabled', passed: true },
      { name: 'Database backup', expected: 'one younger than 24 h', measured: 'none', passed: false },
      { name: 'CPU', expected: 'at most 80 %', measured: 'no reading', passed: null },
    ],
    forecast: {
      rowsToEncrypt: 1_000_000,
      batches: 200,
      hours: 9.5,
      tableBytes: 3 * 2 ** 28,
      walBytes: 2 ** 31,
    },
  });
  expect(plain(screen)).toBe(`Checklist
  ✓ Trigger: disabled
  ✗ Database backup: none (expected one younger than 24 h)
  ? CPU: no reading (expected at most 80 %)

Forecast
  1,000,000 rows to encrypt in 200 batches, 9 h 30 min with the planned waits
  the table grows by about 768.0 MiB, and 2.0 GiB of WAL is written

NO_GO  Of the checklist above, 1 not met (✗) and 1 not measured (?). Nothing was written. Mend them, then try again.`);
});
