import { readFileSync } from 'node:fs';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { parseConfig, readConfig } from '../../../infra/config.ts';
import { serviceAlerts } from '../../../infra/monitoring/service-alerts.ts';
import { EncryptionRolloutStack } from '../../../infra/stack.ts';
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

/** A description, once CloudFormation knows where. */
function inRegion(
  region: string,
  description: string | { 'Fn::Join': [string, (string | object)[]] },
): string {
  if (typeof description === 'string') return description;
  return description['Fn::Join'][1].map((part) => (typeof part === 'string' ? part : region)).join('');
}

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
    ['PageFailed', 'AWS/States', 'ExecutionsFailed', 'StateMachineArn', 'Page'],
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
    expect([...byName.keys()]).toEqual(['EncryptionRollout-ClearCiphertext']);
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
    // It is all that CloudWatch mails, under a subject with the alarm's name.
    expect(inRegion('eu-west-1', AlarmDescription).split('\n')).toEqual([
      story,
      'Tables: public.appointments.',
      harmless,
      `Until morning: ${urgency[severity]}`,
      `Next: npm run rollout -- runbook ${name}. Where it is: npm run rollout -- status`,
      'Dashboard: https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#dashboards/dashboard/EncryptionRollout',
      `Runbook: docs/runbook.md#${name.toLowerCase()}`,
    ]);
    const topic = { page: 'OnCall', tomorrow: 'Tomorrow', note: 'Notes' }[severity];
    const told = alert as { toldByStopRollout?: true };
    expect(AlarmActions).toEqual(told.toldByStopRollout ? undefined : [{ Ref: topicOf(topic) }]);
  });

  test('a description fits, however long the names of stack, tables and runbook are, and links where it is', () => {
    const elsewhere = readFileSync('config/example.json', 'utf8')
      .replaceAll('arn:aws:', 'arn:aws-us-gov:')
      .replaceAll('us-east-1', 'us-gov-west-1');
    const { target: _, ...given } = JSON.parse(elsewhere);
    const stackName = 'Payments'.padEnd(40, '-x');
    const runbookUrl = 'https://wiki.example.com/'.padEnd(200, 'r');
    const settings = {
      ...given,
      stackName,
      runbookUrl,
      targets: Array.from({ length: 60 }, (_, n) => ({
        schema: 'shop',
        table: `wiązanie_${n}`,
        columns: ['email'],
        canary: { email: 'canary@example.com' },
      })),
    };
    const config = parseConfig(settings, 'test');
    for (const env of [{ region: 'us-gov-west-1' }, undefined]) {
      const app = new App({ analyticsReporting: false });
      const stack = new EncryptionRolloutStack(app, stackName, {
        config,
        ...(env === undefined ? {} : { env }),
      });
      const descriptions = Object.values(
        Template.fromStack(stack).findResources('AWS::CloudWatch::Alarm'),
      ).map(({ Properties }) => inRegion('us-gov-west-1', Properties.AlarmDescription));
      expect(descriptions).toHaveLength(all.length);
      for (const text of descriptions) {
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1_024);
        expect(text).toMatch(/\nTables: shop\.wiązanie_0.* …\.\nCustomers: /);
        expect(text).toContain(` --stack ${stackName}. Where it is: `);
        expect(text).toMatch(new RegExp(`\nRunbook: ${runbookUrl}#\\w+$`));
        if (env !== undefined)
          expect(text).toContain(
            `\nDashboard: https://us-gov-west-1.console.amazonaws-us-gov.com/cloudwatch/home?region=us-gov-west-1#dashboards/dashboard/${stackName}\n`,
          );
      }
    }
    expect(() => parseConfig({ ...settings, runbookUrl: `${runbookUrl}r` }, 'test')).toThrow(
      /runbookUrl: .*expected at most 200 characters/,
    );
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
