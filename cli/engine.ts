/** Installing and removing the engine by hand. */
import type pg from 'pg';
import type { EncryptionKeys } from '../lambdas/adapters/aws/secrets.ts';
import { announceTarget, prepareTarget, tableSql } from '../lambdas/adapters/postgres/encryption/engine.ts';
import { mendKeys, putKeysInPlace } from '../lambdas/adapters/postgres/encryption/keys.ts';
import { createSampleTable, migrate, politely } from '../lambdas/adapters/postgres/migrations.ts';
import { inTransaction } from '../lambdas/adapters/postgres/transaction.ts';
import { Target, targetName } from '../lambdas/core/plan/settings.ts';

export interface Installed {
  /** Names of the files applied now. */
  readonly migrations: readonly string[];
  /** The sample table was created now. */
  readonly sampleTable: boolean;
  /** Those that are registered now. */
  readonly tables: readonly string[];
}

/**
 * Installs or updates the engine and registers tables.
 * @param given undefined = public.appointments, which is created when it does not exist
 */
export async function install(client: pg.Client, given?: readonly Target[]): Promise<Installed> {
  const fresh = !(await exists(client, "pg_catalog.to_regnamespace('encryption_rollout') is not null"));
  try {
    const migrations = await migrate(client);
    const sampleTable =
      given === undefined && !(await isThere(client, { schema: 'public', table: 'appointments' }));
    if (sampleTable) await createSampleTable(client);
    const targets = given ?? [
      Target.parse({
        priority: (await hasColumn(client, 'is_vip')) ? 'is_vip' : null,
        createdAt: (await hasColumn(client, 'created_at')) ? 'created_at' : null,
      }),
    ];
    await politely(client, async () => {
      for (const target of targets) {
        await announceTarget(client, target);
        await prepareTarget(client, targetName(target));
      }
    });
    return { migrations, sampleTable, tables: targets.map(targetName) };
  } catch (error) {
    // Nothing half-done: an engine without a table to work on is taken away again. The first error is what is told.
    if (fresh) await uninstall(client).catch(() => undefined);
    throw error;
  }
}

/** The first key goes in; those that the database has lost come back, and what was written meanwhile is sealed. @throws WrongKey */
export async function putKeys(client: pg.Client, keys: EncryptionKeys): Promise<void> {
  await inTransaction(client, () => putKeysInPlace(client, keys));
  await mendKeys(client, async () => keys);
}

/** Whether the database has ever had a key. */
export function hasKey(client: pg.Client): Promise<boolean> {
  return exists(client, 'exists (select from encryption_rollout.keys)');
}

export async function isThere(client: pg.Client, table: Pick<Target, 'schema' | 'table'>): Promise<boolean> {
  const { rows } = await client.query('select to_regclass($1) is not null as there', [tableSql(table)]);
  return rows[0].there;
}

function hasColumn(client: pg.Client, column: string): Promise<boolean> {
  return exists(
    client,
    `exists (select from pg_attribute
       where attrelid = 'public.appointments'::regclass and attname = '${column}' and not attisdropped)`,
  );
}

/** Removes what install, or a rollout, added. @throws with SQLSTATE ER008 while a run is active */
export async function uninstall(client: pg.Client): Promise<boolean> {
  if (!(await exists(client, "to_regnamespace('encryption_rollout') is not null"))) return false;
  await politely(client, async () => {
    await client.query('select encryption_rollout.uninstall()');
  });
  return true;
}

async function exists(client: pg.Client, condition: string): Promise<boolean> {
  const { rows } = await client.query<{ found: boolean }>(`select ${condition} as found`);
  return rows[0]?.found === true;
}
