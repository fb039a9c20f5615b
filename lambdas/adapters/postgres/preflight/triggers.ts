import type pg from 'pg';
import type { Target } from '../../../core/plan/settings.ts';
import type { OtherTrigger } from '../../../core/preflight/checklist.ts';
import { tableSql, treeSql } from '../encryption/engine.ts';
import { addedColumns } from './additions.ts';

/**
 * Triggers of others on the table, and on single partitions of it, that matter to a rollout. A batch updates the columns of initialization
 * vector and ciphertext, which may not exist yet. Triggers of one kind fire in the order of their names, bytewise. Reads only, and needs no engine.
 */
export async function readOtherTriggers(client: pg.ClientBase, target: Target): Promise<OtherTrigger[]> {
  const { rows } = await client.query(
    `select tgname as name,
       -- pg_trigger.h: 1 = for each row, 2 = before, 4 = insert, 16 = update.
       bool_or(tgtype & 16 > 0 and (cardinality(tgattr::int2[]) = 0 or exists (
         select from pg_attribute as a
         where a.attrelid = tgrelid and a.attnum = any (tgattr) and a.attname = any ($2)
       ))) as "firedByBatches",
       bool_or(tgtype & 3 = 3 and tgtype & (4 + 16) > 0 and tgname::text collate "C" > $3 collate "C") as "changesRowsAfterOurs"
     from (${treeSql('to_regclass($1)::oid')}) as part
     join pg_trigger as t on t.tgrelid = part.oid
     join pg_proc as p on p.oid = t.tgfoid
     where not tgisinternal and tgenabled in ('O', 'A')
       and p.pronamespace <> coalesce(to_regnamespace('encryption_rollout'), 0)
     group by tgname
     order by tgname`,
    [tableSql(target), addedColumns(target), target.trigger],
  );
  return rows.filter(({ firedByBatches, changesRowsAfterOurs }) => firedByBatches || changesRowsAfterOurs);
}
