/** When people are told, as data: infra makes an alarm of each, and docs/runbook.md has a heading for it. */

import type { Plan } from '../plan/plan.ts';
import { duration } from '../telling/time.ts';
import type { MetricName } from './metrics.ts';

/** Whom an alarm may wake: `page` somebody now, `tomorrow` somebody in working hours, `note` nobody. */
export type Severity = 'page' | 'tomorrow' | 'note';

/** What an alarm's text says of that. */
export const urgency: Readonly<Record<Severity, string>> = {
  page: 'Now, at any hour.',
  tomorrow: 'It can wait until morning.',
  note: 'Nothing needs to be done now.',
};

export interface Alert {
  /** Alarm name suffix and runbook heading. */
  readonly name: string;
  readonly metric: MetricName;
  readonly statistic: 'Sum' | 'Minimum' | 'Maximum' | 'Average';
  readonly comparison: 'GreaterThanThreshold' | 'LessThanThreshold';
  readonly threshold: number;
  readonly periodMinutes: number;
  /**
   * What silence says. `notBreaching`: a count that nobody reports is zero. `ignore`: a level that nobody reports is
   * unknown, which neither raises the alarm nor clears it. `breaching`: silence is what the alarm is about.
   */
  readonly whenMissing: 'notBreaching' | 'ignore' | 'breaching';
  /** What happened and what it means, in one or two sentences. */
  readonly story: string;
  readonly severity: Severity;
  /**
   * StopRollout hears of it, and pages unless the page of a stop has said it: one page for one stop. Of everything else the alarm
   * itself tells people.
   */
  readonly toldByStopRollout?: true;
  /** It stops a rollout under way. */
  readonly stopsRollout?: true;
}

/** A function that is cut off after 15 minutes is tried three times; a soak is quiet for a slice besides. */
const stuckMinutes = 60;

/** Monitor counts at least once a day; a count that was cut off is tried again after four hours. */
const overdueCountHours = 30;

/**
 * The plan's alert thresholds and abort conditions, and what would make the others blind. Coverage is emitted by Monitor
 * only after a rollout completed.
 */
export function alertsOf(plan: Plan): Alert[] {
  return [
    {
      name: 'CoverageBelow99',
      severity: 'tomorrow',
      metric: 'EncryptionPercentage',
      statistic: 'Minimum',
      comparison: 'LessThanThreshold',
      threshold: 99,
      periodMinutes: 5,
      whenMissing: 'ignore',
      story:
        'After a completed rollout less than 99 % of the rows with personal data are encrypted: new rows are being stored in plaintext only.',
    },
    {
      name: 'EncryptionErrors',
      severity: 'tomorrow',
      metric: 'EncryptionErrors',
      statistic: 'Sum',
      comparison: 'GreaterThanThreshold',
      threshold: 10,
      periodMinutes: 60,
      whenMissing: 'notBreaching',
      story:
        'More than 10 rows could not be encrypted within an hour. Their plaintext is safe; they stay unencrypted.',
    },
    {
      name: 'DecryptionFailures',
      severity: 'page',
      toldByStopRollout: true,
      metric: 'DecryptionFailures',
      statistic: 'Sum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story:
        'A stored ciphertext did not decrypt to its plaintext: it is corrupt, moved, or sealed under another key.',
      stopsRollout: true,
    },
    {
      name: 'MissingIvs',
      severity: 'page',
      toldByStopRollout: true,
      metric: 'MissingIvs',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'ignore',
      story: 'Rows have ciphertext but no initialization vector: they cannot be decrypted.',
      stopsRollout: true,
    },
    {
      name: 'TriggerFailures',
      severity: 'page',
      toldByStopRollout: true,
      metric: 'TriggerFailures',
      statistic: 'Sum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story:
        'The encryption trigger failed for a write, or is off although the rollout is complete. The writes went through unencrypted.',
      stopsRollout: true,
    },
    {
      name: 'TableDrifted',
      severity: 'tomorrow',
      metric: 'Drift',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story:
        'A table is not any more what was registered: renamed, retyped or dropped, it or a column; a trigger is gone; or rows were written past it. No write of the application fails; new values may be stored in plaintext only.',
    },
    {
      name: 'KeyAccessFailures',
      severity: 'page',
      toldByStopRollout: true,
      metric: 'KeyAccessFailures',
      statistic: 'Sum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story:
        'The encryption key could not be read, or it is not the key that this database is encrypted with. Nothing is written until it is right.',
    },
    {
      name: 'BoundaryBroken',
      metric: 'Breaches',
      severity: 'page',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'ignore',
      story:
        'Somebody else may reach the key, open values or write into the records of the rollout, or code of somebody else runs with the engine’s rights. The next gate will not pass.',
    },
    {
      name: 'MembersChanged',
      // Who grants it may do so: it stops nothing, and no machine can say whether it was meant.
      severity: 'note',
      metric: 'MembersChanged',
      statistic: 'Sum',
      comparison: 'GreaterThanThreshold',
      threshold: 0,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story:
        'Somebody was added to the roles of the engine, or taken off: to those who may open values, operate, read the records, or reach the key.',
    },
    {
      name: 'BatchErrorRate',
      severity: 'page',
      toldByStopRollout: true,
      metric: 'ErrorPercent',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: plan.abort.errorPercent,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story: `More than ${plan.abort.errorPercent} % of the rows of a batch could not be encrypted. The rollout is being stopped.`,
      stopsRollout: true,
    },
    {
      name: 'BatchesSlow',
      severity: 'tomorrow',
      metric: 'MillisecondsPerRow',
      statistic: 'Average',
      comparison: 'GreaterThanThreshold',
      threshold: plan.maxMillisecondsPerRow,
      periodMinutes: 15,
      whenMissing: 'notBreaching',
      story: `Batches have taken more than ${duration(plan.maxMillisecondsPerRow, 'ms')} a row for a quarter of an hour: the database is under pressure, and the next gate will not pass.`,
    },
    {
      name: 'RolloutOverdue',
      severity: 'tomorrow',
      metric: 'RunHours',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: plan.overdueHours,
      periodMinutes: 15,
      whenMissing: 'ignore',
      story: `A rollout has been under way for longer than the ${duration(plan.overdueHours, 'h')} of the plan, or was left unfinished.`,
    },
    {
      name: 'RolloutStuck',
      severity: 'tomorrow',
      metric: 'StalledMinutes',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: stuckMinutes + plan.soakSliceMinutes,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story: `Nothing was recorded of a rollout under way for more than ${duration(stuckMinutes + plan.soakSliceMinutes, 'min')}, although no person is asked: a step hangs, or its execution is gone.`,
    },
    {
      name: 'CountOverdue',
      severity: 'tomorrow',
      metric: 'CountAgeHours',
      statistic: 'Maximum',
      comparison: 'GreaterThanThreshold',
      threshold: overdueCountHours,
      periodMinutes: 5,
      whenMissing: 'notBreaching',
      story: `The table was not counted for more than ${duration(overdueCountHours, 'h')}: what is known of its coverage and of missing IVs is as old as that.`,
    },
    {
      name: 'MonitorSilent',
      severity: 'page',
      metric: 'Heartbeat',
      statistic: 'Sum',
      comparison: 'LessThanThreshold',
      threshold: 1,
      periodMinutes: 15,
      whenMissing: 'breaching',
      story: 'Monitor has not measured anything for a quarter of an hour: the other alarms are blind.',
    },
  ];
}
