/** What the database reports about itself, its triggers and its coverage, held against what was counted. */
import type pg from 'pg';
import type { Findings } from './findings.ts';
import type { Counts } from './rows.ts';
import type { Target } from './targets.ts';

interface TriggerState {
  readonly trigger: boolean;
  readonly guard: boolean;
}

/**
 * The guard must always be on: one trigger for updates, and one for inserts. The encryption trigger must be on once a rollout
 * is complete. Of a partitioned table that holds for every partition: its own copy is what fires.
 * @returns whether they are
 */
export async function checkTriggers(
  client: pg.ClientBase,
  target: Target,
  complete: boolean,
  findings: Findings,
): Promise<TriggerState> {
  // pg_trigger.tgtype: 1 for each row, 2 before, 4 insert, 16 update.
  const expected = [
    { name: target.trigger, calls: `encrypt_row_${target.id}`, type: 23, invariant: 'trigger' },
    { name: 'zz_clear_stale_ciphertext', calls: `clear_stale_${target.id}`, type: 19, invariant: 'guard' },
    { name: 'aa_clear_brought_ciphertext', calls: `clear_stale_${target.id}`, type: 7, invariant: 'guard' },
  ] as const;
  const { rows } = await client.query<{
    table: string;
    name: string;
    found: boolean;
    enabled: boolean;
    calls: string | null;
    type: number;
  }>(
    // O and A: fires in ordinary sessions.
    `with recursive tree as (
       select to_regclass($1)::oid as relation
       union all
       select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.relation and not i.inhdetachpending
     )
     select tree.relation::regclass::text as table, wanted.name, t.oid is not null as found, t.tgenabled in ('O', 'A') as enabled,
       t.tgtype & 23 as type, case n.nspname when 'encryption_rollout' then p.proname end as calls
     from tree
     cross join unnest($2::text[]) with ordinality as wanted (name, position)
     left join pg_trigger t on t.tgrelid = tree.relation and t.tgname = wanted.name
     left join pg_proc p on p.oid = t.tgfoid
     left join pg_namespace n on n.oid = p.pronamespace
     order by wanted.position, 1`,
    [target.table, expected.map(({ name }) => name)],
  );
  const state = { trigger: true, guard: true };
  for (const { table, name, found, enabled, ...row } of rows) {
    const wanted = expected.find((each) => each.name === name);
    if (wanted === undefined) continue;
    const { calls, type, invariant } = wanted;
    if (!enabled) state[invariant] = false;
    if (invariant === 'trigger' && !complete) continue;
    findings.check(invariant);
    const problem = !found
      ? 'not found'
      : !enabled
        ? 'disabled'
        : row.calls !== calls || row.type !== type
          ? 'calls something else'
          : undefined;
    if (problem)
      findings.violated(
        invariant,
        `trigger ${name} of ${table}`,
        `${problem}, enabled and unchanged expected`,
      );
  }
  return state;
}

/** By target, what get_encryption_health_summary() reports, under the names that health() has for it. */
export type Summary = ReadonlyMap<string, Record<string, unknown>>;

/** It counts every table of the database: to be called once. */
export async function readSummary(client: pg.ClientBase): Promise<Summary> {
  // What public.get_encryption_health_summary() passes on, where the application has not that name itself.
  const { rows } = await client.query(
    `select total as total_rows, encrypted as encrypted_rows, unencrypted as unencrypted_rows, s.*
     from encryption_rollout.health_summary() as s`,
  );
  return new Map(rows.map((row) => [row.target, row]));
}

/** What the engine says of who else could reach it, and whose code the table runs. */
export async function checkBoundary(
  client: pg.ClientBase,
  target: Target,
  findings: Findings,
): Promise<void> {
  const { rows } = await client.query<{ finding: string; fix: string }>(
    `select finding, fix from encryption_rollout.breaches()
     union all
     select finding, fix from encryption_rollout.foreign_code($1)`,
    [target.name],
  );
  findings.check('boundary');
  for (const { finding, fix } of rows) findings.violated('boundary', target.name, `${finding}; ${fix}`);
}

/** Of each of the engine's roles, as the engine says it. */
export interface RoleMembers {
  readonly role: string;
  readonly members: readonly string[];
}

/** To whom the engine's roles have been given. Whether that is right no machine can say. */
export async function readMembers(client: pg.ClientBase): Promise<RoleMembers[]> {
  const { rows } = await client.query<RoleMembers>(
    'select role, members from encryption_rollout.role_members()',
  );
  return rows;
}

/** What health() and get_encryption_health_summary() report about the table. */
export async function checkCoverage(
  client: pg.ClientBase,
  target: Target,
  counts: Counts,
  triggers: TriggerState,
  readReports: () => Promise<Summary>,
  findings: Findings,
): Promise<void> {
  const { rows, withPii } = counts;
  // Cut off after two decimals, so that 100 means all.
  const percentage = (count: number) => (withPii === 0 ? 100 : Math.floor((count * 10_000) / withPii) / 100);
  const coverage = (encrypted: number) => ({
    encrypted_rows: encrypted,
    unencrypted_rows: withPii - encrypted,
    encryption_percentage: percentage(encrypted),
  });
  const common = {
    total_rows: rows,
    rows_with_pii: withPii,
    missing_iv_count: counts.missingIv,
    trigger_enabled: triggers.trigger,
    guard_enabled: triggers.guard,
    readable_rows: counts.encrypted,
    readable_percentage: percentage(counts.encrypted),
    encrypted_with_current_key: counts.withCurrentKey,
  };
  const compare = (source: string, encrypted: number, report: Record<string, unknown>) => {
    const counted: Record<string, number | boolean> = { ...common, ...coverage(encrypted) };
    for (const [name, value] of Object.entries(report)) {
      const expected = counted[name];
      if (expected === undefined) continue;
      findings.check('coverage');
      // Counts and percentages arrive as text or number, depending on the parsers of the session.
      const found = typeof expected === 'number' ? Number(value) : value;
      if (found !== expected)
        findings.violated(
          'coverage',
          `${source}.${name} of ${target.name}`,
          `${found} reported, ${expected} counted`,
        );
    }
  };

  const health = await client.query('select * from encryption_rollout.health($1)', [target.name]);
  // For the rollout, which moves rows to the current key.
  compare('encryption_rollout.health', counts.withCurrentKey, health.rows[0]);

  const source = 'encryption_rollout.health_summary';
  const summary = (await readReports()).get(target.name);
  if (summary === undefined)
    findings.violated('coverage', `${source} of ${target.name}`, 'no row for the table');
  else compare(source, counts.encrypted, summary);
}
