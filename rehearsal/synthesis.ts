/** The app as the rehearsal deploys it: nowhere, but from the same source as to AWS. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { GivenTables } from '../config/read.ts';
import { attestations } from '../lambdas/core/plan/plan.ts';
import type { PlanOverrides } from '../lambdas/core/plan/plan-overrides.ts';
import type { Settings, Target } from '../lambdas/core/plan/settings.ts';
import { customerAlarm } from './faults.ts';
import type { FunctionDefinition } from './machines/functions.ts';
import { answerMinutes } from './options.ts';

export interface Rollout {
  /** Definitions by name. */
  readonly machines: Readonly<Record<string, unknown>>;
  readonly functions: readonly FunctionDefinition[];
  /** What the handlers are told. */
  readonly settings: Settings;
  readonly databaseSecretArn: string;
  readonly keySecretArn: string;
}

/**
 * What is measured against the plan's limits is this machine, which may be slow, or busy with something else; and a
 * batch of a small table has five rows to share the time of its query among. The limits stop only what hangs.
 */
const onThisMachine: PlanOverrides = {
  maxMillisecondsPerRow: 1_000,
  writeLatency: { maxAddedMilliseconds: 1_000 },
};

/**
 * Synthesizes the app for a database on this machine, or one that the user named; or reads what was synthesized there.
 * @param outdir for the cloud assembly, and for the part of it that a rehearsal runs
 * @param tls whether the handlers verify the server's certificate
 * @param targets the tables
 * @param given what else a configuration says about how they are worked on; not when: a rehearsal is at any time
 */
export async function synthesize(
  outdir: string,
  tls: boolean,
  targets: readonly Target[],
  given: Partial<Pick<GivenTables, 'plan' | 'acknowledgedTriggers'>> & { approvals?: readonly number[] } = {},
): Promise<Rollout> {
  const { plan = {}, acknowledgedTriggers = [], approvals = [] } = given;
  const kept = path.join(outdir, 'rehearsal.json');
  if (existsSync(kept)) {
    const rollout = JSON.parse(readFileSync(kept, 'utf8')) as Rollout;
    const { settings } = rollout;
    if (
      isDeepStrictEqual(
        [settings.targets, settings.acknowledgedTriggers, settings.approvals],
        [targets, acknowledgedTriggers, approvals],
      )
    )
      return rollout;
  }
  // Loaded here, because the CDK takes a second.
  const { parseConfig } = await import('../infra/config.ts');
  const { synthesizeRollout } = await import('../infra/synthesis.ts');
  const config = parseConfig(
    {
      vpcId: 'vpc-00000000',
      subnetIds: ['subnet-00000000'],
      securityGroupId: 'sg-00000000',
      databaseSecretArn: 'arn:aws:secretsmanager:us-east-1:123456789012:secret:rehearsal-database-000000',
      database: { instanceIdentifier: 'rehearsal' },
      databaseTls: tls ? 'verify-full' : 'off',
      customerAlarms: [customerAlarm],
      targets,
      acknowledgedTriggers,
      approvals,
      // Whatever is configured: pages and screens say how long it really waits.
      plan: { ...onThisMachine, ...plan, holdMinutes: answerMinutes },
      attestations: Object.fromEntries(Object.keys(attestations).map((name) => [name, 'the rehearsal'])),
    },
    'the rehearsal',
  );
  const { machines, functions, settings } = synthesizeRollout(config, outdir);
  const environment = functions.PrepareDatabase?.environment ?? {};
  const rollout: Rollout = {
    machines: Object.fromEntries(
      Object.entries(machines).map(([name, { definition }]) => [name, definition]),
    ),
    functions: Object.entries(functions).map(
      ([name, { directory, handler, environment, timeoutSeconds }]) => {
        const [file, exported = 'handler'] = handler.split('.');
        return {
          name,
          bundle: path.resolve(directory, `${file}.mjs`),
          exported,
          environment,
          timeoutSeconds,
        };
      },
    ),
    settings,
    databaseSecretArn: environment.DATABASE_SECRET_ARN ?? '',
    keySecretArn: environment.KEY_SECRET_ARN ?? '',
  };
  writeFileSync(kept, JSON.stringify(rollout));
  return rollout;
}
