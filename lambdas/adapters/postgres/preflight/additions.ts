/** What a rollout adds to a table. */
import pg from 'pg';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import type { Addition } from '../../../core/preflight/notices.ts';
import { tableSql } from '../encryption/engine.ts';

/** Names of the columns for ciphertext and initialization vector. */
export function addedColumns({
  columns,
  suffix,
  ivColumn,
}: Pick<Target, 'columns' | 'suffix' | 'ivColumn'>): string[] {
  return [...columns.map((column) => `${column}${suffix}`), ivColumn];
}

/** Clauses of an ALTER TABLE. */
export function columnsDdl(columns: readonly string[]): string {
  return columns.map((name) => `add column ${identifier(name)} bytea`).join(', ');
}

/** Quoted where it must be. A reserved word is none of those that are named here by their suffix. */
export function identifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : pg.escapeIdentifier(name);
}

/** What is not there yet. */
export async function readAdditions(client: pg.ClientBase, target: Target): Promise<Addition[]> {
  const columns = target.columns.join(', ');
  const wanted: Omit<Addition, 'table'>[] = [
    ...addedColumns(target).map((name) => ({ kind: 'column' as const, name, what: 'bytea' })),
    {
      kind: 'trigger',
      name: 'aa_clear_brought_ciphertext',
      what: 'before insert: clears ciphertext that a row brings along',
    },
    { kind: 'trigger', name: target.trigger, what: `encrypts ${columns}; off until phase 4` },
    {
      kind: 'trigger',
      name: 'zz_clear_stale_ciphertext',
      what: `before update of ${columns}: clears ciphertext that is out of date`,
    },
  ];
  const { rows } = await client.query(
    `select 'column' as kind, attname::text as name from pg_attribute
     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
     union all
     select 'trigger', tgname from pg_trigger where tgrelid = to_regclass($1) and not tgisinternal`,
    [tableSql(target)],
  );
  const there = new Set(rows.map(({ kind, name }) => `${kind} ${name}`));
  return wanted
    .filter(({ kind, name }) => !there.has(`${kind} ${name}`))
    .map((each) => ({ table: targetName(target), ...each }));
}
