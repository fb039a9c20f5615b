import { readFileSync } from 'node:fs';
import { Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../../../infra/config.ts';
import { serviceAlerts } from '../../../infra/monitoring/service-alerts.ts';
import { synthesizeRollout } from '../../../infra/synthesis.ts';
import { harmless } from '../../../lambdas/core/monitoring/alarm-message.ts';
import { alertsOf, urgency } from '../../../lambdas/core/monitoring/alerts.ts';
import { metricNamespace, metrics } from '../../../lambdas/core/monitoring/metrics.ts';
import { defaultPlan } from '../../../lambdas/core/plan/plan.ts';
import { duration } from '../../../lambdas/core/telling/time.ts';

const alerts = alertsOf(defaultPlan);
const rollout = synthesizeRollout(readConfig('config/example.json'));
const template = Template.fromJSON(structuredClone(rollout.template) as object as Record<string, unknown>);
const only = <T>(found: Record<string, T>): T => {
  expect(Object.keys(found)).toHaveLength(1);
  return Object.values(found)[0] as T;
};

describe('alarms', () => {
  const runbook = readFileSync('docs/runbook.md', 'utf8');

  const alarmOf = (name: string) =>
    only(
      template.findResources('AWS::CloudWatch::Alarm', {
        Properties: { AlarmName: `EncryptionRollout-${name}` },
      }),
    ).Properties;

  test.each(alerts)('$name watches a metric that the handlers emit', (alert) => {
    expect(metrics).toHaveProperty(alert.metric);
    expect(alarmOf(alert.name)).toMatchObject({
      Namespace: metricNamespace,
      MetricName: alert.metric,
      Dimensions: [{ Name: 'Target', Value: 'EncryptionRollout' }],
      Statistic: alert.statistic,
      Period: alert.periodMinutes * 60,
      Threshold: alert.threshold,
      ComparisonOperator: alert.comparison,
      TreatMissingData: alert.whenMissing,
    });
  });

  test.each([
    ['RolloutFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'EncryptionRollout'],
    ['RollbackFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'Rollback'],
    ['ChecksFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'PostRolloutChecks'],
    ['UpdatesFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'StatusUpdates'],
    ['SchedulesFailed', 'AWS/Scheduler', 'InvocationDroppedCount', 'ScheduleGroup', 'Checks'],
    ['StopRolloutFailed', 'AWS/Lambda', 'Errors', 'FunctionName', 'StopRollout'],
    ['StopRolloutThrottled', 'AWS/Lambda', 'Throttles', 'FunctionName', 'StopRollout'],
  ])('%s watches %s %s', (name, Namespace, MetricName, Dimension, of) => {
    const { Dimensions, ...alarm } = alarmOf(name);
    expect(alarm).toMatchObject({ Namespace, MetricName, Statistic: 'Sum', Threshold: 0 });
    const { Ref } = Dimensions[0].Value;
    const { StateMachineName, FunctionName } = rollout.template.Resources[Ref]?.Properties ?? {};
    expect([Dimensions[0].Name, StateMachineName ?? FunctionName ?? Dimensions[0].Value]).toEqual([
      Dimension,
      `EncryptionRollout-${of}`,
    ]);
  });

  test('what stops a rollout has room of its own', () => {
    template.hasResourceProperties('AWS::Lambda::Function', {
      FunctionName: 'EncryptionRollout-StopRollout',
      ReservedConcurrentExecutions: 10,
    });
  });

  test('every machine that fails pages: it has an alarm, its parent has one, or it pages by itself', () => {
    const machines = template.findResources('AWS::StepFunctions::StateMachine');
    const watched = Object.values(template.findResources('AWS::CloudWatch::Alarm')).flatMap(
      ({ Properties }) => Properties.Dimensions.map(({ Value }: { Value: { Ref?: string } }) => Value.Ref),
    );
    const definitions = Object.values(machines).map(({ Properties }) =>
      JSON.stringify(Properties.DefinitionString),
    );
    const unheard = Object.entries(machines).filter(
      ([id]) => !watched.includes(id) && !definitions.some((definition) => definition.includes(`"${id}"`)),
    );
    const byName = new Map(
      unheard.map(([, { Properties }]) => [
        Properties.StateMachineName,
        JSON.stringify(Properties.DefinitionString),
      ]),
    );
    expect([...byName.keys()].sort()).toEqual([
      'EncryptionRollout-ClearCiphertext',
      'EncryptionRollout-Page',
    ]);
    expect(byName.get('EncryptionRollout-ClearCiphertext')).toContain('NotifyFailed');
  });

  test('every schedule that cannot be started pages: by its group, or because Monitor is silent', () => {
    const [group, { Properties }] = Object.entries(
      template.findResources('AWS::Scheduler::ScheduleGroup'),
    )[0] as [string, { Properties: { Name: string } }];
    const schedules = Object.values(template.findResources('AWS::Scheduler::Schedule'));
    const [within, elsewhere] = [true, false].map((inGroup) =>
      schedules.filter((each) => (each.Properties.GroupName === Properties.Name) === inGroup),
    );
    expect(elsewhere?.map((each) => each.Properties.Name)).toEqual(['EncryptionRollout-Monitor']);
    // CloudFormation makes the group first: a name is no reference.
    expect(within?.map(({ DependsOn }) => DependsOn)).toEqual([[group]]);
  });

  const all = [...alerts, ...serviceAlerts];
  const topicOf = (name: string) =>
    Object.keys(
      template.findResources('AWS::SNS::Topic', { Properties: { TopicName: `EncryptionRollout-${name}` } }),
    )[0];

  test.each(all)('$name tells whom it should, has a heading in the runbook, and links there', (alert) => {
    const { name, story, severity } = alert;
    const [, section = ''] = runbook.split(`\n## ${name}\n`);
    for (const part of ['Description', 'Investigation', 'Resolution'])
      expect(section.split('\n## ')[0]).toContain(`\n### ${part}\n`);
    const { AlarmDescription, AlarmActions } = alarmOf(name);
    expect(AlarmDescription).toBe(
      `${story} ${harmless} Until morning: ${urgency[severity]} Tables: public.appointments. Runbook: docs/runbook.md#${name.toLowerCase()}`,
    );
    // CloudWatch takes 1,024 characters, with the names of many tables and a runbook at a long address.
    expect(AlarmDescription.length + 300 - 'public.appointments'.length + 200).toBeLessThan(1_024);
    const topic = { page: 'OnCall', tomorrow: 'Tomorrow', note: 'Notes' }[severity];
    const told = alert as { toldByStopRollout?: true };
    expect(AlarmActions).toEqual(told.toldByStopRollout ? undefined : [{ Ref: topicOf(topic) }]);
  });

  test('an end is told of levels alone: that a failure is not repeated does not mend it', () => {
    const told = all.map(({ name }) => name).filter((name) => alarmOf(name).OKActions !== undefined);
    expect(told).toEqual([
      'CoverageBelow99',
      'MissingIvs',
      'BoundaryBroken',
      'RolloutOverdue',
      'MonitorSilent',
    ]);
  });

  test('the numbers in the stories are those of the plan', () => {
    const storyOf = (name: string) => alerts.find((alert) => alert.name === name)?.story;
    expect(storyOf('BatchErrorRate')).toContain(`More than ${defaultPlan.abort.errorPercent} %`);
    expect(storyOf('BatchesSlow')).toContain(`more than ${defaultPlan.maxMillisecondsPerRow} ms a row`);
    expect(storyOf('RolloutOverdue')).toContain(`the ${duration(defaultPlan.overdueHours, 'h')}`);
  });

  test('there is no other alarm', () => {
    template.resourceCountIs('AWS::CloudWatch::Alarm', all.length);
  });

  test('preflight asks for exactly the alarms and the dashboard that are deployed', () => {
    const { settings } = rollout;
    const deployed = Object.values(template.findResources('AWS::CloudWatch::Alarm')).map(
      ({ Properties }) => Properties.AlarmName,
    );
    expect([...settings.ownAlarms].sort()).toEqual(deployed.sort());
    template.hasResourceProperties('AWS::CloudWatch::Dashboard', { DashboardName: settings.dashboard });
  });
});
