import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';

/** A run in its second attempt and third phase, paused, with a question open. */
export const status: RolloutStatus = {
  run: {
    id: '6b1d8e3c-0c7e-4d0e-9a51-0d2f3f0f6c11',
    attempt: 2,
    status: 'ACTIVE',
    execution: 'arn:aws:states:eu-west-1:123456789012:execution:Rollout-EncryptionRollout:one',
    startedAt: '2026-11-23T09:30:00Z',
    endedAt: null,
    stopReason: null,
    untilPhase: 5,
  },
  phase: { number: 3, title: 'Phase 3 Bulk Migration', startedAt: '2026-11-23T11:50:00Z' },
  phases: defaultPlan.phases.map(({ number, title }) => ({ number, title })),
  soak: null,
  events: [{ at: '2026-11-23T11:50:00Z', event: 'PHASE_STARTED', table: 'public.appointments' }],
  rows: { withPersonalData: 1_000_000, encrypted: 612_000, percentage: 61.2 },
  rowsPerSecond: 480,
  millisecondsPerRow: 0.081,
  hoursLeft: 4.5,
  waiting: { for: 'Paused by R. Roe: a sale', since: '2026-11-23T11:55:00Z' },
  pressure: { by: 'CPU', utilization: 0.42 },
  tuned: { batchRows: 1_000, pauseSeconds: null, pace: null },
  paces: [],
  holds: [
    {
      id: 'hold-7k2m9q',
      gate: 'Phase 3 Bulk Migration: Gate',
      reason: 'Phase 3 Bulk Migration: Gate: CPU could not be measured',
      askedAt: '2026-11-23T11:58:00Z',
      expiresAt: '2026-11-23T14:00:00Z',
      numbers: [],
    },
  ],
  accepted: [{ criteria: ['Replica lag'], by: 'R. Roe', until: '2026-11-23T15:30:00Z' }],
  lastGate: {
    gate: 'Phase 2 Expanded Batch: SoakGate',
    verdict: 'GO',
    reason: '',
    judgedAt: '2026-11-23T11:50:00Z',
  },
  tables: [
    {
      name: 'public.appointments',
      purpose: 'encrypt',
      rows: { withPersonalData: 1_000_000, encrypted: 612_000, percentage: 61.2 },
      triggerEnabled: false,
      errors: { encryption: 3 },
      drift: [],
    },
  ],
};

/** The same run over three tables, of which one was complete before, and one has not begun. */
export const ofSeveral: RolloutStatus = {
  ...status,
  rows: { withPersonalData: 1_060_500, encrypted: 1_060_400, percentage: 99.99 },
  tables: [
    {
      name: 'public.appointments',
      purpose: 'verify',
      rows: { withPersonalData: 1_000_000, encrypted: 1_000_000, percentage: 100 },
      triggerEnabled: true,
      errors: {},
      drift: [],
    },
    {
      name: 'billing.users',
      purpose: 'encrypt',
      rows: { withPersonalData: 60_500, encrypted: 60_400, percentage: 99.83 },
      triggerEnabled: false,
      errors: { encryption: 3, trigger: 1 },
      drift: [],
    },
    { name: 'public.orders', purpose: 'encrypt', rows: null, triggerEnabled: null, errors: {}, drift: [] },
  ],
};
