/**
 * Fills the sample table with appointments that are plausible but plainly fictitious: reserved domains (RFC 2606) and
 * telephone numbers (555-0100 to 555-0199). Some rows have no e-mail, some no personal data at all.
 */
import type pg from 'pg';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import { rowVerifier } from '../../lambdas/core/encryption/verification.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import { UsageError } from '../../terminal/connection.ts';
import { count } from '../../terminal/display.ts';

/** Live traffic writes to the rows of this organization alone; the rows of all others never change. */
export const trafficOrganization = 'cafe0000-0000-4000-8000-000000000001';

const firstNames = [
  'Ada', 'Zoë', 'Søren', 'Łukasz', 'Nguyễn', 'Ömer', 'Ásdís', 'Chloé', 'José', 'Müge', 'Ivana', 'Wei',
  'Мария', 'Γιώργος', 'שרה', 'محمد', '美咲', '지우', 'Amara', "D'Arcy", 'Jean-Luc', 'Renée', 'Bob', 'Grace',
  'Žofia', 'Priya', 'Tāne', 'Ọlá', 'Xóchitl', 'Linh', '王芳', '🦊 Fox',
]; // biome-ignore format: a list of names

/** How many of the rows belong to live traffic: enough to write to, too few to move the coverage. */
function trafficRows(rows: number): number {
  return Math.max(10, Math.min(200, Math.floor(rows / 50)));
}

export interface SampleTable {
  /** Rows of this rehearsal's own making: live traffic may write to some of them. */
  readonly seeded: boolean;
  /** Rows were inserted just now. */
  readonly fresh: boolean;
  readonly rows: number;
  readonly rowsWithPii: number;
  /** Condition of the VIP rows; null when the table, being somebody else's, has no such column. */
  readonly priority: string | null;
}

/**
 * Makes sure that there is a table with rows to rehearse on: creates and seeds public.appointments. A table that holds
 * rows already is left as it is.
 * @param say tells the reader what takes time
 * @throws UsageError when it is not a table to rehearse on
 */
export async function prepareTable(
  client: pg.Client,
  rows: number,
  say: (text: string) => void,
): Promise<SampleTable> {
  try {
    await createSampleTable(client);
    const { rows: columns } = await client.query<{ name: string }>(
      `select attname as name from pg_attribute
       where attrelid = 'public.appointments'::regclass and attnum > 0 and not attisdropped`,
    );
    const has = (name: string) => columns.some((column) => column.name === name);
    const { rows: found } = await client.query('select exists (select from public.appointments) as filled');
    const fresh = !found[0].filled;
    if (fresh) {
      say(`Seeding ${count(rows)} appointments …`);
      await seed(client, rows);
    }
    const { rows: counted } = await client.query(
      `select
         count(*) as rows,
         count(*) filter (where num_nonnulls(email, e164, first_name) > 0) as with_pii,
         ${has('organization_id') ? `coalesce(bool_or(organization_id = '${trafficOrganization}'), false)` : 'false'} as seeded
       from public.appointments`,
    );
    return {
      fresh,
      seeded: counted[0].seeded,
      rows: Number(counted[0].rows),
      rowsWithPii: Number(counted[0].with_pii),
      priority: has('is_vip') ? 'is_vip' : null,
    };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code?.startsWith('42')) {
      throw new UsageError(
        `The table public.appointments cannot be rehearsed on: ${message} (SQLSTATE ${code}).\n` +
          'Expected a role that may create it, or the table with the columns id, email, e164 and first_name. ' +
          'Grant the role what it lacks, or point --database-url at an empty database.',
      );
    }
    throw error;
  }
}

/** Inserts `rows` appointments, those of live traffic included, in one statement. The table must be empty. */
async function seed(client: pg.ClientBase, rows: number): Promise<void> {
  await client.query(
    `
    insert into public.appointments
      (organization_id, start_at, end_at, email, e164, first_name, status, note, created_at, is_vip)
    select
      case
        when n <= $2 then $3::uuid
        else ('c0ffee00-0000-4000-8000-' || lpad(to_hex(n % 40), 12, '0'))::uuid
      end,
      day,
      day + interval '45 minutes',
      -- One in nine has no e-mail, one in twenty-five no personal data at all.
      case
        when n % 25 = 0 or n % 9 = 0 then null
        else 'guest' || n || '@example.' || (array['com', 'org', 'net'])[1 + n % 3]
      end,
      case
        when n % 25 = 0 then null
        else '+1' || (201 + n % 700) || '55501' || lpad((n % 100)::text, 2, '0')
      end,
      case when n % 25 = 0 then null else ($4::text[])[1 + n % cardinality($4::text[])] end,
      (array['pending', 'confirmed', 'cancelled'])[1 + n % 3],
      case
        when n % 200 = 0 then repeat('A very long note about appointment ' || n || '. ', 200)
        when n % 3 = 0 then 'Note ' || n
      end,
      now() - interval '400 days' + n * (interval '390 days' / $1),
      n % 50 = 7
    from (
      select n, now() + (n % 60 - 30) * interval '1 day' as day
      from generate_series(1, $1::integer) n
    ) numbered`,
    [rows, trafficRows(rows), trafficOrganization, firstNames],
  );
  await client.query('analyze public.appointments');
}

/** Order-independent checksum of the plaintext and the keys of all rows that live traffic does not write to. */
export async function plaintextChecksum(
  client: pg.ClientBase,
  seeded: boolean,
): Promise<{ rows: number; checksum: string }> {
  const { rows } = await client.query<{ rows: string; checksum: string }>(`
    select
      count(*)::text as rows,
      coalesce(sum(hashtextextended(row (id, email, e164, first_name)::text, 0)), 0)::text as checksum
    from public.appointments
    ${seeded ? `where organization_id is distinct from '${trafficOrganization}'` : ''}`);
  return { rows: Number(rows[0]?.rows), checksum: rows[0]?.checksum ?? '' };
}

/**
 * Verifies, outside the database, the rows that live traffic writes to: it went on while the final audit walked the table,
 * so the audit's own count is of rows some of which are gone by now.
 * @returns rows with personal data: `live` and `mismatched` of live traffic, and how many are of `others`
 */
export async function verifyLiveRows(
  client: pg.Client,
  target: Target,
  masterKey: Buffer,
): Promise<{ live: number; mismatched: number; others: number }> {
  const { rows } = await client.query(
    `select id::text as "rowKey", pii_iv as iv, email, e164, first_name,
       email_encrypted, e164_encrypted, first_name_encrypted
     from public.appointments where organization_id = $1 and num_nonnulls(email, e164, first_name) > 0`,
    [trafficOrganization],
  );
  const verifies = rowVerifier(target, new Map([[1, masterKey]]));
  const live = rows.filter(({ rowKey, iv, ...row }) =>
    verifies({
      rowKey,
      iv,
      plaintexts: target.columns.map((column) => row[column]),
      sealed: target.columns.map((column) => row[`${column}_encrypted`]),
    }),
  ).length;
  const { rows: counted } = await client.query(
    `select count(*) as others from public.appointments
     where organization_id is distinct from $1 and num_nonnulls(email, e164, first_name) > 0`,
    [trafficOrganization],
  );
  return { live, mismatched: rows.length - live, others: Number(counted[0].others) };
}
