/** Option 3 of the plan: how to restore a backup of this database. Nothing here changes anything. */
import { DescribeDBClustersCommand, DescribeDBInstancesCommand, RDSClient } from '@aws-sdk/client-rds';
import { latestBackup, listSnapshots } from '../../lambdas/adapters/aws/backups.ts';
import { quoted } from '../../lambdas/core/telling/hints.ts';
import { tell } from '../../terminal/telling.ts';
import { type Deployment, placeOf } from './deployment.ts';

/** What the page is filled in with. Undefined: could not be read, and is a placeholder on the page. */
export interface RestoreFacts {
  readonly place: string;
  readonly region: string;
  readonly kind: 'instance' | 'cluster';
  readonly identifier: string | undefined;
  readonly snapshot: string | undefined;
  /** ISO 8601. */
  readonly snapshotAt: string | undefined;
  readonly engine: string | undefined;
  readonly instanceClass: string | undefined;
  readonly subnetGroup: string | undefined;
  readonly securityGroups: readonly string[];
  readonly parameterGroup: string | undefined;
  /** IAM may log in, which a restored database forgets. */
  readonly iam: boolean;
  /** Capacity units of a serverless cluster, without which no instance can be made for it. */
  readonly capacity: { readonly min: number; readonly max: number } | undefined;
}

type Database = Omit<RestoreFacts, 'place' | 'region' | 'kind' | 'identifier' | keyof Snapshot>;
type Snapshot = Pick<RestoreFacts, 'snapshot' | 'snapshotAt'>;

/** Reads what RDS knows about the deployment's database. What it does not tell stays undefined. */
export async function readFacts(deployment: Deployment): Promise<RestoreFacts> {
  const { DatabaseInstance, DatabaseCluster } = deployment.outputs;
  const kind = DatabaseCluster === undefined ? 'instance' : 'cluster';
  const identifier = DatabaseCluster ?? DatabaseInstance;
  const rds = new RDSClient();
  const [database, snapshot] =
    identifier === undefined
      ? [{}, {}]
      : await Promise.all([
          known(kind === 'cluster' ? readCluster(rds, identifier) : readInstance(rds, identifier)),
          known(latestSnapshot(rds, deployment.outputs)),
        ]);
  return {
    place: placeOf(deployment),
    region: deployment.region,
    kind,
    identifier,
    ...nothing,
    ...database,
    ...snapshot,
  };
}

const nothing = {
  snapshot: undefined,
  snapshotAt: undefined,
  engine: undefined,
  instanceClass: undefined,
  subnetGroup: undefined,
  securityGroups: [],
  parameterGroup: undefined,
  iam: false,
  capacity: undefined,
};

/** The page is worth having without it. */
async function known<T extends object>(answer: Promise<T>): Promise<Partial<T>> {
  return answer.catch((error: Error) => {
    tell(`RDS does not tell: ${error.message}`);
    return {};
  });
}

async function readInstance(rds: RDSClient, DBInstanceIdentifier: string): Promise<Database> {
  const { DBInstances: [found] = [] } = await rds.send(
    new DescribeDBInstancesCommand({ DBInstanceIdentifier }),
  );
  return {
    engine: found?.Engine,
    instanceClass: found?.DBInstanceClass,
    subnetGroup: found?.DBSubnetGroup?.DBSubnetGroupName,
    securityGroups: ids(found?.VpcSecurityGroups),
    parameterGroup: found?.DBParameterGroups?.[0]?.DBParameterGroupName,
    iam: found?.IAMDatabaseAuthenticationEnabled ?? false,
    capacity: undefined,
  };
}

async function readCluster(rds: RDSClient, DBClusterIdentifier: string): Promise<Database> {
  const { DBClusters: [found] = [] } = await rds.send(new DescribeDBClustersCommand({ DBClusterIdentifier }));
  const { MinCapacity: min, MaxCapacity: max } = found?.ServerlessV2ScalingConfiguration ?? {};
  const member = found?.DBClusterMembers?.find(({ IsClusterWriter }) => IsClusterWriter);
  const { DBInstances: [writer] = [] } =
    member?.DBInstanceIdentifier === undefined
      ? {}
      : await known(
          rds.send(new DescribeDBInstancesCommand({ DBInstanceIdentifier: member.DBInstanceIdentifier })),
        );
  return {
    engine: found?.Engine,
    instanceClass: writer?.DBInstanceClass ?? found?.DBClusterInstanceClass,
    subnetGroup: found?.DBSubnetGroup,
    securityGroups: ids(found?.VpcSecurityGroups),
    parameterGroup: found?.DBClusterParameterGroup,
    iam: found?.IAMDatabaseAuthenticationEnabled ?? false,
    capacity: min === undefined || max === undefined ? undefined : { min, max },
  };
}

function ids(groups: readonly { VpcSecurityGroupId?: string | undefined }[] = []): string[] {
  return groups.flatMap(({ VpcSecurityGroupId }) => (VpcSecurityGroupId ? [VpcSecurityGroupId] : []));
}

async function latestSnapshot(
  rds: RDSClient,
  { DatabaseInstance, DatabaseCluster }: Deployment['outputs'],
): Promise<Snapshot> {
  const latest = latestBackup(
    await listSnapshots(rds, { instanceIdentifier: DatabaseInstance, clusterIdentifier: DatabaseCluster }),
  );
  return { snapshot: latest?.id, snapshotAt: latest?.takenAt?.toISOString() };
}

/** The page, in Markdown: docs/runbook.md#restore-from-a-backup with this database's names. */
export function restorePage(facts: RestoreFacts, { commandLine }: Pick<Deployment, 'commandLine'>): string {
  const { kind, identifier, snapshot, snapshotAt, engine, instanceClass, subnetGroup, capacity } = facts;
  const filled = (value: string | undefined, placeholder: string) => value ?? `<${placeholder}>`;
  const restored = `${filled(identifier, 'database')}-restored`;
  const groups = facts.securityGroups.length > 0 ? facts.securityGroups.join(' ') : '<security groups>';
  const common = [
    // The one name of RDS that may have spaces.
    `--db-subnet-group-name ${filled(subnetGroup && quoted(subnetGroup), 'subnet group')}`,
    `--vpc-security-group-ids ${groups}`,
    '--deletion-protection',
    ...(facts.iam ? ['--enable-iam-database-authentication'] : []),
    `--region ${facts.region}`,
  ];
  const isAurora = engine === undefined || engine.startsWith('aurora');
  const restore =
    kind === 'instance'
      ? [
          command('restore-db-instance-from-db-snapshot', [
            `--db-instance-identifier ${restored}`,
            `--db-snapshot-identifier ${filled(snapshot, 'snapshot')}`,
            `--db-instance-class ${filled(instanceClass, 'instance class')}`,
            `--db-parameter-group-name ${filled(facts.parameterGroup, 'parameter group')}`,
            ...common,
          ]),
          command('wait db-instance-available', [
            `--db-instance-identifier ${restored}`,
            `--region ${facts.region}`,
          ]),
        ]
      : [
          command('restore-db-cluster-from-snapshot', [
            `--db-cluster-identifier ${restored}`,
            `--snapshot-identifier ${filled(snapshot, 'snapshot')}`,
            `--engine ${filled(engine, 'engine')}`,
            `--db-cluster-parameter-group-name ${filled(facts.parameterGroup, 'parameter group')}`,
            ...(isAurora ? [] : [`--db-cluster-instance-class ${filled(instanceClass, 'instance class')}`]),
            ...(capacity === undefined
              ? []
              : [
                  `--serverless-v2-scaling-configuration MinCapacity=${capacity.min},MaxCapacity=${capacity.max}`,
                ]),
            ...common,
          ]),
          // A Multi-AZ DB cluster makes its instances itself: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_RestoreFromMultiAZDBClusterSnapshot.Restoring.html
          ...(isAurora
            ? [
                command('create-db-instance', [
                  `--db-instance-identifier ${restored}-1`,
                  `--db-cluster-identifier ${restored}`,
                  `--engine ${filled(engine, 'engine')}`,
                  `--db-instance-class ${filled(instanceClass, 'instance class')}`,
                  `--region ${facts.region}`,
                ]),
                command('wait db-instance-available', [
                  `--db-instance-identifier ${restored}-1`,
                  `--region ${facts.region}`,
                ]),
              ]
            : [
                command('wait db-cluster-available', [
                  `--db-cluster-identifier ${restored}`,
                  `--region ${facts.region}`,
                ]),
              ]),
        ];
  return `# Restore ${filled(identifier, 'database')} from a backup

For the ${facts.place}. Nothing was changed by printing this. The plaintext is complete in the live database: restore only
when rows themselves are lost or wrong. Writes since the backup are not in it. Talk to the owners of the database first.

Latest backup: ${filled(snapshot, 'snapshot')}${snapshotAt === undefined ? '' : `, of ${snapshotAt}`}. What stands in <angle brackets> could not be read: fill it in.

1. Stop what may still write ciphertext: \`${commandLine('abort')}\`, or for a run that is over
   \`${commandLine('rollback --option keep')}\`.
2. Restore beside the live database, never over it:

\`\`\`sh
${restore.join('\n\n')}
\`\`\`

3. Compare: count the rows of each table in both, and read some that are wrong in the live one. If the backup is from after
   the rollout began, \`npm run rollout -- verify --database-url … --key-file KEYS\` says whether its ciphertext opens: with the JSON of
   the key secret in the file KEYS, for a restored database has no key. Before an application uses its ciphertext:
   \`npm run rollout -- install --database-url … --config FILE --key-file KEYS\`.
4. Copy the rows that you need back, or let the application use ${restored}. The key secret must keep every key
   that a row of the backup is sealed with.
5. Before the next rollout, have the stack's \`database\` and its secret name the database that is now live, and deploy.

The whole story: docs/runbook.md#restore-from-a-backup
`;
}

function command(name: string, options: readonly string[]): string {
  return [`aws rds ${name}`, ...options.map((option) => `  ${option}`)].join(' \\\n');
}
