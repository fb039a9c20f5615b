/**
 * What a deployment tells its handlers: the file settings.json beside them, written by infra and read by step.ts.
 * Secrets are named by ARN, never contained.
 */
import * as z from 'zod';
import { PhaseNumber } from '../payloads.ts';
import { OffPeak } from '../pressure/off-peak.ts';
import { defaultPlan, type Plan } from './plan.ts';
import { applyOverrides, PlanOverrides } from './plan-overrides.ts';
import { priorityProblem } from './priority.ts';

/** The table that ships as an example, and what it is made of: the defaults of a target that names no other. */
const sample = {
  schema: 'public',
  table: 'appointments',
  columns: ['email', 'e164', 'first_name'],
  trigger: 'encrypt_appointment_pii',
  canary: {
    organization_id: '00000000-0000-4000-8000-000000000000',
    start_at: '2030-01-01T10:00:00Z',
    end_at: '2030-01-01T11:00:00Z',
    // Capitals, so that a trigger of the application's that normalizes after ours is found out.
    email: 'Canary@Example.com',
    e164: '+15551234567',
    first_name: 'CanaryTest',
    status: 'pending',
    note: 'Trigger activation test',
  },
};

const names = (of: string) =>
  z
    .array(z.string().min(1))
    .min(1)
    .refine((given) => new Set(given).size === given.length, `expected each ${of} once`);

/** A table to encrypt, as people write it. */
const GivenTarget = z.strictObject({
  schema: z.string().min(1).default(sample.schema),
  table: z.string().min(1).default(sample.table),
  /** Columns that identify a row. */
  key: names('column').default(['id']),
  columns: names('column').optional(),
  /** Column with the row's time of creation, to watch new rows; null = the table has none. */
  createdAt: z.string().min(1).nullable().default('created_at'),
  /** The canary: inserted with the trigger on, checked, rolled back. Column → value, as JSON. */
  canary: z.record(z.string(), z.unknown()).optional(),
  trigger: z.string().min(1).optional(),
  /** SQL condition on the table's columns; rows for which it is true are encrypted first. null = none. */
  priority: z
    .string()
    .min(1)
    .refine((text) => priorityProblem(text) === '', {
      error: ({ input }) =>
        `found ${priorityProblem(String(input))}, expected one SQL condition, like is_vip`,
    })
    .nullable()
    .default(null),
  /** Of the columns that hold the ciphertext: `email` has its in `email_encrypted`. */
  suffix: z.string().min(1).default('_encrypted'),
  /** Columns of those names that are there already, and empty, are for the engine: a migration has added them. */
  adoptColumns: z.boolean().default(false),
  /** Column of the row's initialization vector. */
  ivColumn: z.string().min(1).default('pii_iv'),
});

/** Names of all that may be said of a target. */
export const targetSettings: readonly string[] = Object.keys(GivenTarget.shape);

/** A target with nothing left open. What the sample is made of is nobody else's default. */
export const Target = GivenTarget.transform((given, context) => {
  const defaults = targetName(given) === targetName(sample) ? sample : undefined;
  const { columns = defaults?.columns, canary = defaults?.canary } = given;
  const missing = (name: string, expected: string) =>
    context.addIssue({
      code: 'custom',
      path: [name],
      input: undefined,
      message: `expected ${expected} of ${targetName(given)}`,
    });
  if (columns === undefined) missing('columns', 'the columns with personal data');
  if (canary === undefined)
    missing('canary', 'the values of a row that can be inserted, and is rolled back,');
  const trigger = given.trigger ?? defaults?.trigger ?? `encrypt_${given.table}_pii`;
  return { ...given, columns: columns ?? [], canary: canary ?? {}, trigger };
});
export type Target = z.output<typeof Target>;

/** `<schema>.<table>`, the target's name everywhere. */
export function targetName({ schema, table }: { readonly schema: string; readonly table: string }): string {
  return `${labelPart(schema)}.${labelPart(table)}`;
}

/** A name as part of a longer one whose parts are joined by dots: as it is, unless it holds a dot or a quotation mark. */
function labelPart(name: string): string {
  return /[."]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
}

/** What the values of each column are bound to when the table is registered. A rename that is followed later does not change it. */
export function labelsOf(target: Pick<Target, 'schema' | 'table' | 'columns'>): string[] {
  return target.columns.map((column) => `${targetName(target)}.${labelPart(column)}`);
}

/** The tables of a deployment, in the order in which they are worked on. */
export const Targets = z
  .array(Target)
  .min(1, 'expected at least one table')
  .refine((targets) => new Set(targets.map(targetName)).size === targets.length, 'expected each table once');

const oneDatabase = 'expected {"instanceIdentifier": "…"} or {"clusterIdentifier": "…"}';

/** RDS keeps identifiers in lower case, and CloudWatch's dimensions tell the cases apart. */
const identifier = z
  .string()
  .regex(
    /^(?=.{1,63}$)[a-z](-?[a-z0-9])*$/,
    'expected an identifier of RDS in lower case, like appointments-1',
  );

/** An instance or a cluster of RDS, by its identifier. */
export const Database = z
  .strictObject(
    {
      instanceIdentifier: identifier.optional(),
      clusterIdentifier: identifier.optional(),
      /** The instances of a Multi-AZ DB cluster, which publish what an Aurora cluster publishes of itself. */
      instances: z.array(identifier).default([]),
      /** Read replicas of an instance, whose lag is watched. */
      replicas: z.array(identifier).default([]),
    },
    oneDatabase,
  )
  .superRefine((given, context) => {
    const { instanceIdentifier, clusterIdentifier, instances, replicas } = given;
    const refuse = (input: unknown, message: string, ...path: string[]) =>
      context.addIssue({ code: 'custom', input, message, path });
    if ((instanceIdentifier === undefined) === (clusterIdentifier === undefined))
      refuse({ instanceIdentifier, clusterIdentifier }, oneDatabase);
    else if (clusterIdentifier !== undefined && replicas.length > 0)
      refuse(
        replicas,
        'expected none with clusterIdentifier: a cluster knows its readers itself',
        'replicas',
      );
    if (instances.length > 0 && clusterIdentifier === undefined)
      refuse(instances, 'expected none without clusterIdentifier: they are those of a cluster', 'instances');
    else if (![0, 3].includes(new Set(instances).size))
      refuse(instances, 'expected the three of a Multi-AZ DB cluster, or none for Aurora', 'instances');
  });
export type Database = z.infer<typeof Database>;

/** The instances by which CloudWatch knows the database; none of an Aurora cluster, which it knows as one. */
export function instancesOf({ instanceIdentifier, instances }: Database): readonly string[] {
  return instanceIdentifier === undefined ? instances : [instanceIdentifier];
}

export const KeyTable = z.enum(['unlogged', 'logged']).default('unlogged');

/** Beside the bundled handlers. */
export const settingsFile = 'settings.json';

export const Settings = z.strictObject({
  /** Of what is deployed. */
  version: z.string(),
  targets: Targets.prefault([{}]),
  /** Whose CloudWatch metrics are the database's vitals. */
  database: Database,
  /** PEM: the authorities that vouch for the database server; those of the runtime when not given. */
  databaseAuthorities: z.string().optional(),
  /** Takes a snapshot when the latest backup is too old, and waits for it. */
  takeBackup: z.boolean().default(false),
  /** Phases that begin only when a person has said so. */
  approvals: z.array(PhaseNumber).default([]),
  offPeak: OffPeak.nullable().default(null),
  /** Triggers of the application, by name, that batches may fire; the execution's input may add to them. */
  acknowledgedTriggers: z.array(z.string().min(1)).default([]),
  /** Alarms of the operator's services: in ALARM = customers notice. Names. */
  customerAlarms: z.array(z.string()).default([]),
  /** Our own alarms and dashboard, which preflight wants to see. Names. */
  ownAlarms: z.array(z.string()).default([]),
  dashboard: z.string().optional(),
  /** Where people find the runbook, see runbookAt(); undefined = in the repository. */
  runbookUrl: z.string().optional(),
  /** Given at deployment; the execution's input may add to them or replace them. */
  attestations: z.record(z.string(), z.string()).default({}),
  /**
   * The table that the keys lie in. `unlogged`: in no log, stream, replica or snapshot, and put back within a minute of a crash;
   * `logged`: in all of these, so that values can be opened in SQL at any moment, on a replica as well.
   */
  keyTable: KeyTable,
  /** What this deployment changes of the plan. */
  plan: PlanOverrides.default({}),
});
export type Settings = z.infer<typeof Settings>;

/** The plan in force. */
export function planOf({ plan }: Pick<Settings, 'plan'>): Plan {
  return applyOverrides(defaultPlan, plan);
}
