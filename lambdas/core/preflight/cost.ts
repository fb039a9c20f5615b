/**
 * What AWS charges for a rollout, without its database: state transitions, the functions' time, their logs. Prices of
 * us-east-1, November 2026, without the free tier; elsewhere they differ by a third at most. The month of alarms, dashboard
 * and metrics is the same however many rows there are: see "What it costs" in docs/deploy.md. Pure.
 */

/** https://aws.amazon.com/step-functions/pricing/: Standard workflows, $25 a million state transitions. */
const TRANSITION = 25 / 1_000_000;
/** https://aws.amazon.com/lambda/pricing/: arm64, a GB-second, and $0.20 a million requests. */
const GIGABYTE_SECOND = 0.0000133334;
const REQUEST = 0.2 / 1_000_000;
/** https://aws.amazon.com/cloudwatch/pricing/: logs, $0.50 a GB taken in. */
const LOGGED_BYTE = 0.5 / 1e9;

/** All functions have 512 MB. */
const GIGABYTES = 0.5;
/** States that a batch goes through: look, its outcome, batch, its outcome, pause. A test counts them. */
export const TRANSITIONS_OF_A_BATCH = 5;
/** Calls for a batch, and for a slice of the audit: the look at the vitals before it, and the work. */
const CALLS = 2;
/** CloudWatch, the secret and the database are asked: the time of a look, in seconds. */
const LOOK_SECONDS = 1;
/** What a call logs, the three lines of Lambda's own with it. */
const LOG_BYTES = 1_000;
/** Soaks, gates and endings: some hundreds of states and calls, whatever the size. */
const BESIDES = 0.05;

/** @param calls of EncryptBatch and AuditRows. @returns dollars */
export function charges(calls: number, workSeconds: number): number {
  const seconds = workSeconds + calls * LOOK_SECONDS;
  const each = TRANSITIONS_OF_A_BATCH * TRANSITION + CALLS * (REQUEST + LOG_BYTES * LOGGED_BYTE);
  return BESIDES + calls * each + seconds * GIGABYTES * GIGABYTE_SECOND;
}
