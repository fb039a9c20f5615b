import { alertsOf } from '../lambdas/core/monitoring/alerts.ts';
import { metricTarget } from '../lambdas/core/monitoring/metrics.ts';
import { planOf } from '../lambdas/core/plan/settings.ts';
import { commandLine, runbookAt } from '../lambdas/core/telling/hints.ts';
import type { RolloutConfig } from './config.ts';
import { serviceAlerts } from './monitoring/service-alerts.ts';

/**
 * Physical names, fixed before any resource exists: preflight asks for the alarms and the dashboard by name, a role
 * names the machine whose function it is, and people search the console for them.
 */
export interface Names {
  /** `<stack>-<name>` of a function or a state machine. */
  of(name: string): string;
  /** `<schema>.<table>` */
  readonly target: string;
  /** What our metrics call it. */
  readonly metricTarget: string;
  readonly dashboard: string;
  /** A command of `npm run rollout`, as it is typed to reach this stack. */
  commandLine(words: string): string;
  /** A link to the runbook, at this heading's anchor. */
  runbook(anchor?: string): string;
  /** Of all alerts. */
  readonly alarms: readonly string[];
  /** Of the alerts that stop a rollout under way. */
  readonly stoppingAlarms: readonly string[];
}

/** Every name of a deployment. */
export function namesOf(config: RolloutConfig): Names {
  const alerts = alertsOf(planOf(config));
  const of = (name: string) => `${config.stackName}-${name}`;
  const target = `${config.target.schema}.${config.target.table}`;
  return {
    of,
    target,
    metricTarget: metricTarget(config.stackName, target),
    dashboard: config.stackName,
    commandLine: (words) => commandLine({ stack: config.stackName }, words),
    runbook: (anchor) => runbookAt(config.runbookUrl, anchor),
    alarms: [...alerts, ...serviceAlerts].map(({ name }) => of(name)),
    stoppingAlarms: alerts.filter(({ stopsRollout }) => stopsRollout).map(({ name }) => of(name)),
  };
}
