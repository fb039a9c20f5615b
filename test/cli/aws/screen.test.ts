import { existsSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { dryRunScreen, statusScreen } from '../../../cli/aws/screen.ts';
import { commandLine } from '../../../lambdas/core/telling/hints.ts';
import { ofSeveral, status } from '../status.ts';

const now = new Date('2026-11-23T12:00:00Z');
const place = {
  stack: 'Rollout',
  account: '123456789012',
  region: 'eu-west-1',
  commandLine: (words: string) => commandLine({ stack: 'Rollout', profile: 'night shift' }, words),
};
const plain = (text: string) => stripVTControlCharacters(text);

describe('the screen of status', () => {
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
Pressure    CPU at 42 % of where batches wait
Tuned       batches of 1,000 rows
Run         6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11, attempt 2, begun 2 h 30 min ago
Execution   arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one`,
    );
  });

  test('of several tables shows their sum, and a line for each', () => {
    const screen = plain(statusScreen({ ...ofSeveral, holds: [], accepted: [], waiting: null }, place, now));
    expect(screen).toBe(
      `3 tables, stack Rollout (account 123456789012, eu-west-1)

ACTIVE  Phase 3 Bulk Migration, begun 10 min ago
███████████████████████████████████████░ 99.9 %  1,060,400 of 1,060,500 rows
480 rows/s · 0.08 ms a row · 4 h 30 min left, waits included
  public.appointments  100.0 %  1,000,000 of 1,000,000 rows  trigger on   errors none  verification
  billing.users         99.8 %        60,400 of 60,500 rows  trigger off  errors 3 encryption, 1 trigger
  public.orders              –                    not begun  trigger not installed  errors none

Last gate   GO Phase 2 Expanded Batch: SoakGate, 10 min ago
Pressure    CPU at 42 % of where batches wait
Tuned       batches of 1,000 rows
Run         6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11, attempt 2, begun 2 h 30 min ago
Execution   arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one`,
    );
  });

  test('of a completed rollout says what applications read, and where the way from there is', () => {
    const done = {
      ...status,
      run: { ...(status.run as NonNullable<typeof status.run>), status: 'COMPLETED' as const },
    };
    expect(plain(statusScreen(done, place, now))).toMatch(
      /\n\nApplications read the plaintext as before\. From there to ciphertext: docs\/after\.md$/,
    );
    expect(existsSync('docs/after.md')).toBe(true);
  });

  test('names the version that is deployed', () => {
    const outputs = { Version: '1.2.3' };
    expect(plain(statusScreen(status, { ...place, outputs }, now))).toContain('\nVersion     1.2.3');
  });

  test('of a rotation in all tables says so once', () => {
    const tables = ofSeveral.tables.map((table) => ({ ...table, purpose: 'rotate' as const }));
    const screen = plain(statusScreen({ ...ofSeveral, tables }, place, now));
    expect(screen).toContain('\nACTIVE (a rotation of the key)  Phase 3');
    expect(screen.match(/rotation/g)).toHaveLength(1);
  });

  test('of two tables names them, and before their first phase there is no bar', () => {
    const tables = ofSeveral.tables.slice(1).map((table) => ({ ...table, rows: null }));
    const screen = plain(
      statusScreen({ ...ofSeveral, tables, rows: null, phase: null, hoursLeft: null }, place, now),
    );
    expect(screen).toMatch(
      /^billing.users and public.orders, stack .*\n\nACTIVE {2}before the first phase\n {2}billing.users {2}– {2}not begun {2}trigger off/,
    );
  });

  test('tells what is not any more as it was registered', () => {
    const drift = ['column email of public.users: renamed to mail found, its name expected. Follow it.'];
    const tables = ofSeveral.tables.map((table, n) => (n === 1 ? { ...table, drift } : table));
    expect(plain(statusScreen({ ...ofSeveral, tables }, place, now))).toContain(
      '\nNo longer as registered: column email of public.users: renamed to mail found, its name expected. Follow it.\n',
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
  const table = 'public.users';
  const screen = dryRunScreen({
    gate: 'DryRun',
    verdict: 'NO_GO',
    reason: 'DryRun: NO_GO: Database backup: expected one younger than 24 h, measured none',
    criteria: [
      { name: 'Trigger', table, expected: 'disabled', measured: 'disabled', passed: true },
      { name: 'Column a', table, expected: 'bytea', measured: 'text', passed: false, advice: 'Rename it.' },
      { name: 'Database backup', expected: 'one younger than 24 h', measured: 'none', passed: false },
      { name: 'CPU', expected: 'at most 80 %', measured: 'no reading', passed: null },
    ],
    forecast: {
      rowsToEncrypt: 1_000_000,
      batches: 200,
      paces: { plan: { hours: 9.5, dollars: 1.5 }, adaptive: { hours: 7.25, dollars: 12 } },
      tableBytes: 3 * 2 ** 28,
      walBytes: 2 ** 31,
      recordBytes: 2 ** 20,
      tables: [],
    },
    additions: [],
    notices: [],
    leftOut: 1_200,
  });
  expect(plain(screen)).toBe(`Checklist
  ✓ Trigger: disabled
  ✗ Column a: text (expected: bytea). Rename it.
  ✗ Database backup: none (expected: one younger than 24 h)
  ? CPU: no reading (expected: at most 80 %)

What will be added
  Nothing: it is there already.

Who will notice
  Nobody, as far as catalogs and sources of functions tell.

Forecast
  1,000,000 rows to encrypt
  at the plan's pace, in 200 batches: 9 h 30 min with all waits, and about $1.50 to AWS
  as fast as the database allows: 7 h 15 min with all waits, and about $12 to AWS
  the table grows by about 768.0 MiB, and 2.0 GiB of WAL is written
  the engine's own records take about 1.0 MiB, a year of uses of the key included

1,200 lines more: an execution has no room for them. A dry run of fewer tables (--table, once for each) shows theirs.
NO_GO  Of the checklist above, 2 not met (✗) and 1 not measured (?). Nothing was written. Mend them, then try again.`);
});

test('the screen of a dry run over several tables: what concerns them all, then each by its name', () => {
  const passed = { expected: '0', measured: '0', passed: true };
  const part = {
    rowsToEncrypt: 500,
    batches: 2,
    tableBytes: 2 ** 20,
    walBytes: 2 ** 21,
    recordBytes: 2 ** 20,
  };
  const screen = dryRunScreen({
    gate: 'DryRun',
    verdict: 'NO_GO',
    reason: '',
    criteria: [
      { name: 'Key', expected: '1', measured: '1', passed: true },
      { name: 'Missing IVs', table: 'public.users', ...passed },
      { name: 'Missing IVs', table: 'public.orders', ...passed },
      { name: 'Trigger', table: 'public.users', expected: 'disabled', measured: 'enabled', passed: false },
      { name: 'CPU', expected: 'at most 80 %', measured: '20 %', passed: true },
    ],
    forecast: {
      ...part,
      rowsToEncrypt: 1_000,
      batches: 4,
      paces: { plan: { hours: 9, dollars: 1 }, adaptive: { hours: 7, dollars: 1 } },
      tables: [
        { name: 'public.users', ...part },
        { name: 'public.orders', ...part },
      ],
    },
    additions: [{ table: 'public.users', kind: 'column', name: 'email_encrypted', what: 'bytea' }],
    notices: [
      { table: 'public.orders', about: 'copies', finding: 'view mail reads email', advice: 'Change it.' },
    ],
  });
  expect(plain(screen)).toBe(`Checklist
  ✓ Key: 1
  ✓ CPU: 20 %
  public.users
    ✓ Missing IVs: 0
    ✗ Trigger: enabled (expected: disabled)
  public.orders
    ✓ Missing IVs: 0

What will be added
  public.users
    + column email_encrypted  bytea

Who will notice
  public.orders
    holds the same values elsewhere, which stay as they are:
      view mail reads email. Change it.

Forecast
  1,000 rows to encrypt
  at the plan's pace, in 4 batches: 9 h with all waits, and about $1.00 to AWS
  as fast as the database allows: 7 h with all waits, and about $1.00 to AWS
  the tables grow by about 1.0 MiB, and 2.0 MiB of WAL is written
  the engine's own records take about 1.0 MiB, a year of uses of the key included
    public.users: 500 rows in 2 batches, 1.0 MiB, 2.0 MiB of WAL
    public.orders: 500 rows in 2 batches, 1.0 MiB, 2.0 MiB of WAL

NO_GO  Of the checklist above, 1 not met (✗). Nothing was written. Mend them, then try again.`);
});
