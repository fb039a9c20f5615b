import { describe, expect, test } from 'vitest';
import { approvalCriterion } from '../../../../lambdas/core/gates/decisions.ts';
import { postMortem, postMortemMessage } from '../../../../lambdas/core/telling/post-mortem.ts';
import type { Report } from '../../../../lambdas/core/telling/report.ts';
import { at, event, report } from './report.ts';

describe('the post-mortem', () => {
  const text = postMortem(report);

  test('holds what was measured against what was expected', () => {
    // 12,000 rows at 5 ms are a minute, five pauses of 10 s and one more another, the soak half an hour.
    expect(text).toContain('- Phase 1 Initial Batch, public.appointments: 35 min, 32 min expected');
    expect(text).toContain('3 ms a row, expected at most 5; 6 batches, the slowest 9,000 ms');
    expect(text).toContain('soaked for 31 min, 30 min expected');
    expect(text).toContain('✗ Database CPU: expected not above 80 %; measured 99 %');
    expect(text).toContain('✓ Missing IVs: expected 0; measured 0');
  });

  test('tells errors, waits, holds with who decided, and how long a rollback took', () => {
    expect(text).toContain(
      '- Errors of encryption of public.appointments: 2, from 2026-11-23 10:01 to 2026-11-23 10:02',
    );
    expect(text).toContain('the batches waited for 15 min (for: Pressure that can ease: CPU at 75 %)');
    expect(text).toContain('Held at Preflight: CPU: no reading. Decided after 20 min: go by R. Roe.');
    expect(text).toContain(
      'rollback of attempt 1: trigger off after 3 s, plaintext proven after 6 s, over after 12 s',
    );
  });

  test('does not call a trigger left on that the next execution, quicker than the rollback, had switched off', () => {
    const events = [event('TRIGGER_DISABLED', 39), event('STOPPING', 40), event('TRIGGER_LEFT_ON', 41)];
    expect(postMortem({ ...report, events })).toContain('rollback of attempt 1: trigger off before,');
    const [, ...alone] = events;
    expect(postMortem({ ...report, events: alone })).toContain('rollback of attempt 1: trigger left on,');
  });

  test('tells of several tables, each by its name, what became of their triggers', () => {
    const [users, invoices] = ['public.users', 'billing.invoices'];
    const events = [
      event('TRIGGER_DISABLED', 39, {}, users),
      event('STOPPING', 40),
      event('TRIGGER_LEFT_ON', 41, {}, users),
      event('TRIGGER_DISABLED', 41, {}, invoices),
    ];
    const tables = [users, invoices].map(
      (name) => ({ ...report.tables[0], name }) as Report['tables'][number],
    );
    const text = postMortem({ ...report, tables, events });
    expect(text).toContain('# Post-mortem: encryption of public.users and billing.invoices\n');
    expect(text).toContain(
      'rollback of attempt 1: trigger of public.users off before, trigger of billing.invoices off after 60 s, plaintext',
    );
    expect(text).toContain('TRIGGER_DISABLED billing.invoices');
    for (const name of [users, invoices]) expect(text).toContain(`Latency of writes, ${name}: not measured`);
  });

  test('names the table of phases, errors, audits, criteria and the latency of writes', () => {
    const of = (table: string, rowsMismatched: number) => ({
      table,
      attempt: 1,
      finished: true,
      rowsVerified: 10,
      rowsMismatched,
    });
    const tested = { offMilliseconds: 1, onMilliseconds: 2.5 };
    const text = postMortem({
      ...report,
      tables: ['public.appointments', 'public.users', 'sales.orders'].map((name) => ({
        name,
        purpose: 'encrypt',
        attempt: 1,
        completedAt: at(120),
      })),
      phases: report.phases.flatMap((phase) => [phase, { ...phase, table: 'public.users', passedAt: null }]),
      errors: [...report.errors, { table: null, type: 'decryption', count: 1, first: at(1), last: at(1) }],
      audits: [of('public.appointments', 0), of('public.users', 2)],
      gates: report.gates.map((gate) => ({
        ...gate,
        criteria: gate.criteria.map((criterion) => ({ ...criterion, table: 'public.users' })),
      })),
      events: [event('TRIGGER_TESTED', 30, tested, 'public.users')],
    });
    for (const line of [
      '# Post-mortem: encryption of 3 tables: public.appointments, public.users, sales.orders',
      '- Phase 1 Initial Batch, public.appointments: 35 min, 32 min expected',
      '- Phase 1 Initial Batch, public.users: not passed',
      '- Errors of encryption of public.appointments: 2, from',
      '- Errors of decryption: 1, from',
      '- 2 rows of public.users did not open to their plaintext in the audit of attempt 1',
      '✓ public.users: Missing IVs: expected 0; measured 0',
      '- Latency of writes, public.appointments: not measured',
      '- Latency of writes, public.users: 1 ms without the trigger, 2.5 ms with it',
    ])
      expect(text).toContain(line);
    expect(text).not.toContain('of public.appointments did not open');
  });

  test('does not keep quiet about a trigger that nobody could switch off', () => {
    const [users, invoices] = ['public.users', 'billing.invoices'];
    const events = [
      event('PHASE_STARTED', 1, {}, users),
      event('PHASE_STARTED', 1, {}, invoices),
      event('STOPPING', 40),
      event('TRIGGER_DISABLED', 40.1, {}, invoices),
    ];
    expect(postMortem({ ...report, events })).toContain(
      'trigger of public.users off after never, trigger of billing.invoices off after 6 s, plaintext',
    );
  });

  test('tells approvals and pauses that people wanted in the timeline, not among what was unexpected', () => {
    const gate = 'Phase 3 Bulk Migration: Approval';
    const asked = {
      attempt: 1,
      gate,
      phase: 3,
      verdict: 'INCONCLUSIVE' as const,
      reason: `${gate}: Approval: not given yet.`,
      criteria: [approvalCriterion],
      judgedAt: at(20),
    };
    const waits = ['Paused by R. Roe', 'Outside the off-peak windows: Mon 22:00–05:00 (Europe/Berlin)'];
    const refusal = { name: 'Decision of a person', expected: 'go', measured: 'no-go', passed: false };
    const text = postMortem({
      ...report,
      errors: [],
      gates: [asked],
      events: [
        ...waits.map((reason, index) => event('WAITING', 10 + index, { for: reason })),
        event('HOLD_DECIDED', 22, { hold: 'hold-abc', gate, decision: 'go', by: 'R. Roe' }),
      ],
      holds: report.holds.map((hold) => ({ ...hold, gate })),
    });
    expect(text).toContain('## Unexpected issues\n\nNone was recorded.');
    for (const reason of waits) expect(text).toContain(`WAITING (for: ${reason})`);
    expect(text).toContain(
      'HOLD_DECIDED (hold: hold-abc, gate: Phase 3 Bulk Migration: Approval, decision: go',
    );
    const refused = { ...asked, verdict: 'NO_GO' as const, criteria: [approvalCriterion, refusal] };
    expect(postMortem({ ...report, gates: [refused] })).toContain(`NO_GO: ${asked.reason}`);
  });

  test('says how much it leaves out, and where that is', () => {
    expect(text).not.toContain('Not all that was recorded');
    expect(postMortem({ ...report, leftOut: { gates: 0, events: 1_200, holds: 3 } })).toContain(
      `left out are 1,200 of the earliest in encryption_rollout.events, 3 of the earliest in encryption_rollout.holds (run_id = '${report.run.id}').`,
    );
  });

  test('tells events and gates in the order in which they happened', () => {
    const line = (part: string) => text.split('\n').findIndex((each) => each.includes(part));
    const order = ['STARTED', 'HOLD_ASKED', 'Gate: **GO**', 'WAITING', 'HOLD_DECIDED', 'STOPPING'].map(line);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(Math.min(...order)).toBeGreaterThan(0);
  });

  test('leaves to people what only people know', () => {
    for (const heading of [
      'What went well',
      'What could be improved',
      'Recommendations for future migrations',
    ])
      expect(text).toContain(`\n## ${heading}\n\n<!-- for people to fill in -->\n`);
  });

  test('has every gate of an ordinary rollout and its checks, with all that was asked', () => {
    const criteria = Array.from({ length: 18 }, (_, index) => ({
      name: `Criterion ${index}`,
      expected: 'what the plan asks for, in some words',
      measured: 'what was found, in some words',
      passed: true,
    }));
    const gates = Array.from({ length: 12 }, (_, index) => ({
      attempt: 1,
      gate: `Gate ${index}`,
      phase: 1,
      verdict: 'GO' as const,
      reason: '',
      criteria,
      judgedAt: at(index),
    }));
    const text = postMortemMessage({ ...report, gates });
    expect(text.match(/ ✓ Criterion /g)).toHaveLength(12 * 18);
    expect(text).not.toContain('left out');
  });

  test('fits into a message however long the run was, with its beginning and its end; a file takes all of it', () => {
    const long = 'wörter '.repeat(2_000);
    const lengthy: Report = {
      ...report,
      events: Array.from({ length: 500 }, (_, index) => event(`EVENT_${index}_`, index, { reason: long })),
      gates: Array.from({ length: 500 }, (_, index) => ({
        attempt: index,
        gate: `Gate ${index}`,
        phase: 1,
        verdict: 'NO_GO' as const,
        reason: long,
        criteria: [{ name: long, expected: long, measured: long, passed: false }],
        judgedAt: at(index),
      })),
      errors: Array.from({ length: 500 }, () => ({
        table: null,
        type: long,
        count: 1,
        first: at(0),
        last: at(0),
      })),
    };
    const text = postMortemMessage(lengthy);
    expect(Buffer.byteLength(text)).toBeLessThan(256 * 1024);
    expect(text).toContain('EVENT_0');
    expect(text).toContain('Gate 499');
    expect(text).toMatch(/\d{3} lines left out/);
    expect(text).toContain('## Recommendations for future migrations');
    const whole = postMortem(lengthy);
    expect(whole.match(/^- \*\*Gate \d+\*\* NO_GO/gm)).toHaveLength(500);
    expect(whole.includes('…')).toBe(false);
  });

  test('says what there is not', () => {
    const empty = postMortem({ ...report, gates: [], events: [], holds: [], errors: [], phases: [] });
    expect(empty).toContain('## Unexpected issues\n\nNone was recorded.');
    expect(empty).toContain('None was reached.');
    expect(empty).toContain('Latency of writes, public.appointments: not measured');
  });
});
