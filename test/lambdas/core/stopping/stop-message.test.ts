import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { gateCriteria } from '../../../../lambdas/core/gates/gate-criteria.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { abortCriteria } from '../../../../lambdas/core/pressure/abort-criteria.ts';
import { headings, stopCause } from '../../../../lambdas/core/stopping/stop-cause.ts';
import {
  type Evidence,
  stopMessage,
  type TableEvidence,
} from '../../../../lambdas/core/stopping/stop-message.ts';
import { missingIn } from '../../../support/page.ts';
import { calm, evidence, healthy } from '../healthy.ts';
import { glued } from '../telling/glued.ts';
import { otherForms } from '../telling/other-forms.ts';

const { health } = healthy(24.5);
const table = (name: string, more: Partial<TableEvidence> = {}): TableEvidence => ({
  name,
  purpose: 'encrypt',
  triggerEnabled: false,
  health,
  errors: {},
  switchOff: null,
  ...more,
});
const page = (tables: TableEvidence[], more: Partial<Evidence> = {}, runbookUrl: string | null = null) =>
  stopMessage(
    {
      ...evidence(
        tables,
        'Phase 2 Expanded Batch: Gate: public.users: Missing IVs: expected 0, measured 3',
        20_000,
      ),
      ...more,
    },
    {
      stack: 'Payments',
      execution: 'arn:aws:states:eu-west-1:123456789012:execution:Payments-EncryptionRollout:one',
      ownAlarms: ['Payments-DecryptionFailures'],
      runbookUrl,
      commandLine: (words) => `npm run rollout -- ${words}`,
    },
  );
const message = (...given: Parameters<typeof page>) => page(...given).message.split('\n');

test('a prepared transaction is told with the words that end it', () => {
  const prepared = [{ gid: "o'brien", preparedAt: '2026-11-28 03:04', owner: 'shop' }];
  expect(message([table('public.appointments')], { prepared }).at(-1)).toBe(
    "- prepared transaction o'brien, prepared at 2026-11-28 03:04 UTC by shop: whoever manages it commits it, or: rollback prepared 'o''brien';",
  );
});

describe('the page of a stop', () => {
  test('of one table says first what happened, whom it harms, until when it can wait, how it is now and what is next, and links it', () => {
    expect(message([table('public.appointments')]).slice(0, 9)).toEqual([
      'The encryption rollout of public.appointments has stopped. Phase 2 Expanded Batch: Gate: public.users: Missing IVs: expected 0, measured 3.',
      'Customers: not affected, none of their alarms is in ALARM; the application reads and writes as before.',
      'Until morning: it can wait. Nothing of the rollout runs, and nothing is lost.',
      'Now: trigger disabled, 2,450 of 10,000 rows encrypted, all plaintext in place (20,000 rows read).',
      'Next: find the cause (npm run rollout -- report, npm run rollout -- runbook MissingIvs), then start a new execution (npm run rollout -- start, with the same input): it resumes run run-1.',
      '',
      'Execution: https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/arn:aws:states:eu-west-1:123456789012:execution:Payments-EncryptionRollout:one',
      'Dashboard: https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#dashboards/dashboard/Payments',
      'Log: https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/$252Fencryption-rollout$252FPayments',
    ]);
  });

  test('has what a person needs, each of which is missed where it is not', () => {
    const whole = page([table('public.users')]);
    expect(missingIn(whole)).toEqual([]);
    const without = (text: string | RegExp) =>
      missingIn({ subject: whole.subject.replace(text, ''), message: whole.message.replace(text, '') });
    expect(without('stopped')).toEqual(['what']);
    expect(without(/public\.users, /)).toContain('where');
    expect(without(/: Missing IVs.*/)).toContain('cause');
    expect(without('Customers: ')).toEqual(['harm']);
    expect(without('Until morning: ')).toEqual(['until when']);
    for (const link of ['Execution: ', 'Dashboard: ', 'Log: ', 'runbook MissingIvs'])
      expect(without(link), link).toEqual(['link']);
  });

  test('fits the cause of an execution whatever there is to tell, and has all that a person needs', () => {
    const long = (length: number) => '漢'.repeat(length);
    const tables = (switchOff: string | null) =>
      Array.from({ length: 1_000 }, (_, index) =>
        table(index === 500 ? 'public.users' : `${long(63)}.${long(59)}${index}`, {
          errors: { encryption: 1 },
          switchOff,
        }),
      );
    const more: Partial<Evidence> = {
      why: `Phase 2 Expanded Batch: Gate: public.users: Missing IVs: expected 0, measured 3; ${long(1_900)}`,
      vitals: {
        ...calm,
        customerAlarms: { inAlarm: Array(200).fill(long(255)), withoutData: [], notFound: [] },
      },
      gates: Array(5).fill({ gate: 'x', verdict: 'NO_GO', reason: long(2_000), judgedAt: new Date(0) }),
    };
    const stopped = page(tables(null), more);
    const stillOn = page(tables(`ALTER TABLE ${long(63)} DISABLE TRIGGER encrypt_pii;`), more);
    for (const { message } of [stopped, stillOn]) {
      // AWS says characters; no bytes are more either.
      expect(Buffer.byteLength(message)).toBeGreaterThan(20_000);
      expect(Buffer.byteLength(message)).toBeLessThan(32_768);
      expect(message).not.toContain('\ufffd');
    }
    expect(missingIn(stopped)).toEqual([]);
    expect(stillOn.message).toMatch(/\nUntil morning: NO\. .* …\n/);
  });

  test('of two tables tells the state, and the errors, of each', () => {
    const lines = message([
      table('public.appointments', {
        purpose: 'verify',
        triggerEnabled: true,
        health: { ...health, encryptedRows: 10_000 },
      }),
      table('public.users', {
        triggerEnabled: true,
        errors: { encryption: 1_200, trigger: 1 },
      }),
    ]);
    expect(lines[0]).toMatch(
      /^The encryption rollout of public\.appointments and public\.users has stopped\. /,
    );
    expect(lines.slice(3, 6)).toEqual([
      'Now: all plaintext in place (20,000 rows read);',
      '- public.appointments: trigger enabled, and left so because it was when this rollout of a complete table began, 10,000 of 10,000 rows encrypted.',
      '- public.users: trigger STILL ENABLED, 2,450 of 10,000 rows encrypted.',
    ]);
    expect(lines[6]).toMatch(/^Next: /);
    expect(lines).toContain('Errors in this attempt, public.appointments: none.');
    expect(lines).toContain('Errors in this attempt, public.users: 1,200 encryption, 1 trigger.');
  });

  test('does not hide that the plaintext was not proven, or is not there', () => {
    const both = [table('public.appointments'), table('public.users')];
    expect(message(both, { proof: undefined })[3]).toBe(
      'Now: plaintext NOT PROVEN readable (ProvePlaintext gave no result);',
    );
    expect(message(both, { proof: { plaintextRows: 1, ciphertextOnlyRows: 2 } })[3]).toContain(
      '2 rows HOLD CIPHERTEXT WITHOUT PLAINTEXT',
    );
  });

  test('links the heading for this cause, where the runbook is published', () => {
    const url = 'https://wiki.example.com/runbook';
    const both = [table('public.appointments'), table('public.users')];
    expect(message(both, {}, url)).toContain(`Runbook: ${url}#missingivs`);
    expect(message(both).join('\n')).not.toContain('Runbook:');
  });

  test('has a subject with stack, table, phase and cause', () => {
    const both = [table('public.appointments'), table('public.users')];
    expect(page(both).subject).toBe('Payments: stopped: public.users, phase 2: Missing IVs');
    const why = 'The alarm Payments-DecryptionFailures went off';
    expect(page(both, { why }).subject).toBe(
      'Payments: stopped: public.appointments and 1 more: alarm Payments-DecryptionFailures',
    );
    const long = page([table(`public.${'x'.repeat(60)}`)], { why: 'Größe… is not right' }).subject;
    expect(long).toMatch(/^[ -~]{1,99}$/);
  });

  test('ends a reason that is a sentence with one full stop', () => {
    const [first] = message([table('public.users')], { why: "DatabaseError: 53100. See the server's log." });
    expect(first).toMatch(/See the server's log\.$/);
    expect(first).not.toContain('..');
  });

  test('names what raised the errors, and the keys of some rows', () => {
    const kind = { table: 'public.users', type: 'encryption', sqlState: '23514', raisedBy: 'users_check' };
    expect(otherForms(page([table('public.users')]).message)).toEqual([]);
    expect(glued(page([table('public.users')]).message)).toEqual([]);
    const lines = message([table('public.users')], {
      errorKinds: [{ ...kind, count: 1_200, keys: ['17', '18', '19'] }],
    });
    expect(lines).toContain(
      '- 1,200 encryption of public.users: SQLSTATE 23514, raised by users_check; rows 17, 18, 19, …',
    );
  });

  test('does not let somebody sleep whose trigger is still on, nor whose customers notice something', () => {
    const switchOff = 'ALTER TABLE public.users DISABLE TRIGGER encrypt_pii;';
    const left = page([table('public.users', { switchOff })]);
    expect(left.subject).toMatch(/^Payments: ROLLBACK FAILED, trigger still on: public\.users/);
    expect(left.message).toContain(
      `\nUntil morning: NO. A rollback that could not finish has left triggers on. Switch them off, now: ${switchOff}\n`,
    );
    const customerAlarms = { inAlarm: ['checkout-5xx'], withoutData: [], notFound: [] };
    const [, harm, wait] = message([table('public.users')], { vitals: { ...calm, customerAlarms } });
    expect(harm).toBe('Customers: perhaps affected, in ALARM: checkout-5xx. Begin with these.');
    expect(wait).toMatch(/the alarms of customers cannot/);
    expect(message([table('public.users')], { vitals: { ...calm, customerAlarms: null } })[1]).toMatch(
      /^Customers: not known/,
    );
  });
});

describe('the cause of a stop', () => {
  const own = ['Payments-TriggerFailures'];

  test.each([
    [
      'Phase 3 Bulk Migration: CheckVitals: Database CPU: expected not above 80 %, measured 95 %',
      'DatabasePressure',
      'Database CPU',
      3,
    ],
    [
      'Phase 3 Bulk Migration: CheckVitals: public.a: Error rate: expected not above 1 %, measured 4 %',
      'BatchErrorRate',
      'Error rate',
      3,
    ],
    [
      'Phase 4 Enable Trigger: Gate: public.a: Trigger: expected enabled, measured disabled',
      'TriggerFailures',
      'Trigger',
      4,
    ],
    [
      'Phase 1 Initial Batch: Approval: Decision of a person: expected go, measured no-go by R. Roe',
      'Decisions',
      'Decision of a person',
      1,
    ],
    ['WrongKey: The key has the check value 1', 'KeyAccessFailures', 'WrongKey', undefined],
    [
      'The alarm Payments-TriggerFailures went off',
      'TriggerFailures',
      'alarm Payments-TriggerFailures',
      undefined,
    ],
    ['The alarm checkout-5xx went off', 'CustomerAlarms', 'alarm checkout-5xx', undefined],
    ['The execution arn:x ended as ABORTED: by R. Roe', 'RolloutFailed', 'execution aborted', undefined],
    ['DatabaseError: SQLSTATE 53100', 'RolloutFailed', 'DatabaseError: SQLSTATE 53100', undefined],
  ])('%s', (why, heading, what, phase) => {
    expect(stopCause(why, own)).toEqual({ heading, what, phase });
  });

  test('every criterion that can stop a rollout has a heading, and every heading is in the runbook', () => {
    const runbook = readFileSync('docs/runbook.md', 'utf8');
    for (const heading of Object.keys(headings)) expect(runbook).toContain(`\n## ${heading}\n`);
    const named = defaultPlan.phases
      .flatMap((phase) =>
        gateCriteria(defaultPlan, phase, {
          tables: [healthy(phase.aimPercent)],
          keyMatches: true,
          breaches: [],
          members: [],
          vitals: calm,
        }),
      )
      .concat(abortCriteria(defaultPlan, calm, [healthy(50)]))
      .map(({ name }) => name);
    const known: readonly string[] = Object.values(headings).flat();
    expect([...new Set(named)].filter((name) => !known.includes(name))).toEqual([]);
  });
});
