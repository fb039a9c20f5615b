import { Duration } from 'aws-cdk-lib';
import type { IMetric } from 'aws-cdk-lib/aws-cloudwatch';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { IScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import type { StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import type { Severity } from '../../lambdas/core/monitoring/alerts.ts';

/** What AWS itself measures of the deployment. */
export interface Deployed {
  readonly rollout: StateMachine;
  readonly rollback: StateMachine;
  readonly postRolloutChecks: StateMachine;
  readonly statusUpdates: StateMachine;
  readonly page: StateMachine;
  /** Of all schedules but Monitor's. */
  readonly schedules: IScheduleGroup;
  readonly stopRollout: IFunction;
}

/**
 * Alerts on metrics that AWS emits, not our handlers: what can no longer speak for itself. Each failure has one: a
 * function of the rollback that fails makes its machine fail, a child that fails its parent, and a Monitor that fails
 * or is not started is silent. ClearCiphertext pages by itself, and who has asked for it follows it. No machine has a
 * time-out; what is aborted a person has aborted, and of a rollout or a rollback the rule ExecutionEnded hears.
 */
export const serviceAlerts: readonly {
  readonly name: string;
  readonly severity: Severity;
  readonly story: string;
  metric(deployed: Deployed): IMetric;
}[] = [
  {
    name: 'RolloutFailed',
    severity: 'note',
    story:
      'An execution of EncryptionRollout has failed: it was refused, which its starter sees, or it was stopped, which has paged. Its cause says why.',
    metric: ({ rollout }) => rollout.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'RollbackFailed',
    severity: 'page',
    story:
      'A rollback did not finish: the trigger may still be enabled. Disable it by hand, now, unless the key was being rotated or a complete table verified: there it was on before.',
    metric: ({ rollback }) => rollback.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'ChecksFailed',
    severity: 'tomorrow',
    story:
      'A check after the rollout could not be made, or its report could not be sent: for that time nobody has looked.',
    metric: ({ postRolloutChecks }) => postRolloutChecks.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'UpdatesFailed',
    severity: 'note',
    story:
      'A status update could not be written or sent: those who follow the rollout have not heard how it stands.',
    metric: ({ statusUpdates }) => statusUpdates.metricFailed({ period: Duration.minutes(1) }),
  },
  {
    name: 'SchedulesFailed',
    severity: 'tomorrow',
    story:
      'A check after the rollout, or a status update, was due and could not be started, however often it was tried.',
    metric: ({ schedules }) => schedules.metricDropped({ period: Duration.minutes(1) }),
  },
  {
    name: 'StopRolloutFailed',
    severity: 'page',
    story:
      'A rollout was to be stopped by an alarm, or after its execution had ended, and the function that does it failed. Stop it by hand, now: the runbook says how.',
    metric: ({ stopRollout }) => stopRollout.metricErrors({ period: Duration.minutes(1) }),
  },
  {
    name: 'StopRolloutThrottled',
    severity: 'page',
    story:
      'A rollout was to be stopped by an alarm, or after its execution had ended, and Lambda keeps the function waiting that does it: the account has no room for it. Stop it by hand, now: the runbook says how.',
    metric: ({ stopRollout }) => stopRollout.metricThrottles({ period: Duration.minutes(1) }),
  },
  {
    name: 'PageFailed',
    severity: 'page',
    story:
      'An alarm had nothing to stop and was to page, and its page could not be sent: nobody has heard of it. The failed execution of Page has it.',
    metric: ({ page }) => page.metricFailed({ period: Duration.minutes(1) }),
  },
];
