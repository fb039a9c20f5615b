import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ConfigurationError, configOf, parseConfig, readConfig } from '../../infra/config.ts';

const right = {
  vpcId: 'vpc-0123456789abcdef0',
  subnetIds: ['subnet-0123456789abcdef0'],
  securityGroupId: 'sg-0123456789abcdef0',
  databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database-AbCdEf',
  database: { clusterIdentifier: 'main' },
};

function complaint(value: unknown): string {
  try {
    parseConfig(value, 'file.json');
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return (error as Error).message;
  }
  throw new Error('accepted');
}

describe('a wrong setting is named with what was found and what is expected', () => {
  test.each([
    [{ vpcId: 'main' }, 'vpcId: found "main", expected an id like vpc-0123456789abcdef0'],
    [{ vpcId: undefined }, 'vpcId: found nothing, expected an id like vpc-0123456789abcdef0'],
    [{ subnetIds: [] }, 'subnetIds: found [], expected at least one subnet id'],
    [
      { subnetIds: ['subnet-x'] },
      'subnetIds.0: found "subnet-x", expected an id like subnet-0123456789abcdef0',
    ],
    [{ databaseTls: 'on' }, 'databaseTls: found "on", expected one of "verify-full"|"off"'],
    [{ onCall: ['me'] }, 'onCall.0: found "me", expected an e-mail address'],
    [
      { database: { instanceIdentifier: 'a', clusterIdentifier: 'b' } },
      'database: found {"instanceIdentifier":"a","clusterIdentifier":"b"}, expected {"instanceIdentifier": "…"} or {"clusterIdentifier": "…"}',
    ],
    [{ vpcid: 'x' }, 'vpcid: unknown setting'],
    [{ target: { tabel: 'x' } }, 'target.tabel: unknown setting'],
    [{ attestations: { onCall: 'R. Roe' } }, 'attestations.onCall: unknown setting'],
    [{ plan: { holdHours: 1 } }, 'plan.holdHours: unknown setting'],
    [{ plan: { phases: { 6: {} } } }, 'plan.phases.6: unknown setting'],
    [{ plan: { phases: { 4: { batchRows: 10 } } } }, 'plan.phases.4.batchRows: unknown setting'],
    [
      { plan: { throttle: { cpuPercent: 85 } } },
      'plan.throttle.cpuPercent: found 85, expected less than abort.cpuPercent, 80: batches pause before the rollout stops',
    ],
    [
      { plan: { phases: { 2: { aimPercent: 26 } } } },
      'plan.phases.2.aimPercent: found 26, expected more than 20 and less than 25, as its gate asks',
    ],
    [
      { plan: { phases: { 5: { aimPercent: 99 } } } },
      'plan.phases.5.aimPercent: found 99, expected 100, as its gate asks',
    ],
    [
      { plan: { phases: { 1: { aimPercent: 24.9 } } } },
      'plan.phases.2.aimPercent: found 24.5, expected not less than phase 1 aims at, 24.9',
    ],
    [
      { plan: { phases: { 3: { maxErrorPercent: 2 } } } },
      'plan.phases.3.maxErrorPercent: found 2, expected not more than abort.errorPercent, 1: the rollout would have stopped before the gate',
    ],
    [
      { plan: { phases: { 4: { soakMinutes: 6000 } } } },
      ['plan.overdueHours: found 72, expected more than the soaks take together, 102.5 hours']
        .concat('plan.phases.4.soakMinutes: found 6000, expected at most 1000 slices of soakSliceMinutes, 5')
        .join('\nfile.json: '),
    ],
    [
      { plan: { afterwards: { dailyDays: 31 } } },
      'plan.afterwards.dailyDays: found 31, expected not more than afterwards.days, 30',
    ],
    [
      { attestations: { onCallEstablished: '' } },
      'attestations.onCallEstablished: found "", expected the name of who attests',
    ],
  ])('%j', (wrong, line) => {
    expect(complaint({ ...right, ...wrong })).toBe(`file.json: ${line}`);
  });

  test('several wrong settings are named at once, a line each', () => {
    expect(complaint({ ...right, vpcId: 'x', securityGroupId: 'y' }).split('\n')).toHaveLength(2);
  });

  test('a secret that is named by half its ARN', () => {
    const wrong = {
      ...right,
      databaseSecretArn: 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:database',
    };
    expect(complaint(wrong)).toMatch(/^file\.json: databaseSecretArn: found .*expected the whole ARN/);
  });
});

describe('where the configuration comes from', () => {
  const context = (values: Record<string, unknown>) => ({ tryGetContext: (key: string) => values[key] });

  test('the committed example, when nothing is said', () => {
    expect(configOf(context({}))).toMatchObject({
      stackName: 'EncryptionRollout',
      databaseTls: 'verify-full',
    });
  });

  test('the settings themselves come before the file', () => {
    const inline = { ...right, stackName: 'Customers' };
    expect(configOf(context({ encryptionRollout: inline, config: 'nowhere.json' })).stackName).toBe(
      'Customers',
    );
  });

  test('a file that is not there, or is not JSON', () => {
    expect(() => readConfig('nowhere.json')).toThrow('config: found no readable file at nowhere.json');
    const file = join(mkdtempSync(join(tmpdir(), 'config-')), 'broken.json');
    writeFileSync(file, '{');
    expect(() => readConfig(file)).toThrow(/found no JSON .*expected a JSON object/);
  });
});

test('the app ends with exit code 1 and the message alone, without a stack trace', async () => {
  const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', 'infra/app.ts'],
      {
        env: {
          ...process.env,
          CDK_CONTEXT_JSON: JSON.stringify({ encryptionRollout: { ...right, vpcId: 'x' } }),
        },
      },
      (error, _stdout, stderr) => resolve({ code: error?.code ?? 0, stderr }),
    );
  });
  expect(stderr.trim()).toBe(
    'context encryptionRollout: vpcId: found "x", expected an id like vpc-0123456789abcdef0',
  );
  expect(code).toBe(1);
});
