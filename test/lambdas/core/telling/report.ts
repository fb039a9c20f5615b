/** A run that was stopped in phase 1, as the tests of what is written of it have it. */
import type { Report } from '../../../../lambdas/core/telling/report.ts';

export const at = (minutes: number) => new Date(Date.UTC(2026, 10, 23, 10) + minutes * 60_000).toISOString();
const appointments = 'public.appointments';
export const event = (
  event: string,
  minutes: number,
  detail: Record<string, unknown> = {},
  table: string | null = null,
) => ({
  table,
  attempt: 1,
  event,
  at: at(minutes),
  detail,
});

export const report: Report = {
  tables: [
    {
      name: appointments,
      purpose: 'encrypt',
      attempt: 1,
      completedAt: null,
      key: ['id'],
      columns: ['email', 'first_name'],
      sealed: ['email_encrypted', 'first_name_encrypted'],
      ivColumn: 'pii_iv',
      trigger: 'encrypt_appointment_pii',
      rowsWithPersonalData: 20_000,
      rowsEncrypted: 12_000,
    },
  ],
  about: {
    database: 'shop',
    server: '18.4',
    engine: { files: 24, sha256: 'ab'.repeat(32) },
    keys: [{ number: 1, checkValue: '0102030405060708', retiredAt: null }],
  },
  pace: [
    { at: at(0), rows: 8_000, failed: 0, milliseconds: 24_000 },
    { at: at(1), rows: 4_000, failed: 2, milliseconds: 12_000 },
  ],
  writtenAt: at(300),
  run: {
    id: '6f1c1f3e-7c0f-4a9e-9a43-0d3f0a5e0001',
    status: 'STOPPED',
    attempts: 1,
    startedAt: at(0),
    endedAt: at(120),
    stopReason: 'CPU',
    attestations: { onCallEstablished: 'R. Roe' },
  },
  expected: { millisecondsPerRow: 5, addedWriteMilliseconds: 5, hours: 72 },
  phases: [
    {
      table: appointments,
      number: 1,
      title: 'Phase 1 Initial Batch',
      attempt: 1,
      startedAt: at(0),
      passedAt: at(35),
      rowsWithPersonalData: 12_000,
      rowsEncrypted: 12_000,
      rowsFailed: 2,
      batches: 6,
      batchesNow: 6,
      rowsNow: 12_000,
      batchMilliseconds: 36_000,
      slowestBatchMilliseconds: 9_000,
      soakMinutes: 30,
      pauseSeconds: 10,
    },
  ],
  gates: [
    {
      attempt: 1,
      gate: 'Phase 1 Initial Batch: Gate',
      phase: 1,
      verdict: 'GO',
      reason: '',
      criteria: [{ name: 'Missing IVs', expected: '0', measured: '0', passed: true }],
      judgedAt: at(2),
    },
    {
      attempt: 1,
      gate: 'Phase 1 Initial Batch: SoakGate',
      phase: 1,
      verdict: 'NO_GO',
      reason: 'Phase 1 Initial Batch: SoakGate: CPU',
      criteria: [{ name: 'Database CPU', expected: 'not above 80 %', measured: '99 %', passed: false }],
      judgedAt: at(33),
    },
  ],
  audits: [],
  events: [
    event('STARTED', 0),
    event('HOLD_ASKED', 1, { hold: 'hold-abc' }),
    event('WAITING', 3, { for: 'Pressure that can ease: CPU at 75 %' }),
    event('GOING_ON', 18),
    event('HOLD_DECIDED', 21, { hold: 'hold-abc', decision: 'go' }),
    event('STOPPING', 40),
    event('TRIGGER_DISABLED', 40.05, { milliseconds: 3 }),
    event('PLAINTEXT_PROVEN', 40.1),
    event('STOPPED', 40.2, { reason: 'CPU' }),
  ],
  holds: [
    {
      id: 'hold-abc',
      attempt: 1,
      gate: 'Preflight',
      reason: 'CPU: no reading.',
      askedAt: at(1),
      decision: 'go',
      decidedAt: at(21),
      decidedBy: 'R. Roe',
      comment: null,
    },
  ],
  leftOut: { gates: 0, events: 0, holds: 0 },
  errors: [{ table: appointments, type: 'encryption', count: 2, first: at(1), last: at(2) }],
  keyAccess: [],
};
