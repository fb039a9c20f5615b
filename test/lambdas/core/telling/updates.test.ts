import { describe, expect, test } from 'vitest';
import type { RolloutStatus, TableStatus } from '../../../../lambdas/core/operating/operate.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import { commandLine } from '../../../../lambdas/core/telling/hints.ts';
import { moment } from '../../../../lambdas/core/telling/time.ts';
import { dueUpdates, type Told, statusUpdate as updateOf } from '../../../../lambdas/core/telling/updates.ts';
import { glued } from './glued.ts';
import { otherForms } from './other-forms.ts';

const now = new Date('2026-11-23T12:00:00Z');
const ago = (hours: number) => new Date(now.getTime() - hours * 3_600_000);

const rows = { withPersonalData: 10_000, encrypted: 4_200, percentage: 42 };
const table = {
  name: 'public.appointments',
  purpose: 'encrypt',
  rows,
  triggerEnabled: false,
  errors: {},
  drift: [],
} satisfies TableStatus;

const inPhase = (number: PhaseNumber): RolloutStatus => ({
  tables: [table],
  run: {
    id: 'run',
    attempt: 2,
    status: 'ACTIVE',
    execution: 'execution',
    startedAt: ago(30).toISOString(),
    endedAt: null,
    stopReason: null,
    untilPhase: 5,
  },
  phase: { number, title: phaseOf(defaultPlan, number).title, startedAt: ago(3).toISOString() },
  phases: [],
  soak: null,
  events: [],
  rows,
  rowsPerSecond: 480.5,
  millisecondsPerRow: 0.25,
  hoursLeft: 7.5,
  waiting: null,
  pressure: null,
  tuned: { batchRows: null, pauseSeconds: null, pace: null },
  paces: [],
  holds: [],
  accepted: [],
  lastGate: {
    gate: 'Phase 2 Expanded Batch: SoakGate',
    verdict: 'GO',
    reason: '',
    judgedAt: ago(3).toISOString(),
  },
});
const ended = (status: 'STOPPED' | 'COMPLETED', hours: number): RolloutStatus => {
  const { run, ...rest } = inPhase(5);
  return { ...rest, run: run && { ...run, status, endedAt: ago(hours).toISOString() } };
};
const told = (hours: number, phase: number | null, more: Partial<Told> = {}): Told => ({
  update: { at: ago(hours), attempt: 2, phase, status: 'ACTIVE' },
  security: ago(1),
  check: undefined,
  ...more,
});
/** As `told`, in an update that told of the end. */
const toldOf = (status: 'STOPPED' | 'COMPLETED', hours: number, more: Partial<Told> = {}): Told => ({
  ...told(hours, 5, more),
  update: { at: ago(hours), attempt: 2, phase: 5, status },
});
const statusUpdate = (status: RolloutStatus) =>
  updateOf(defaultPlan, status, {
    stack: 'Payments',
    commandLine: (words) => commandLine({ stack: 'Payments' }, words),
  });
const due = (status: RolloutStatus, given: Told) => dueUpdates(defaultPlan, status, given, now).updates;

describe('an update is due', () => {
  test.each(defaultPlan.phases)(
    'in $title after $updateHours h, and not before',
    ({ number, updateHours }) => {
      expect(due(inPhase(number), told(updateHours, number))).toBe(true);
      // The schedule ticks once an hour.
      expect(due(inPhase(number), told(updateHours - 1, number))).toBe(false);
    },
  );

  test('although a tick comes seconds early: an hour is not two', () => {
    expect(due(inPhase(1), told(1 - 10 / 3_600, 1))).toBe(true);
  });

  test('at the beginning of an attempt and of a phase', () => {
    const first: Told = { update: undefined, security: undefined, check: undefined };
    expect(dueUpdates(defaultPlan, inPhase(1), first, now)).toEqual({ updates: true, security: true });
    expect(due(inPhase(3), told(0.5, 2))).toBe(true);
    expect(
      due(inPhase(3), told(0.5, 3, { update: { at: ago(0.5), attempt: 1, phase: 3, status: 'ACTIVE' } })),
    ).toBe(true);
    expect(due(inPhase(3), told(0.5, 3))).toBe(false);
  });

  test('for the security team once a day', () => {
    const security = (hours: number) =>
      dueUpdates(defaultPlan, inPhase(1), told(1, 1, { security: ago(hours) }), now).security;
    expect(security(23)).toBe(false);
    expect(security(24)).toBe(true);
  });

  test('never when no run is under way', () => {
    expect(due({ ...inPhase(1), run: null }, told(100, 1))).toBe(false);
    expect(due(ended('STOPPED', 100), toldOf('STOPPED', 99))).toBe(false);
  });

  test.each(['STOPPED', 'COMPLETED'] as const)(
    'once when the run is %s, to those who heard of it',
    (status) => {
      const all = (given: Told) => dueUpdates(defaultPlan, ended(status, 0.5), given, now);
      expect(all(told(1, 5))).toEqual({ updates: true, security: false });
      expect(all(told(0.25, 5)).updates, 'it ended while that was written').toBe(true);
      expect(all(toldOf(status, 0.25)).updates).toBe(false);
      expect(
        all(told(1, 5, { update: { at: ago(1), attempt: 1, phase: 5, status: 'ACTIVE' } })).updates,
      ).toBe(false);
      expect(all({ update: undefined, security: undefined, check: undefined }).updates).toBe(false);
    },
  );

  test('weekly after the completion until the last day, unless a check has reported', () => {
    const week = 7 * 24;
    expect(due(ended('COMPLETED', 24), toldOf('COMPLETED', 23))).toBe(false);
    expect(due(ended('COMPLETED', week + 2), toldOf('COMPLETED', week + 1))).toBe(true);
    expect(due(ended('COMPLETED', week + 2), toldOf('COMPLETED', week + 1, { check: ago(1) }))).toBe(false);
    expect(due(ended('COMPLETED', 29 * 24), toldOf('COMPLETED', week + 2, { check: ago(week) }))).toBe(false);
    expect(due(ended('COMPLETED', 29 * 24), toldOf('COMPLETED', week + 2, { check: ago(week + 1) }))).toBe(
      true,
    );
    expect(due(ended('COMPLETED', 31 * 24), toldOf('COMPLETED', week + 2))).toBe(false);
  });
});

describe('an update says', () => {
  test('where, how fast, when done, whether it is healthy and what comes next', () => {
    const { subject, message } = statusUpdate({
      ...inPhase(3),
      tables: [{ ...table, errors: { encryption: 2 } }],
    });
    expect(subject).toBe('Payments: Phase 3 Bulk Migration, 42 %: public.appointments');
    expect(message).toContain('4,200 of 10,000 rows with personal data (42 %); in Phase 3 Bulk Migration');
    expect(otherForms(message)).toEqual([]);
    expect(glued(message)).toEqual([]);
    expect(message).toContain('How fast: 480.5 rows a second, 0.25 ms a row.');
    expect(message).toContain('When done: in about 7 h 30 min, waits included.');
    expect(message).toContain('errors in this attempt: 2 encryption; trigger disabled; last gate: Phase 2');
    expect(message).toMatch(/Next: its gate, then Phase 4 Enable Trigger\.$/);
  });

  test('what is waited for, and whom', () => {
    const waiting = {
      for: 'Outside the off-peak windows: Mon 22:00–05:00 (UTC)',
      since: ago(2).toISOString(),
    };
    const hold = {
      id: 'hold-7k2m9q',
      gate: 'Phase 3 Bulk Migration: Gate',
      reason: 'Phase 3 Bulk Migration: Gate: CPU: no reading',
      askedAt: ago(1).toISOString(),
      expiresAt: ago(-11).toISOString(),
      numbers: [],
    };
    const waits = statusUpdate({ ...inPhase(3), waiting }).message;
    expect(waits).toContain(`Waiting since ${moment(waiting.since)}: ${waiting.for}.`);
    expect(waits).toContain('When done: in about 7 h 30 min, waits included.');
    expect(waits).toMatch(/Next: the batches go on by themselves when the wait is over\.$/);
    const paused = statusUpdate({ ...inPhase(3), waiting: { ...waiting, for: 'Paused by R. Roe' } }).message;
    expect(paused).toContain('When done: in about 7 h 30 min if it goes on now, waits included.');
    expect(paused).toMatch(
      /Next: no batch begins until somebody resumes: npm run rollout -- resume --stack Payments$/,
    );
    const held = statusUpdate({ ...inPhase(3), holds: [hold] }).message;
    expect(held).toContain(
      'A person is asked: Phase 3 Bulk Migration: Gate (hold-7k2m9q). CPU: no reading. Without',
    );
    expect(held).toMatch(/Next: somebody answers; npm run rollout -- status --stack Payments says how\.$/);
  });

  test('that it was stopped, where and why', () => {
    const { run, ...rest } = ended('STOPPED', 1);
    const stopReason = 'Ended after phase 5, as its input asked';
    const { subject, message } = statusUpdate({ ...rest, run: run && { ...run, stopReason } });
    expect(subject).toBe('Payments: stopped, Phase 5 Complete Remaining, 42 %: public.appointments');
    expect(message).toContain(`Stopped: ${moment(ago(1))}. ${stopReason}.\n`);
    expect(message).not.toMatch(/How fast|When done/);
    expect(message).toMatch(/Next: the next execution goes on from here\.$/);
  });

  test('nothing that is not known, before the first phase', () => {
    const { subject, message } = statusUpdate({
      ...inPhase(1),
      tables: [{ ...table, rows: null }],
      phase: null,
      rows: null,
      rowsPerSecond: null,
      millisecondsPerRow: null,
      hoursLeft: null,
      lastGate: null,
    });
    expect(subject).toBe('Payments: before phase 1: public.appointments');
    expect(message).toContain('Where: nothing encrypted yet.');
    expect(message).toContain('When done: not known yet.');
    expect(message).not.toMatch(/null|undefined|NaN/);
  });

  test.each([
    ['rotate', 'no row moved to the new key yet', 'a rotation of the key', 'Next: Phase 1 Initial Batch.'],
    [
      'verify',
      'encrypted by an earlier rollout',
      'a verification of a table that was complete',
      'Next: what is',
    ],
  ] as const)('of a run to %s that the table was encrypted before', (purpose, where, words, next) => {
    const status = { ...inPhase(3), tables: [{ ...table, purpose }] };
    const { message } = statusUpdate({ ...status, phase: null, rows: null });
    expect(message).toContain(`Encryption of public.appointments, ${words} (run run, attempt 2): before`);
    expect(message).toContain(`Where: ${where}`);
    expect(message).toContain(next);
    // 42 % of the rows moved to the next key are not a coverage of 42 %.
    expect(statusUpdate(status).subject.includes('42 % under the new key')).toBe(purpose === 'rotate');
  });

  test('after the completion when its numbers were counted', () => {
    expect(statusUpdate(ended('COMPLETED', 100)).message).toContain('(42 %), as counted when it ended.');
  });

  test('fits the subject of a mail: at most 100 characters of ASCII', () => {
    for (const { number } of defaultPlan.phases)
      for (const status of [inPhase(number), ended('COMPLETED', 1), ended('STOPPED', 1)]) {
        const { subject } = statusUpdate({
          ...status,
          tables: [{ ...table, purpose: 'rotate' }],
          rows: { withPersonalData: 1e9, encrypted: 1, percentage: 99.99 },
        });
        expect(subject).toMatch(/^[ -~]{1,99}$/);
      }
  });

  test('of several tables all together, and each with its coverage and health', () => {
    const failing = {
      ...table,
      name: 'billing.invoices',
      rows: null,
      triggerEnabled: true,
      errors: { trigger: 2 },
    };
    const { subject, message } = statusUpdate({ ...inPhase(3), tables: [table, failing] });
    expect(subject).toBe('Payments: Phase 3 Bulk Migration, 42 %: public.appointments and 1 more');
    expect(message).toContain('Encryption of public.appointments and billing.invoices (run run, attempt 2)');
    expect(message).toContain(
      '\n- public.appointments: 4,200 of 10,000 rows with personal data (42 %), errors in this attempt: none; trigger disabled.\n',
    );
    expect(message).toContain(
      '\n- billing.invoices: nothing encrypted yet, errors in this attempt: 2 trigger; trigger enabled.\n',
    );
    expect(message).toContain('Health: last gate: Phase 2');
  });
});
