import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { faults } from '../../rehearsal/faults.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { missingIn } from '../support/page.ts';
import { unfit } from '../support/rehearsed.ts';
import { Bench } from './process.ts';

/** Where each fault must stop the rollout: the phase, the criterion that the reason begins with or names, and the runbook's heading. */
const stops: Record<string, { phases: number; reason: RegExp; heading: string }> = {
  'decryption-failure': {
    phases: 2,
    reason: /^Phase 2 .*: Gate: public\.appointments: Decryption matches plaintext: expected/,
    heading: 'DecryptionFailures',
  },
  'error-spike': {
    phases: 3,
    reason: /^Phase 3 .*: CheckVitals: public\.appointments: Error rate: expected not above 1 %/,
    heading: 'BatchErrorRate',
  },
  'lock-contention': {
    phases: 3,
    reason: /^Phase 3 .*: (EncryptBatch: public\.appointments|CheckVitals): Database locks: expected/,
    heading: 'DatabasePressure',
  },
  'high-cpu': {
    phases: 3,
    reason: /^Phase 3 .*: CheckVitals: Database CPU: expected .* measured 95 %/,
    heading: 'DatabasePressure',
  },
  'no-metric': {
    phases: 3,
    reason: /^Phase 3 .*: CheckVitals: Decision of a person: expected go, measured no-go by arn:aws:iam::/,
    heading: 'Decisions',
  },
  'customer-alarm': {
    phases: 3,
    reason: /^Phase 3 .*: Customer-facing alarms: .* booking-api-errors/,
    heading: 'CustomerAlarms',
  },
  'trigger-failure': {
    phases: 4,
    reason: /^Phase 4 .*: Gate: .*Canary insert: .* not encrypted/,
    heading: 'TriggerFailures',
  },
  'wrong-key': { phases: 2, reason: /^Phase 2 .*: Encryption key: expected/, heading: 'KeyAccessFailures' },
};

const bench = new Bench();
// Looks at quiet soaks are most of a rehearsal's work, and rehearsal.test.ts has all of them.
beforeAll(() => bench.prepare({ soakSliceMinutes: 30 }));
afterAll(() => bench.clear());

let database: TestDatabase;
beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
});
afterEach(() => database.drop());

it('are all expected somewhere', () => {
  expect(Object.keys(faults).sort()).toEqual(Object.keys(stops).sort());
});

it.each(Object.entries(stops))(
  '%s stops the rollout, which then resumes',
  async (fault, { phases, reason, heading }) => {
    const options = ['--rows', '600', '--database-url', database.url, '--yes'];
    const stopped = bench.start(...options, '--fault', fault);
    if (fault === 'no-metric') {
      await stopped.until('no-go --rehearsal');
      const [, hold = ''] = /decide (\S+) no-go --rehearsal/.exec(stopped.output) ?? [];
      expect(await bench.rollout('decide', hold, 'no-go', '--yes', '--rehearsal').exit()).toBe(0);
    }
    expect(await stopped.exit(), stopped.output).toBe(2);
    const report = stopped.report();
    expect(report).toMatchObject({
      outcome: 'STOPPED',
      fault,
      triggerEnabled: false,
      plaintextUnchanged: true,
    });
    expect(report.reason).toMatch(reason);
    // The table may break the sentence at any space.
    expect(stopped.output.replaceAll(/\s+/g, ' ')).toContain(report.reason.split(': expected')[0]);
    expect(stopped.output).toContain(faults[fault]?.repair);
    // As a queue of each topic would have it: one page for the stop, before it the question where there was one.
    const received = (topic: string) => report.messages.filter((each) => each.topic.endsWith(topic));
    const pages = received('OnCall');
    expect(pages.map(({ subject }) => subject.split(': ')[1])).toEqual(
      fault === 'no-metric' ? ['decide', 'stopped'] : ['stopped'],
    );
    for (const page of pages) expect(missingIn(page), page.message).toEqual([]);
    const page = pages.at(-1);
    expect(page?.subject).toContain(`: public.appointments, phase ${phases}: `);
    expect(page?.message).toContain(report.reason.slice(0, 500));
    expect(page?.message).toContain(`npm run rollout -- runbook ${heading})`);
    expect(page?.message).toMatch(
      /\nReport, in the output of GatherEvidence: https:\S+:Rollback:\S+-1-rollback\n/,
    );
    expect(stopped.output).toContain(`✉ ${page?.subject}`);
    expect(received('Tomorrow')).toEqual([]);
    expect(unfit(stopped.output)).toEqual([]);
    expect(stopped.output).toContain(`find the cause (docs/runbook.md#${heading.toLowerCase()}).`);
    expect(stopped.output).toMatch(/\nThe report is in .*\nTo resume: npm start -- --database-url …\n/);
    expect(report.phases).toHaveLength(phases);
    expect(report.phases.map(({ verdict }) => verdict)).toEqual([...Array(phases - 1).fill('GO'), 'NO_GO']);
    expect(report.phases.at(-1)?.criteria.some(({ passed }) => passed === false)).toBe(true);
    expect(report.liveTraffic).toMatchObject({ failed: 0 });
    // Of a busy machine; npm run bench:stopping tells how long it takes.
    expect(report.rollback?.triggerDisabledMs).toBeLessThan(60_000);
    const { rows } = await database.client.query(
      'select count(*)::integer as plaintext from public.appointments where num_nonnulls(email, e164, first_name) > 0',
    );
    // Live traffic went on for a moment after the rollback had counted.
    expect(Math.abs(rows[0].plaintext - (report.rollback?.plaintextRows ?? 0))).toBeLessThan(20);
    const trigger = `select tgenabled from pg_trigger where tgname = 'encrypt_appointment_pii'`;
    expect((await database.client.query(trigger)).rows).toEqual([{ tgenabled: 'D' }]);

    const resumed = bench.start(...options);
    expect(await resumed.exit(), resumed.output).toBe(0);
    expect(resumed.output).toContain('Its rollout is unfinished');
    const { outcome, rows: counted, phases: passed, resumed: again } = resumed.report();
    expect({ outcome, again }).toEqual({ outcome: 'COMPLETED', again: true });
    expect(passed.map(({ verdict }) => verdict)).toEqual(Array(5).fill('GO'));
    expect(counted).toMatchObject({ encrypted: counted.withPii, verified: counted.withPii, mismatched: 0 });
    expect((await database.client.query(trigger)).rows).toEqual([{ tgenabled: 'O' }]);
  },
  300_000,
);
