import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { oneOrMany, readJson } from '../config/read.ts';
import { PhaseNumber } from '../lambdas/core/payloads.ts';
import { Attester } from '../lambdas/core/plan/attester.ts';
import { ConfigurationError, issuesInWords, sample } from '../lambdas/core/plan/configuration-error.ts';
import { attestations } from '../lambdas/core/plan/plan.ts';
import { PlanOverrides } from '../lambdas/core/plan/plan-overrides.ts';
import { Database, KeyTable, Target, Targets, targetName } from '../lambdas/core/plan/settings.ts';
import { OffPeak } from '../lambdas/core/pressure/off-peak.ts';
import { defaultStackName } from '../lambdas/core/telling/hints.ts';
import { readAuthorities } from './surroundings/authorities.ts';

/** Put on every resource besides `tags`. */
export const ownTag = 'Application';

const text = (pattern: RegExp, expected: string) => z.string(expected).regex(pattern, expected);

const id = (prefix: string) =>
  text(new RegExp(`^${prefix}-[0-9a-f]{8,17}$`), `expected an id like ${prefix}-0123456789abcdef0`);

const secretArn = text(
  /^arn:aws[\w-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+-[A-Za-z0-9]{6}$/,
  'expected the whole ARN of a secret, like arn:aws:secretsmanager:eu-west-1:123456789012:secret:database-AbCdEf',
);

const topicArn = text(
  /^arn:aws[\w-]*:sns:[a-z0-9-]+:\d{12}:[\w-]{1,256}$/,
  'expected the ARN of a topic, like arn:aws:sns:eu-west-1:123456789012:Shop-Chat',
);

/** A key of several regions has an id of its own kind, `mrk-…`. */
const kmsKeyArn = text(
  /^arn:aws[\w-]*:kms:[a-z0-9-]+:\d{12}:key\/(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/,
  'expected the ARN of a key, like arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef',
);

/** Of one resource; one of them is ours. https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html */
const mostTags = 50;

/** What all services take that are tagged here; IAM takes the least. */
const tagText = (longest: number) => new RegExp(`^[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]{0,${longest}}$`, 'u');

const Tags = z
  .record(
    z.string(),
    z.string().regex(tagText(256), 'expected up to 256 letters, digits, spaces and _.:/=+-@'),
  )
  .default({})
  .superRefine((tags, context) => {
    const refuse = (name: string, message: string) =>
      context.addIssue({ code: 'custom', input: name, message, path: [name] });
    const seen = new Map([[ownTag.toLowerCase(), ownTag]]);
    for (const name of Object.keys(tags)) {
      const before = seen.get(name.toLowerCase());
      if (name === '' || !tagText(128).test(name))
        refuse(name, 'expected a name of 1 to 128 letters, digits, spaces and _.:/=+-@');
      else if (/^aws:/i.test(name)) refuse(name, "expected a name that does not begin with AWS's own aws:");
      else if (before !== undefined && before !== name)
        refuse(name, `expected no name that differs from ${before} in case alone: IAM refuses them`);
      seen.set(name.toLowerCase(), name);
    }
    if (Object.keys({ ...tags, [ownTag]: '' }).length > mostTags)
      context.addIssue({
        code: 'custom',
        input: `${Object.keys(tags).length} tags`,
        message: `expected at most ${mostTags - 1}: a resource takes ${mostTags}, one of them is ${ownTag}`,
      });
  });

/** What every deployment may say. */
const everywhere = {
  /** For editors: config/schema.json. */
  $schema: z.string().optional(),
  /** Prefix of every name in the console; one deployment per database. */
  stackName: text(
    /^[A-Za-z][A-Za-z0-9-]{0,39}$/,
    'expected a letter, then up to 39 letters, digits and hyphens',
  ).default(defaultStackName),
  /** `{"number": 1, "key": "<64 hex digits>"}`; created when not given. */
  keySecretArn: secretArn.optional(),
  /** As databaseSecretKmsKeyArn, for a given key secret. */
  keySecretKmsKeyArn: kmsKeyArn.optional(),
  /** Put on every resource. */
  tags: Tags,
  /** Where people find docs/runbook.md: the links in the alarms begin with it. */
  runbookUrl: z
    .url('expected a URL, like https://wiki.example.com/runbook')
    .max(200, 'expected at most 200 characters, since each alarm says it')
    .optional(),
  /** Who is paged: e-mail addresses. Subscribe anything else to the topic that the stack outputs. */
  onCall: z.array(z.email('expected an e-mail address')).default([]),
  /** Who is told of what can wait until morning; those on call, when not given. */
  tomorrow: z.array(z.email('expected an e-mail address')).optional(),
  /** Who is told of what nobody needs to act on, like the end of a rollout; those on call, when not given. */
  notes: z.array(z.email('expected an e-mail address')).optional(),
  /** Who follows the rollout, by status updates and by the reports of the 30 days after: e-mail addresses. */
  updates: z.array(z.email('expected an e-mail address')).default([]),
  /** Whom the plan wants told besides: e-mail addresses, a topic for each that has any. */
  stakeholders: z
    .strictObject({
      /** Beginning and end. */
      executives: z.array(z.email('expected an e-mail address')).default([]),
      /** Beginning and end. */
      security: z.array(z.email('expected an e-mail address')).default([]),
      /** Beginning and end, and every alarm. */
      support: z.array(z.email('expected an e-mail address')).default([]),
      /** Those who write to customers: rollbacks. */
      incidents: z.array(z.email('expected an e-mail address')).default([]),
    })
    .prefault({}),
  /** A Slack channel that follows it all, through Amazon Q Developer in chat applications. */
  slack: z
    .strictObject({
      workspaceId: text(/^T[0-9A-Z]{5,}$/, 'expected the id of a Slack workspace, like T0123ABCD'),
      channelId: text(/^[CG][0-9A-Z]{5,}$/, 'expected the id of a Slack channel, like C0123ABCD'),
      /** True: another stack has configured this channel, which AWS allows once, and names our topics in `alsoFollow`. */
      configuredElsewhere: z.boolean().default(false),
      /** Lets members of the channel answer questions, pause, resume and abort. */
      operate: z.boolean().default(false),
      /** ARNs of topics that the channel follows besides: the output ChatTopicArns of stacks with `configuredElsewhere`. */
      alsoFollow: z.array(topicArn).default([]),
    })
    .superRefine(({ configuredElsewhere, operate, alsoFollow: input }, context) => {
      if (configuredElsewhere && operate)
        context.addIssue({
          code: 'custom',
          input: operate,
          path: ['operate'],
          message:
            'expected false with configuredElsewhere: what a channel may do is up to the stack that configures it. Use the buttons on the dashboard',
        });
      if (configuredElsewhere && input.length > 0)
        context.addIssue({
          code: 'custom',
          input,
          path: ['alsoFollow'],
          message: 'expected none with configuredElsewhere: the stack that configures the channel names them',
        });
    })
    .optional(),
  /** Names of the alarms that say that customers notice. Any of them in ALARM stops the rollout. */
  customerAlarms: z
    .array(text(/^(?!arn:)./, 'expected the name of an alarm, not its ARN'), 'expected a list')
    .default([]),
  /** Keeps room for StopRollout in an account whose functions are at its limit. Lambda refuses where fewer than 100 would be left. */
  reserveConcurrency: z.boolean().default(true),
  /** Takes a snapshot when the latest backup is too old, and waits for it, instead of refusing to begin. */
  takeBackup: z.boolean().default(false),
  /** Phases that begin only when a person has said so. */
  approvals: z.array(PhaseNumber, 'expected a list of phase numbers, like [3, 4]').default([]),
  /** When the bulk of the batches may run; at any time when not given. */
  offPeak: OffPeak.nullable().default(null),
  /** Triggers of the application on the tables, by name, that batches may fire. */
  acknowledgedTriggers: z.array(z.string().min(1)).default([]),
  keyTable: KeyTable,
  /** What this deployment changes of the plan, e.g. `{"phases": {"3": {"batchRows": 2000}}}`. */
  plan: PlanOverrides.default({}),
  /** Attestations given at deployment: who attests each line of the checklist. */
  attestations: z
    .partialRecord(z.enum(Object.keys(attestations) as [string, ...string[]]), Attester)
    .default({})
    .transform((given): Record<string, string> => ({ ...(given as Record<string, string>) })),
};

/** What is there already. */
const given = {
  /** The one table. */
  target: Target.optional(),
  /** The tables, in the order in which they are worked on. */
  targets: Targets.optional(),
  demo: z.literal(false, 'expected true or false').default(false),
  /** Where the functions run: they must reach the database and the endpoints of the AWS services. */
  vpcId: id('vpc'),
  subnetIds: z
    .array(id('subnet'), 'expected a list of subnet ids')
    .min(1, 'expected at least one subnet id')
    .max(16, 'expected at most 16: a function takes no more'),
  securityGroupId: id('sg'),
  /** Creates the VPC endpoints that the functions need, in subnets without a way to the internet. */
  createVpcEndpoints: z.boolean().default(false),
  /** For organizations that forbid functions outside a VPC: those without the database are in it as well. */
  onlyInVpc: z.boolean().default(false),
  /** Whose CloudWatch metrics and backups are the database's. */
  database: Database,
  /** Overrides the secret's dbname; with IAM, the user's name is the default. */
  databaseName: z.string().min(1).optional(),
  /**
   * A PEM file, relative to this configuration: the authorities that vouch for the database server, and no other does.
   * Those of Amazon and the public ones, as Lambda's runtime knows them, when not given. Once parsed: its certificates.
   */
  databaseAuthorities: z.string().min(1).optional(),
};

const databaseHost = z
  .string('expected the address of the database')
  .min(1, 'expected the address of the database');
const databasePort = z.int().min(1).max(65_535);

const WithPassword = z.strictObject({
  ...everywhere,
  ...given,
  databaseAuthentication: z.literal('password', 'expected "password" or "iam"').default('password'),
  /** `{username, password, host?, port?, dbname?}`, as RDS keeps it. */
  databaseSecretArn: secretArn,
  /** Overrides the secret's host. A secret that RDS manages by itself has none. */
  databaseHost: databaseHost.optional(),
  databasePort: databasePort.optional(),
  /** The customer managed key that this secret is encrypted with, if any: the functions get leave to decrypt with it. */
  databaseSecretKmsKeyArn: kmsKeyArn.optional(),
  /** `off` is for a database on this machine alone. */
  databaseTls: z.enum(['verify-full', 'off']).default('verify-full'),
});

const WithIam = z.strictObject({
  ...everywhere,
  ...given,
  databaseAuthentication: z.literal('iam'),
  databaseHost,
  databasePort: databasePort.default(5432),
  /** A user of PostgreSQL with the role rds_iam. */
  databaseUser: text(/^[a-z_][a-z0-9_$]{0,62}$/, 'expected the name of a database user, in lower case'),
  /** What IAM knows the database by. */
  databaseResourceId: text(
    /^(db|cluster)-[A-Z0-9]{10,64}$/,
    'expected the resource id of the instance or cluster, like db-ABCDEFGHIJKL01234 or cluster-ABCDEFGHIJKL01234',
  ),
  databaseTls: z
    .literal(
      'verify-full',
      'expected "verify-full": a token is a password, and goes to the right server alone',
    )
    .default('verify-full'),
});

/** Surroundings that are made for it. */
const WithDemo = z.strictObject({
  ...everywhere,
  demo: z.literal(true),
  target: Target.refine(
    (target) => targetName(target) === 'public.appointments',
    'expected public.appointments, the table that the demonstration fills',
  ).optional(),
  /** Appointments of fictitious people. */
  demoRows: z.int('expected a number of rows').min(100).max(1_000_000).default(10_000),
  /** A new account has few to reserve. */
  reserveConcurrency: z.boolean().default(false),
  /** A new cluster has no snapshot yet. */
  takeBackup: z.boolean().default(true),
});

const schemas = { password: WithPassword, iam: WithIam, demo: WithDemo };

/** Of every setting there is. */
export const settingNames: readonly string[] = [
  ...new Set(Object.values(schemas).flatMap(({ shape }) => Object.keys(shape))),
];

/** What an operator says about a deployment, see config/example.json. */
export type GivenConfig = WithTables<z.infer<typeof WithPassword>> | WithTables<z.infer<typeof WithIam>>;
export type DemoConfig = WithTables<z.infer<typeof WithDemo>>;

/** Whether a list or the short form of a list of one was given. */
type WithTables<Parsed> = Omit<Parsed, 'target' | 'targets' | '$schema'> & {
  readonly targets: readonly Target[];
};
export type RolloutConfig = GivenConfig | DemoConfig;

/** config/schema.json: what an editor completes and checks a configuration by. What zod refines is not in it. */
export function configurationSchema(): object {
  return z.toJSONSchema(z.union(Object.values(schemas)), {
    io: 'input',
    unrepresentable: 'any',
    reused: 'ref',
  });
}

/** The settings that go with what was chosen, so that what is wrong is told in its terms. */
function chosenBy(value: unknown): { schema: (typeof schemas)[keyof typeof schemas]; choice: string } {
  const { databaseAuthentication, demo } = Object(value) as Record<string, unknown>;
  if (demo === true)
    return { schema: schemas.demo, choice: '"demo": true, which makes network and database' };
  return databaseAuthentication === 'iam'
    ? { schema: schemas.iam, choice: 'databaseAuthentication "iam"' }
    : { schema: schemas.password, choice: 'databaseAuthentication "password"' };
}

/**
 * Checks a configuration, and reads the file of authorities that it may name.
 * @param source what the message calls it, e.g. the file's path
 * @param directory that the paths in it are relative to
 * @throws ConfigurationError that names each wrong setting, what was found and what is expected
 */
export function parseConfig(value: unknown, source: string, directory = process.cwd()): RolloutConfig {
  const { schema, choice } = chosenBy(value);
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) {
    const { target, $schema: _, ...config } = result.data;
    const targets = 'targets' in config ? config.targets : undefined;
    checkRegions(config, source);
    return {
      ...config,
      ...authoritiesOf(config, source, directory),
      targets: oneOrMany(source, target, targets),
    } as RolloutConfig;
  }
  throw new ConfigurationError(
    issuesInWords(source, result.error.issues, (key) =>
      settingNames.includes(key) ? `not a setting that goes with ${choice}` : undefined,
    ),
  );
}

function authoritiesOf(config: object, source: string, directory: string) {
  const { databaseAuthorities: file, databaseTls } = config as Partial<z.infer<typeof WithPassword>>;
  if (file === undefined) return {};
  if (databaseTls === 'off')
    throw new ConfigurationError(
      `${source}: databaseAuthorities: found ${sample(file)}, expected none with databaseTls "off", which verifies no certificate`,
    );
  return { databaseAuthorities: readAuthorities(resolve(directory, file), source) };
}

const inArn = /^arn:[^:]*:[^:]*:([^:]*):/;

/** Settings that name something in a region, and where in their text it stands. */
const placed = {
  databaseSecretArn: inArn,
  keySecretArn: inArn,
  databaseSecretKmsKeyArn: inArn,
  keySecretKmsKeyArn: inArn,
  databaseHost: /\.([a-z0-9-]+)\.rds\.amazonaws\.com(?:\.cn)?$/,
};

/** The region that the settings are in, by the first that says so. A stack is in one, with all that it names. */
export function regionOf(config: object): { readonly region: string; readonly setting: string } | undefined {
  return regionsOf(config)[0];
}

function regionsOf(config: object) {
  const given = config as Partial<Record<string, unknown>>;
  return Object.entries(placed).flatMap(([setting, pattern]) => {
    const region = pattern.exec(String(given[setting] ?? ''))?.[1];
    return region === undefined ? [] : [{ region, setting }];
  });
}

/** @throws ConfigurationError naming the first that is elsewhere */
function checkRegions(config: object, source: string): void {
  const [first, ...others] = regionsOf(config);
  const other = others.find(({ region }) => region !== first?.region);
  if (first !== undefined && other !== undefined)
    throw new ConfigurationError(
      `${source}: ${other.setting}: found one in ${other.region}, expected ${first.region}, as ${first.setting}: a deployment and all that it reads are in one region. Replicate the secret or the key there`,
    );
}

/**
 * Reads the configuration from a JSON file.
 * @throws ConfigurationError
 */
export function readConfig(file: string): RolloutConfig {
  return parseConfig(readJson(file), file, dirname(file));
}

const exampleFile = fileURLToPath(new URL('../config/example.json', import.meta.url));

/**
 * The configuration that CDK's context gives: `encryptionRollout` (the settings themselves, e.g. in cdk.json), else
 * the JSON file that `config` names, else the committed example.
 * @param warn is told of the example: nobody should deploy it because -c was forgotten
 * @throws ConfigurationError
 */
export function configOf(
  context: { tryGetContext(key: string): unknown },
  warn: (text: string) => void,
): RolloutConfig {
  const inline = context.tryGetContext('encryptionRollout');
  if (inline !== undefined) return parseConfig(inline, 'context encryptionRollout');
  const file = context.tryGetContext('config') ?? exampleFile;
  if (file === exampleFile)
    warn(
      'Found no -c config=FILE: this is config/example.json, whose network and database do not exist. Name yours before you deploy.',
    );
  if (typeof file !== 'string')
    throw new ConfigurationError(`context config: found ${sample(file)}, expected the path of a JSON file`);
  return readConfig(file);
}
