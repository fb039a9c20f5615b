import { alertsOf } from '../lambdas/core/monitoring/alerts.ts';
import { metricTarget } from '../lambdas/core/monitoring/metrics.ts';
import { planOf, targetName } from '../lambdas/core/plan/settings.ts';
import { commandLine, runbookAt } from '../lambdas/core/telling/hints.ts';
import { subjectOf } from '../lambdas/core/telling/subject.ts';
import type { RolloutConfig } from './config.ts';
import { serviceAlerts } from './monitoring/service-alerts.ts';

/**
 * Physical names, fixed before any resource exists: preflight asks for the alarms and the dashboard by name, a role
 * names the machine whose function it is, and people search the console for them.
 */
export interface Names {
  /** `<stack>-<name>` of a function or a state machine. */
  of(name: string): string;
  /** `<schema>.<table>` of each. */
  readonly tables: readonly string[];
  /** What our metrics call the table, or all of them together. */
  metricTarget(table?: string): string;
  readonly dashboard: string;
  /** A command of `npm run rollout`, as it is typed to reach this stack. */
  commandLine(words: string): string;
  /** Subject of a message: what has happened to the tables. */
  subject(what: string): string;
  /** A link to the runbook, at this heading's anchor. */
  runbook(anchor?: string): string;
  /** Of all alerts. */
  readonly alarms: readonly string[];
  /** Of the alerts that StopRollout hears of: those that stop a rollout under way, and others that it tells people. */
  readonly heardAlarms: readonly string[];
}

/** Every name of a deployment. */
export function namesOf(config: RolloutConfig): Names {
  const alerts = alertsOf(planOf(config));
  const of = (name: string) => `${config.stackName}-${name}`;
  return {
    of,
    tables: config.targets.map(targetName),
    metricTarget: (table) => metricTarget(config.stackName, table),
    dashboard: config.stackName,
    commandLine: (words) => commandLine({ stack: config.stackName }, words),
    subject: (what) => subjectOf({ stack: config.stackName, what, tables: config.targets.map(targetName) }),
    runbook: (anchor) => runbookAt(config.runbookUrl, anchor),
    alarms: [...alerts, ...serviceAlerts].map(({ name }) => of(name)),
    heardAlarms: alerts.filter(({ toldByStopRollout }) => toldByStopRollout).map(({ name }) => of(name)),
  };
}
