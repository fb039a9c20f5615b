/** The metrics that handlers emit and alarms and dashboard read: their names, unit and dimension. */

/**
 * CloudWatch namespace of every metric that we emit. The one dimension is `Target`: `<stack>` of what concerns all tables, which
 * the alarms read, and `<stack>/<schema>.<table>` of one, for the dashboard.
 */
export const metricNamespace = 'EncryptionRollout';
export const metricDimension = 'Target';

/**
 * Value of the dimension. A table of the same name in another database has a stack of its own, whose alarms must not
 * hear of this one. CloudWatch takes ASCII.
 */
export function metricTarget(stack: string, table?: string): string {
  return table === undefined ? stack : `${stack}/${table}`.replace(/[^ -~]/g, '_');
}

/** Metrics, with their CloudWatch units. The names are what an operator sees in the console. */
export const metrics = {
  EncryptionPercentage: 'Percent',
  RowsEncrypted: 'Count',
  BatchMilliseconds: 'Milliseconds',
  /** Of one batch. */
  MillisecondsPerRow: 'Milliseconds',
  /** Rows of one batch that failed, when it tried enough for a percentage to mean something. */
  ErrorPercent: 'Percent',
  /** That a rollout is in; nothing while none is under way. */
  Phase: 'None',
  /** 1 while the batches pause: on a person's wish, outside the off-peak windows, or for a pressure that can ease. */
  Waiting: 'None',
  /** Counted while the rollout runs; EncryptionPercentage is measured, after it. */
  ProgressPercent: 'Percent',
  /** Estimate until the rollout is complete, with the waits that are planned. */
  HoursLeft: 'None',
  /** Since the execution under way began; 0 when there is none. */
  RunHours: 'None',
  /** Since anything was recorded of the run under way; 0 while a person is asked, or when there is none. */
  StalledMinutes: 'None',
  /** Since the count of the table that EncryptionPercentage and MissingIvs are from. */
  CountAgeHours: 'None',
  /** 1 for every measurement of Monitor. */
  Heartbeat: 'Count',
  /** Rows that could not be encrypted, by a batch or by the trigger. */
  EncryptionErrors: 'Count',
  DecryptionFailures: 'Count',
  MissingIvs: 'Count',
  TriggerFailures: 'Count',
  /** Findings about a table that is not any more what was registered. */
  Drift: 'Count',
  KeyAccessFailures: 'Count',
  /** What lets others than those it should reach key, plaintext or records. */
  Breaches: 'Count',
  /** Who has come to the engine's roles, or gone; nothing while nobody has. */
  MembersChanged: 'Count',
  /** 1 for every execution that was stopped. */
  RolloutStopped: 'Count',
} as const;

export type MetricName = keyof typeof metrics;
