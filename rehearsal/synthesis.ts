/** The app as the rehearsal deploys it: nowhere, but from the same source as to AWS. */
import path from 'node:path';
import { parseConfig } from '../infra/config.ts';
import { synthesizeRollout } from '../infra/synthesis.ts';
import { attestations } from '../lambdas/core/plan.ts';
import { Settings } from '../lambdas/core/settings.ts';
import { customerAlarm } from './faults.ts';
import type { FunctionDefinition } from './functions.ts';

export interface Rollout {
  readonly machines: ReadonlyMap<string, unknown>;
  readonly functions: readonly FunctionDefinition[];
  /** What the handlers are told. */
  readonly settings: Settings;
  readonly databaseSecretArn: string;
  readonly keySecretArn: string;
}

/**
 * Synthesizes the app for a database on this machine, or one that the user named.
 * @param outdir for the cloud assembly
 * @param tls whether the handlers verify the server's certificate
 * @param priority SQL condition of the rows that come first
 */
export function synthesize(outdir: string, tls: boolean, priority: string | null): Rollout {
  const config = parseConfig(
    {
      vpcId: 'vpc-00000000',
      subnetIds: ['subnet-00000000'],
      securityGroupId: 'sg-00000000',
      databaseSecretArn: 'arn:aws:secretsmanager:us-east-1:123456789012:secret:rehearsal-database-000000',
      database: { instanceIdentifier: 'rehearsal' },
      databaseTls: tls ? 'verify-full' : 'off',
      customerAlarms: [customerAlarm],
      target: { priority },
      attestations: Object.fromEntries(Object.keys(attestations).map((name) => [name, 'the rehearsal'])),
    },
    'the rehearsal',
  );
  const { machines, functions } = synthesizeRollout(config, outdir);
  const environment = functions.PrepareDatabase?.environment ?? {};
  return {
    machines: new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition])),
    functions: Object.entries(functions).map(
      ([name, { directory, handler, environment, timeoutSeconds }]) => {
        const [file, exported = 'handler'] = handler.split('.');
        return { name, bundle: path.join(directory, `${file}.mjs`), exported, environment, timeoutSeconds };
      },
    ),
    settings: Settings.parse(JSON.parse(environment.ROLLOUT_SETTINGS ?? '')),
    databaseSecretArn: environment.DATABASE_SECRET_ARN ?? '',
    keySecretArn: environment.KEY_SECRET_ARN ?? '',
  };
}
