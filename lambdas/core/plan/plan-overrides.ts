/** What a deployment may change of the plan. What the machines and the proofs rest on (titles, coverage, order) it may not. */

import * as z from 'zod';
import { duration } from '../telling/time.ts';
import { defaultPlan, type Phase, type Plan } from './plan.ts';

const percent = z.number().min(0).max(100);
const positive = z.number().positive();
const rows = z.int().min(1);
/** The hundred years or so after which a number is a typing error. */
const hours = positive.max(1_000_000);

const watched = {
  soakMinutes: z.int().min(0),
  // Whether an update is due is asked once an hour.
  updateHours: hours.min(1),
};
const batches = z.strictObject({
  ...watched,
  // Coverage is counted in hundredths of a percent.
  aimPercent: percent.multipleOf(0.01, 'expected whole hundredths of a percent, like 24.5'),
  maxRows: rows.nullable(),
  // As `rollout tune` allows: a batch is one transaction, and its locks last as long as it does.
  batchRows: rows.max(50_000),
  pauseSeconds: z.int().min(0).max(3_600),
  maxErrorPercent: percent,
});

/** Of the adaptive pace, what may also be said in an execution's input, and while it runs. */
export const pace = {
  share: z.number().min(0.02).max(1),
  // Shorter ones are all overhead, longer ones hold locks for as long.
  batchMilliseconds: z.int().min(50).max(5_000),
  // Each has two connections.
  writers: z.int().min(1).max(16),
};

const schema = z.strictObject({
  /** By number. Phase 4 encrypts what edits took until its trigger was on, in batches like phase 3's. */
  phases: z
    .strictObject({
      1: batches.partial(),
      2: batches.partial(),
      3: batches.partial(),
      4: z.strictObject(watched).partial(),
      5: batches.partial(),
    })
    .partial(),
  // "Every wait is watched" means nothing with longer ones.
  pace: z
    .strictObject({
      mode: z.enum(['plan', 'adaptive']),
      ...pace,
      // Well inside the function's time-out, whatever the last batch takes.
      callSeconds: positive.max(300),
      vcpus: rows.nullable(),
    })
    .partial(),
  soakSliceMinutes: rows.max(60),
  spotCheckRows: rows.max(10_000),
  abort: z
    .strictObject({
      errorPercent: percent,
      errorPercentMinRows: rows,
      stalledLaps: rows,
      stalledMinutes: z.number().min(0),
      cpuPercent: percent,
      // Of the latest ten minutes, some of which CloudWatch does not know yet: of more there were never enough to judge.
      cpuReadings: rows.max(5),
      // Whole ones, since PostgreSQL cuts the rest off, and none is no limit to it.
      lockWaitMilliseconds: rows.max(60_000),
      connectionPercent: percent,
      minFreeStorageBytes: z.int().min(0),
      slotLagBytes: rows,
    })
    .partial(),
  throttle: z
    .strictObject({
      cpuPercent: percent,
      replicaLagSeconds: positive,
      slotLagBytes: rows,
      oldestTransactionMinutes: positive,
      deadRowsPercent: percent,
      commitMilliseconds: positive,
      // What a person asks for is to be noticed soon.
      lookSeconds: rows.max(300),
    })
    .partial(),
  // Step Functions ends an execution after a year; it counts in whole seconds.
  holdMinutes: z
    .number()
    .min(1 / 60)
    .max(500_000),
  // With less a slow retry of the step would ask again at once.
  goMinutes: rows.min(10).max(500_000),
  maxMillisecondsPerRow: positive,
  writeLatency: z
    .strictObject({ samples: z.int().min(3).max(1_000), maxAddedMilliseconds: positive })
    .partial(),
  backupMaxAgeHours: hours,
  overdueHours: hours,
  afterwards: z
    .strictObject({ dailyDays: z.int().min(0), days: z.int().min(1).max(365), maxErrorPercent: percent })
    .partial(),
});

/** The setting `plan`: any part of the plan, in the plan's own words and units. Contradictions are refused. */
export const PlanOverrides = schema.partial().superRefine((given, context) => {
  for (const { path, found, expected } of contradictions(applyOverrides(defaultPlan, given)))
    context.addIssue({ code: 'custom', path, input: found, message: expected });
});
export type PlanOverrides = z.infer<typeof PlanOverrides>;

/** The plan with what a deployment changes of it. */
export function applyOverrides(plan: Plan, given: PlanOverrides): Plan {
  return {
    ...over(plan, given),
    phases: plan.phases.map((phase) =>
      over(phase, { ...(phase.number === 4 && bulkOf(given)), ...given.phases?.[phase.number] }),
    ),
    abort: over(plan.abort, given.abort),
    throttle: over(plan.throttle, given.throttle),
    pace: over(plan.pace, given.pace),
    writeLatency: over(plan.writeLatency, given.writeLatency),
    afterwards: over(plan.afterwards, given.afterwards),
  };
}

/** What is said of phase 3's batches, for those of phase 4. */
function bulkOf({ phases = {} }: PlanOverrides) {
  const { soakMinutes, updateHours, maxErrorPercent, ...bulk } = phases[3] ?? {};
  return bulk;
}

// From JSON, which has no `undefined`: a key that is there has a value.
function over<T extends object>(base: T, given: object | undefined): T {
  return { ...base, ...given };
}

interface Contradiction {
  readonly path: (string | number)[];
  readonly found: unknown;
  readonly expected: string;
}

/** A soak's execution makes some ten history events a slice, of the 25,000 that AWS allows. */
const maxSlices = 1_000;

/** What cannot be meant: each with the setting, what was found there and what it must agree with. */
function contradictions(plan: Plan): Contradiction[] {
  const { phases, abort, throttle, afterwards } = plan;
  const found: Contradiction[] = [];
  const expect = (holds: boolean, path: Contradiction['path'], value: unknown, expected: string) => {
    if (!holds) found.push({ path, found: value, expected: `expected ${expected}` });
  };

  expect(
    throttle.cpuPercent < abort.cpuPercent,
    ['throttle', 'cpuPercent'],
    throttle.cpuPercent,
    `less than abort.cpuPercent, ${abort.cpuPercent}: batches pause before the rollout stops`,
  );
  expect(
    throttle.slotLagBytes < abort.slotLagBytes,
    ['throttle', 'slotLagBytes'],
    throttle.slotLagBytes,
    `less than abort.slotLagBytes, ${abort.slotLagBytes}: batches pause before the rollout stops`,
  );
  expect(
    afterwards.dailyDays <= afterwards.days,
    ['afterwards', 'dailyDays'],
    afterwards.dailyDays,
    `not more than afterwards.days, ${afterwards.days}`,
  );
  const soakHours = phases.reduce((minutes, { soakMinutes }) => minutes + soakMinutes, 0) / 60;
  expect(
    plan.overdueHours > soakHours,
    ['overdueHours'],
    plan.overdueHours,
    `more than the soaks take together, ${duration(soakHours, 'h')}`,
  );

  let before: Phase | undefined;
  for (const phase of phases) {
    const at = (name: keyof Phase) => ['phases', phase.number, name];
    const { aimPercent, soakMinutes, maxErrorPercent } = phase;
    expect(
      soakMinutes <= maxSlices * plan.soakSliceMinutes,
      at('soakMinutes'),
      soakMinutes,
      `at most ${maxSlices} slices of soakSliceMinutes, ${plan.soakSliceMinutes}`,
    );
    // Its batches are phase 3's.
    if (phase.number === 4) continue;
    expect(insideCoverage(phase), at('aimPercent'), aimPercent, `${coverageOf(phase)}, as its gate asks`);
    expect(
      phase.maxRows === null || phase.coverage.min === null,
      at('maxRows'),
      phase.maxRows,
      'null: its gate asks for a share of the rows, which no batch would reach',
    );
    expect(
      before === undefined || before.aimPercent <= aimPercent,
      at('aimPercent'),
      aimPercent,
      `not less than phase ${before?.number} aims at, ${before?.aimPercent}`,
    );
    expect(
      maxErrorPercent <= abort.errorPercent,
      at('maxErrorPercent'),
      maxErrorPercent,
      `not more than abort.errorPercent, ${abort.errorPercent}: the rollout would have stopped before the gate`,
    );
    before = phase;
  }
  return found;
}

/** With room for live writes on both sides, except at 100 %. */
function insideCoverage({ aimPercent, coverage: { min, max } }: Phase): boolean {
  const above = min === null ? aimPercent > 0 : min === 100 ? aimPercent === 100 : aimPercent > min;
  return above && (max === null || aimPercent < max);
}

function coverageOf({ coverage: { min, max } }: Phase): string {
  if (min === 100) return '100';
  return max === null ? `more than ${min ?? 0}` : `more than ${min ?? 0} and less than ${max}`;
}
