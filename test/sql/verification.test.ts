import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { freshDatabase, pastTriggers, seedAppointments, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterEach(() => database.drop());

const rowsOf = async (sql: string, parameters: unknown[] = []) => (await client.query(sql, parameters)).rows;
const encrypt = (rows: number | null) => client.query('select public.batch_encrypt_appointments($1)', [rows]);
const health = async () =>
  (await rowsOf("select * from encryption_rollout.health('public.appointments')"))[0];

describe('health', () => {
  test('counts exactly, and of an empty table reports 100 %', async () => {
    expect(await health()).toEqual({
      total_rows: '0',
      rows_with_pii: '0',
      encrypted_rows: '0',
      unencrypted_rows: '0',
      encryption_percentage: '100',
      missing_iv_count: '0',
      failed_rows: '0',
      trigger_enabled: false,
      guard_enabled: true,
      errors_last_hour: '0',
      health_status: 'HEALTHY',
      readable_rows: '0',
      readable_percentage: '100',
      orphaned_rows: '0',
    });
    await seedAppointments(client, 1_000);
    await encrypt(100);
    expect(await health()).toMatchObject({
      total_rows: '1000',
      rows_with_pii: '950',
      encrypted_rows: '100',
      unencrypted_rows: '850',
      health_status: 'IN_PROGRESS',
    });
  });

  test('never rounds up: 100 % means all', async () => {
    await client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email)
       select gen_random_uuid(), now(), now(), 'x' from generate_series(1, 30000)`,
    );
    await encrypt(29_999);
    expect(await health()).toMatchObject({ encryption_percentage: '99.99' });
    await encrypt(null);
    expect(await health()).toMatchObject({ encryption_percentage: '100.00', health_status: 'HEALTHY' });
  });

  test('tells what is wrong, the worst first', async () => {
    await seedAppointments(client, 100);
    await encrypt(null);
    await client.query(
      "insert into encryption_rollout.errors (error_type, target) values ('trigger', 'public.appointments')",
    );
    expect(await health()).toMatchObject({ errors_last_hour: '1', health_status: 'DEGRADED' });
    await pastTriggers(
      client,
      "update public.appointments set pii_iv = null where email = 'person5@example.com'",
    );
    expect(await health()).toMatchObject({
      missing_iv_count: '1',
      unencrypted_rows: '1',
      health_status: 'CRITICAL',
    });
    await encrypt(null);
    await client.query('alter table public.appointments disable trigger zz_clear_stale_ciphertext');
    expect(await health()).toMatchObject({
      missing_iv_count: '0',
      guard_enabled: false,
      health_status: 'CRITICAL',
    });
  });

  test('counts errors of the last hour and of this target alone', async () => {
    await client.query(`insert into encryption_rollout.errors (error_type, target, error_timestamp) values
      ('trigger', 'public.appointments', now() - interval '61 minutes'), ('trigger', 'public.other', now())`);
    expect(await health()).toMatchObject({ errors_last_hour: '0' });
  });

  test('works in a read-only transaction', async () => {
    await client.query('begin read only');
    expect(await health()).toMatchObject({ health_status: 'HEALTHY' });
    await client.query('rollback');
  });
});

describe('decrypt_pii_with_iv_logged', () => {
  beforeEach(async () => {
    await seedAppointments(client, 40);
    await encrypt(null);
  });
  const decrypt = (select: string) =>
    client.query(`select public.decrypt_pii_with_iv_logged(${select}) as opened from public.appointments`);

  test('opens every column, and audits who opened what', async () => {
    const rows = await rowsOf(`select email, e164, first_name, id,
      public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) as opened_email,
      public.decrypt_pii_with_iv_logged(e164_encrypted, pii_iv, id) as opened_e164,
      public.decrypt_pii_with_iv_logged(first_name_encrypted, pii_iv, id) as opened_first_name
      from public.appointments`);
    for (const row of rows) {
      expect([row.opened_email, row.opened_e164, row.opened_first_name]).toEqual([
        row.email,
        row.e164,
        row.first_name,
      ]);
    }
    const audited = await rowsOf(
      "select accessed_by, row_key, column_name from encryption_rollout.key_access where purpose = 'decrypt'",
    );
    const values = rows
      .flatMap(({ email, e164, first_name }) => [email, e164, first_name])
      .filter((value) => value !== null);
    expect(audited).toHaveLength(values.length);
    expect(audited).toContainEqual({ accessed_by: 'postgres', row_key: rows[4].id, column_name: 'email' });
  });

  const damages: Record<string, string> = {
    'a flipped bit': 'set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1), pii_iv, id',
    'a flipped bit of the tag':
      'set_byte(email_encrypted, octet_length(email_encrypted) - 1, get_byte(email_encrypted, octet_length(email_encrypted) - 1) # 1), pii_iv, id',
    'another key number': 'set_byte(email_encrypted, 2, 9), pii_iv, id',
    'another format': 'set_byte(email_encrypted, 0, 2), pii_iv, id',
    'another IV': "email_encrypted, decode(md5(id::text), 'hex'), id",
    'no IV': 'email_encrypted, null, id',
    'half an IV': 'email_encrypted, substr(pii_iv, 1, 8), id',
    'the key of another row': 'email_encrypted, pii_iv, gen_random_uuid()',
    'no row key': 'email_encrypted, pii_iv, null',
    'a value cut short': 'substr(email_encrypted, 1, 40), pii_iv, id',
    'an empty value': `'\\x'::bytea, pii_iv, id`,
  };
  for (const [name, select] of Object.entries(damages)) {
    test(`refuses ${name}`, async () => {
      await expect(decrypt(`${select}`)).rejects.toMatchObject({
        code: 'ER006',
        message: expect.not.stringContaining('example.com'),
      });
    });
  }

  test('of null is null, and no use of the key', async () => {
    await decrypt('null, pii_iv, id');
    expect(await rowsOf("select from encryption_rollout.key_access where purpose = 'decrypt'")).toEqual([]);
  });

  const breakRows = (what: string) =>
    pastTriggers(client, `update public.appointments set ${what} where email is not null`);
  const failures = () =>
    rowsOf(
      "select accessed_by, target, failure_count from public.get_key_access_stats('1 hour') where failure_count > 0",
    );
  const refused = async (select: string, more: object = {}) =>
    expect(decrypt(select)).rejects.toMatchObject({ code: 'ER006', ...more });

  test('records a failure although the raise undoes its transaction', async () => {
    await breakRows('email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1)');
    for (let n = 0; n < 3; n++) await refused('email_encrypted, pii_iv, id');
    const three = [{ accessed_by: 'postgres', target: 'public.appointments', failure_count: '3' }];
    expect(await failures()).toEqual(three);
    expect(await health()).toMatchObject({ errors_last_hour: '3', health_status: 'DEGRADED' });
    // Once, whoever writes it down.
    for (let n = 0; n < 2; n++) await client.query('select encryption_rollout.record_decryption_failures()');
    expect(await failures()).toEqual(three);
    expect(await rowsOf('select error_type, target, sqlstate from public.encryption_errors')).toEqual(
      Array(3).fill({ error_type: 'decryption', target: 'public.appointments', sqlstate: 'ER006' }),
    );
    expect(await health()).toMatchObject({ errors_last_hour: '3', health_status: 'DEGRADED' });
    await refused('email_encrypted, pii_iv, id');
    expect(await health()).toMatchObject({ errors_last_hour: '4' });
  });

  test('takes what no row holds for a mistake: in the audit, and no error of the table', async () => {
    for (const select of Object.values(damages))
      await refused(select, { hint: expect.stringContaining('No such row holds this value') });
    await expect(
      client.query(
        "select encryption_rollout.decrypt_logged('public.appointments', email_encrypted, pii_iv, 'no uuid') from public.appointments where email is not null",
      ),
    ).rejects.toMatchObject({ code: 'ER006', hint: expect.stringContaining('No such row') });
    await client.query('select encryption_rollout.record_decryption_failures()');
    expect(await failures()).toMatchObject([{ failure_count: `${Object.keys(damages).length + 1}` }]);
    expect(await rowsOf('select from public.encryption_errors')).toEqual([]);
    expect(await health()).toMatchObject({ errors_last_hour: '0', health_status: 'HEALTHY' });
  });

  test('refuses what was moved to another column of its row, and opens a copy of what is in its place', async () => {
    await client.query(
      'create table public.copies as select id, email_encrypted as e, pii_iv as iv from public.appointments where email is not null',
    );
    const open = 'select public.decrypt_pii_with_iv_logged(e, iv, id) from public.copies';
    await client.query(open);
    await breakRows('e164_encrypted = email_encrypted, email_encrypted = null');
    const moved =
      'it was sealed for email of public.appointments, and is found in e164 of public.appointments';
    await refused('e164_encrypted, pii_iv, id', { message: expect.stringContaining(moved) });
    expect(await health()).toMatchObject({ errors_last_hour: '1' });
    const named = (column: string) =>
      client.query(
        `select encryption_rollout.decrypt_logged('public.appointments', e, iv, id::text, '${column}') from public.copies`,
      );
    await pastTriggers(client, 'update public.appointments set e164_encrypted = null, pii_iv = null');
    await named('email');
    await expect(named('e164')).rejects.toMatchObject({ code: 'ER006' });
    await expect(named('phone')).rejects.toMatchObject({ code: '42703' });
    await client.query(open);
  });
});

describe('get_key_access_stats', () => {
  test('says who used the key, for what, how often, and when last', async () => {
    await seedAppointments(client, 100);
    await encrypt(50);
    await encrypt(20);
    const rows = await rowsOf("select * from public.get_key_access_stats('1 hour') where purpose = 'batch'");
    expect(rows).toMatchObject([
      {
        accessed_by: 'postgres',
        target: 'public.appointments',
        access_count: '2',
        values_used: '70',
        failure_count: '0',
        last_access: expect.any(Date),
      },
    ]);
    await client.query("update encryption_rollout.key_access set accessed_at = now() - interval '2 hours'");
    expect(await rowsOf("select * from public.get_key_access_stats('1 hour')")).toEqual([]);
  });
});

describe('sample_rows', () => {
  const sample = (n: number) =>
    rowsOf("select * from encryption_rollout.sample_rows('public.appointments', $1)", [n]);

  test('returns encrypted rows alone, different ones, as many as there are at most', async () => {
    expect(await sample(10)).toEqual([]);
    await seedAppointments(client, 3_000);
    expect(await sample(10)).toEqual([]);
    await encrypt(7);
    expect(new Set((await sample(10)).map(({ row_key }) => row_key)).size).toBe(7);
    await encrypt(null);
    const first = (await sample(10)).map(({ row_key }) => row_key);
    expect(new Set(first).size).toBe(10);
    expect((await sample(10)).map(({ row_key }) => row_key)).not.toEqual(first);
  });

  /**
   * Pages of the table that the query reads. Those alone: what it reads of the catalogs hangs on what other sessions
   * of the server have changed since (cached entries are invalidated, all at once where a session lags behind).
   */
  async function pagesReadBy(sql: string): Promise<number> {
    const read = async () =>
      Number(
        (await rowsOf("select pg_stat_get_xact_blocks_fetched('public.appointments'::regclass) as n"))[0].n,
      );
    await client.query('begin');
    const before = await read();
    await client.query(sql);
    const pages = (await read()) - before;
    await client.query('commit');
    return pages;
  }
  const pages = async () =>
    Number((await rowsOf("select pg_relation_size('public.appointments') / 8192 as n"))[0].n);
  const ten = "select * from encryption_rollout.sample_rows('public.appointments', 10)";

  test('does not read a large table for ten rows', async () => {
    await seedAppointments(client, 40_000);
    await encrypt(null);
    await client.query('vacuum analyze public.appointments');
    expect(await rowsOf(ten)).toHaveLength(10);
    expect(await pagesReadBy(ten)).toBeLessThan((await pages()) / 4);
  });

  test('does not read a large table for rows that are not there, when told so', async () => {
    await seedAppointments(client, 40_000);
    await client.query('vacuum analyze public.appointments');
    const bounded = "select * from encryption_rollout.sample_rows('public.appointments', 10, 50)";
    expect(await pagesReadBy(ten)).toBeGreaterThanOrEqual(await pages());
    expect(await pagesReadBy(bounded)).toBeLessThan((await pages()) / 2);
    await encrypt(null);
    expect(await rowsOf(bounded)).toHaveLength(10);
  });
});

describe('audit_rows', () => {
  test('streams every row in the order of the key, those without PII too', async () => {
    await seedAppointments(client, 500);
    await encrypt(null);
    const keys: string[] = [];
    for (let after: string[] | null = null; ; after = [keys.at(-1) ?? '']) {
      const rows = await rowsOf(
        "select * from encryption_rollout.audit_rows('public.appointments', $1, 77)",
        [after],
      );
      if (rows.length === 0) break;
      keys.push(...rows.map(({ row_key }) => row_key));
    }
    const all = await rowsOf('select id::text as key from public.appointments order by id');
    expect(keys).toEqual(all.map(({ key }) => key));
  });

  test('walks the index instead of sorting', async () => {
    await seedAppointments(client, 5_000);
    await client.query('analyze public.appointments');
    await client.query(
      "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; set client_min_messages = log",
    );
    const plans: string[] = [];
    client.on('notice', ({ message }) => plans.push(message ?? ''));
    await rowsOf(
      "select * from encryption_rollout.audit_rows('public.appointments', '{80000000-0000-0000-0000-000000000000}', 100)",
    );
    const [walk, ...others] = plans.filter((plan) => plan.includes('from public.appointments as t'));
    expect(others).toEqual([]);
    expect(walk).toMatch(/Index Scan using appointments_pkey/);
    expect(walk).not.toMatch(/Sort/);
  });
});

describe('insert_canary', () => {
  const canary = (row: unknown) =>
    rowsOf("select * from encryption_rollout.insert_canary('public.appointments', $1)", [
      JSON.stringify(row),
    ]);
  const shipped = Target.parse({}).canary;

  test('inserts the shipped canary, encrypted when the trigger is on', async () => {
    const [off] = await canary(shipped);
    expect(off).toMatchObject({
      iv: null,
      plaintexts: ['Canary@Example.com', '+15551234567', 'CanaryTest'],
      sealed: [null, null, null],
    });
    await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const [on] = await canary(shipped);
    expect(on).toMatchObject({ iv: expect.any(Buffer), sealed: Array(3).fill(expect.any(Buffer)) });
  });

  test('names what is wrong with it', async () => {
    await expect(canary({ ...shipped, nickname: 'x' })).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringContaining('columns that the table does not have: nickname'),
    });
    await expect(canary({})).rejects.toMatchObject({ code: 'ER002' });
    await expect(canary({ email: 'x' })).rejects.toMatchObject({ code: '23502' });
  });
});

test('new_rows counts rows with PII since a moment', async () => {
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  await seedAppointments(client, 40);
  const since = (await rowsOf('select clock_timestamp() as now'))[0].now;
  await seedAppointments(client, 20);
  await client.query("select encryption_rollout.set_trigger('public.appointments', false)");
  await seedAppointments(client, 20);
  await client.query('set session_replication_role = replica');
  await client.query(
    "update public.appointments set pii_iv = null where email = 'person5@example.com' and created_at >= $1",
    [since],
  );
  await client.query('reset session_replication_role');
  expect(
    await rowsOf("select * from encryption_rollout.new_rows('public.appointments', $1)", [since]),
  ).toEqual([{ new_records: '38', auto_encrypted: '18', missing_iv: '1' }]);
});
