/** What pages: every alarm, by its metric under the name and the dimensions that the code emits. And the templates. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  CloudWatchClient,
  GetMetricStatisticsCommand,
  type MetricAlarm,
  PutMetricDataCommand,
  SetAlarmStateCommand,
} from '@aws-sdk/client-cloudwatch';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { App } from 'aws-cdk-lib';
import { assert, expect, test } from 'vitest';
import { type GivenConfig, parseConfig, type RolloutConfig, readConfig } from '../../infra/config.ts';
import { serviceAlerts } from '../../infra/monitoring/service-alerts.ts';
import { EncryptionRolloutStack } from '../../infra/stack.ts';
import { type Alert, alertsOf } from '../../lambdas/core/monitoring/alerts.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { everything } from '../infra/everything.ts';
import { cfnLint } from './emulator.ts';
import { alarmNamed, paged, stackName, theWorld } from './world.ts';

const run = promisify(execFile);

/** A value that is beyond the alert's threshold, whatever else was measured in its period. */
const breaching = ({ comparison, threshold }: Alert) =>
  (comparison === 'LessThanThreshold' ? -1 : 1) * 1_000 * (threshold + 1);

/**
 * The alarm goes from OK to ALARM, those hear of it whom it tells, and it is its own metric that has the value. The value is published
 * for as long as nobody has heard: an alarm looks at the last period alone, and a value may come at the end of one.
 */
async function goesOff(
  { name, severity, toldByStopRollout }: Pick<Alert, 'name' | 'severity' | 'toldByStopRollout'>,
  value: number,
  put: (alarm: MetricAlarm) => Promise<unknown>,
): Promise<void> {
  const cloudWatch = new CloudWatchClient();
  const alarm = await alarmNamed(name);
  assert(alarm?.AlarmName, `no alarm ${name}`);
  const { AlarmName, Namespace, MetricName, Dimensions = [] } = alarm;
  const queue = ({ page: 'onCall', tomorrow: 'tomorrow', note: 'notes' } as const)[severity];
  // Before it is OK: from then on it may go off by what else is measured, and whoever hears of that has heard.
  await paged(queue);
  await cloudWatch.send(new SetAlarmStateCommand({ AlarmName, StateValue: 'OK', StateReason: 'test' }));
  let told = '';
  await expect
    .poll(async () => {
      await put(alarm);
      told += await paged(queue);
      return toldByStopRollout ? (await alarmNamed(name))?.StateValue : told;
    })
    .toContain(toldByStopRollout ? 'ALARM' : `ALARM: "${AlarmName}"`);
  if (!toldByStopRollout) expect(told).toContain(`docs/runbook.md#${name.toLowerCase()}`);
  // Of all metrics of this name, which is what the emulator's alarms go by.
  expect(Dimensions.length).toBeGreaterThan(0);
  const { Datapoints = [] } = await cloudWatch.send(
    new GetMetricStatisticsCommand({
      Namespace,
      MetricName,
      Dimensions,
      StartTime: new Date(Date.now() - 3_600_000),
      EndTime: new Date(Date.now() + 60_000),
      Period: 60,
      Statistics: ['Minimum', 'Maximum'],
    }),
  );
  expect(Datapoints.flatMap(({ Minimum, Maximum }) => [Minimum, Maximum])).toContain(value);
}

export function alarming(): void {
  test('the generated key is 32 bytes in hex, and the database holds the same', async () => {
    const { SecretString = '{}' } = await new SecretsManagerClient().send(
      new GetSecretValueCommand({ SecretId: theWorld().outputs.KeySecretArn }),
    );
    expect(JSON.parse(SecretString)).toEqual({ number: 1, key: expect.stringMatching(/^[0-9a-f]{64}$/) });
  });

  test.each(alertsOf(defaultPlan))(
    '$name goes off by its metric, published as the handlers do',
    async (alert) => {
      process.env.STACK_NAME = stackName;
      const { publish } = await import('../../lambdas/adapters/aws/cloudwatch.ts');
      const value = breaching(alert);
      await goesOff(alert, value, () => publish('public.appointments', { [alert.metric]: value }));
    },
  );

  test.each(serviceAlerts)('$name goes off by the metric that AWS emits', async (alert) => {
    await goesOff(alert, 1, ({ Namespace, MetricName, Dimensions }) =>
      new CloudWatchClient().send(
        new PutMetricDataCommand({ Namespace, MetricData: [{ MetricName, Dimensions, Value: 1 }] }),
      ),
    );
  });

  test('every template passes cfn-lint', async () => {
    const folder = join(theWorld().directory, 'lint');
    const given = readConfig('config/example.json') as GivenConfig;
    const slack = {
      workspaceId: 'T0123ABCD',
      channelId: 'C0123ABCD',
      configuredElsewhere: false,
      operate: false,
      alsoFollow: ['arn:aws:sns:us-east-1:123456789012:Shop-Chat'],
    };
    const configs: RolloutConfig[] = [
      { ...given, createVpcEndpoints: true },
      { ...given, slack, stackName: 'WithSlack' },
      parseConfig({ demo: true, stackName: 'Demo' }, 'test'),
      everything,
    ];
    const app = new App({
      analyticsReporting: false,
      builtinCloudFormationValidation: false,
      outdir: folder,
    });
    for (const config of configs) new EncryptionRolloutStack(app, config.stackName, { config });
    app.synth();
    const templates = [folder, join(theWorld().directory, 'cdk.out')].map((each) =>
      join(each, '*.template.json'),
    );
    // W3005: a DependsOn that a reference implies as well, as the CDK writes them.
    const { stdout } = await run(cfnLint, ['--ignore-checks', 'W3005', '--', ...templates]);
    expect(stdout).toBe('');
  });
}
