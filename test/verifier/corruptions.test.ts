import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Invariant, invariants } from '../../verifier/findings.ts';
import { type Options, type Verification, verify } from '../../verifier/verify.ts';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';
import { behindTheTriggers, fullRows, one, rollOut, target } from './rollout.ts';

let database: TestDatabase;
let client: pg.Client;
let run: string;

beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  run = await rollOut(client, 60);
});
afterEach(() => database.drop());

/** Subjects by violated invariant: exactly these, and nothing else. */
async function found(options: Options = {}): Promise<Partial<Record<Invariant, string[]>>> {
  const [verification] = await verify(client, options);
  return subjects(verification);
}

function subjects(verification: Verification | undefined): Partial<Record<Invariant, string[]>> {
  const violated = (verification?.results ?? []).filter(({ violations }) => violations > 0);
  return Object.fromEntries(
    violated.map(({ invariant, first }) => [
      Object.keys(invariants).find((name) => invariants[name as Invariant] === invariant),
      first.map(({ subject }) => subject).sort(),
    ]),
  );
}

const corrupt = (sql: string, ...values: unknown[]) => behindTheTriggers(client, sql, values);

test('an untouched rollout: everything is checked, nothing is found', async () => {
  const [verification] = await verify(client);
  expect(subjects(verification)).toEqual({});
  expect(verification).toMatchObject({
    target,
    complete: true,
    runStatus: 'COMPLETED',
    counts: { rows: 60, withPii: 57, encrypted: 57, withCurrentKey: 57, missingIv: 0 },
  });
  const checked = Object.fromEntries(
    verification?.results.map((result) => [result.invariant, result.checked]) ?? [],
  );
  expect(checked).toMatchObject({
    [invariants.presence]: 60,
    [invariants.iv]: 60,
    [invariants.ivReuse]: 57,
    [invariants.format]: 57,
    [invariants.keyNumber]: 57,
    [invariants.opens]: 57,
    [invariants.snapshot]: 0,
    [invariants.names]: 1,
    [invariants.coverage]: 18,
    [invariants.key]: 1,
    [invariants.trigger]: 1,
    [invariants.guard]: 2,
    [invariants.phases]: 5,
    [invariants.work]: 2,
    [invariants.completion]: 1,
  });
});

describe('what is called otherwise, or gone', () => {
  test.each([
    ['alter table appointments rename to visits', 'table public.appointments', 'renamed to public.visits'],
    [
      'alter table appointments rename email to mail',
      'column email of public.appointments',
      'renamed to mail, its name expected. npm run rollout -- follow public.appointments',
    ],
    ['alter table appointments rename id to no', 'column id of public.appointments', 'renamed to no'],
    [
      'alter table appointments rename e164_encrypted to phone',
      'column e164_encrypted of public.appointments',
      'renamed to phone',
    ],
    ['alter table appointments rename pii_iv to iv', 'column pii_iv of public.appointments', 'renamed to iv'],
  ])('%s: a finding, and every row is checked all the same', async (ddl, subject, detail) => {
    await client.query(ddl);
    const [verification] = await verify(client);
    expect(subjects(verification)).toEqual({ names: [subject] });
    const names = verification?.results.find(({ invariant }) => invariant === invariants.names);
    expect(names?.first[0]?.detail).toContain(detail);
    expect(verification?.counts).toMatchObject({ rows: 60, encrypted: 57 });
  });

  test.each([
    ['drop table appointments cascade', 'table public.appointments'],
    ['alter table appointments drop column email', 'column email of public.appointments'],
    ['alter table appointments drop column pii_iv cascade', 'column pii_iv of public.appointments'],
  ])('%s: a finding, and no row can be checked', async (ddl, subject) => {
    await client.query(ddl);
    const [verification] = await verify(client);
    expect(subjects(verification)).toMatchObject({ names: expect.arrayContaining([subject]) });
    expect(verification?.counts.rows).toBe(0);
  });
});

describe('planted corruption', () => {
  test('a flipped bit of the ciphertext', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt(
      'update appointments set email_encrypted = set_bit(email_encrypted, 100, 1 - get_bit(email_encrypted, 100)) where id = $1',
      row,
    );
    expect(await found()).toEqual({ opens: [row] });
  });

  test('a truncated value', async () => {
    const [ragged, short, block] = await fullRows(client, 3);
    const cut =
      'update appointments set email_encrypted = substr(email_encrypted, 1, octet_length(email_encrypted) - $2) where id = $1';
    await corrupt(cut, ragged, 1);
    await corrupt(
      'update appointments set e164_encrypted = substr(e164_encrypted, 1, 50) where id = $1',
      short,
    );
    // Of the right shape still: only authentication tells.
    await corrupt(cut, block, 16);
    expect(await found()).toEqual({ format: [ragged, short].sort(), opens: [block] });
  });

  test('another format', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt(
      'update appointments set email_encrypted = set_byte(email_encrypted, 0, 2) where id = $1',
      row,
    );
    expect(await found()).toEqual({ format: [row] });
  });

  test('values swapped between two rows, IV and all', async () => {
    const [a, b] = await fullRows(client, 2);
    await corrupt(
      `update appointments as t
       set pii_iv = o.pii_iv, email_encrypted = o.email_encrypted, e164_encrypted = o.e164_encrypted, first_name_encrypted = o.first_name_encrypted
       from appointments as o
       where t.id in ($1, $2) and o.id in ($1, $2) and t.id <> o.id`,
      a,
      b,
    );
    expect(await found()).toEqual({ opens: [a, b].sort() });
  });

  test('values swapped between two columns', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt(
      'update appointments set email_encrypted = e164_encrypted, e164_encrypted = email_encrypted where id = $1',
      row,
    );
    expect(await found()).toEqual({ opens: [row] });
  });

  test('columns swapped whose plaintexts are equal', async () => {
    const [row] = await fullRows(client, 1);
    await client.query("update appointments set email = 'same', first_name = 'same' where id = $1", [row]);
    expect(await found()).toEqual({});
    await corrupt('update appointments set email_encrypted = first_name_encrypted where id = $1', row);
    expect(await found()).toEqual({ opens: [row] });
  });

  test('an IV replaced', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt("update appointments set pii_iv = decode(repeat('5a', 16), 'hex') where id = $1", row);
    expect(await found()).toEqual({ opens: [row] });
  });

  test('an IV of another length', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt("update appointments set pii_iv = '\\x00' where id = $1", row);
    expect(await found()).toEqual({ format: [row], opens: [row] });
  });

  test('an IV used in two rows', async () => {
    const [a, b] = await fullRows(client, 2);
    await corrupt(
      'update appointments set pii_iv = (select pii_iv from appointments where id = $1) where id = $2',
      a,
      b,
    );
    expect(await found()).toEqual({ ivReuse: [a, b].sort(), opens: [b] });
  });

  test('a missing IV', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt('update appointments set pii_iv = null where id = $1', row);
    expect(await found()).toEqual({ iv: [row] });
  });

  test('an IV without ciphertext', async () => {
    const row = await one(
      client,
      'select id from appointments where num_nulls(email, e164, first_name) = 3 limit 1',
    );
    await corrupt("update appointments set pii_iv = decode(repeat('5a', 16), 'hex') where id = $1", row);
    expect(await found()).toEqual({ iv: [row] });
  });

  test('plaintext edited behind the triggers', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt("update appointments set email = 'mallory@example.com' where id = $1", row);
    expect(await found()).toEqual({ opens: [row] });
  });

  test('ciphertext missing in a completed table: of one value, and of a whole row', async () => {
    const [value, whole] = await fullRows(client, 2);
    await corrupt('update appointments set email_encrypted = null where id = $1', value);
    await corrupt(
      'update appointments set email_encrypted = null, e164_encrypted = null, first_name_encrypted = null, pii_iv = null where id = $1',
      whole,
    );
    expect(await found()).toEqual({ presence: [value, whole].sort() });
  });

  test('ciphertext where the plaintext is gone', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt('update appointments set email = null where id = $1', row);
    expect(await found()).toEqual({ presence: [row] });
  });

  test('a wrong key number', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt(
      'update appointments set email_encrypted = set_byte(email_encrypted, 2, 7) where id = $1',
      row,
    );
    expect(await found()).toEqual({ keyNumber: [row] });
  });

  test('the number of another registered key', async () => {
    const [row] = await fullRows(client, 1);
    await client.query(
      "insert into encryption_rollout.keys (number, check_value) values (2, encryption_rollout.key_check_value(decode($1, 'hex')))",
      ['ab'.repeat(32)],
    );
    await client.query("select encryption_rollout.store_key(2, decode($1, 'hex'))", ['ab'.repeat(32)]);
    expect(await found()).toEqual({});
    await corrupt(
      'update appointments set email_encrypted = set_byte(email_encrypted, 2, 2) where id = $1',
      row,
    );
    expect(await found()).toEqual({ opens: [row] });
  });

  test('a batch record altered', async () => {
    await client.query(
      "update encryption_rollout.batches set rows_encrypted = rows_encrypted - 1 where request = 'test/2/1'",
    );
    expect(await found()).toEqual({ phases: [`run ${run}, phase 2 of ${target}`] });
  });

  test('a batch record added, and one below zero', async () => {
    await client.query(
      `insert into encryption_rollout.batches select run_id, 'forged', target, 4, 5, 0, 0, false, now(), 1 from encryption_rollout.batches limit 1`,
    );
    await client.query("update encryption_rollout.batches set rows_skipped = -1 where request = 'test/2/1'");
    expect(await found()).toEqual({
      phases: [`run ${run}, batch test/2/1 of ${target}`, `run ${run}, phase 4 of ${target}`],
      work: [`encryption_rollout.batches of ${target}`],
    });
  });
});

describe('what is switched off or recorded wrongly', () => {
  test('the encryption trigger', async () => {
    await client.query('alter table appointments disable trigger encrypt_appointment_pii');
    expect(await found()).toEqual({ trigger: [`trigger encrypt_appointment_pii of ${target}`] });
  });

  test('the guard: disabled, dropped, replaced by one that does nothing', async () => {
    const guard = [`trigger zz_clear_stale_ciphertext of ${target}`];
    await client.query('alter table appointments disable trigger zz_clear_stale_ciphertext');
    expect(await found()).toEqual({ guard });
    await client.query('drop trigger zz_clear_stale_ciphertext on appointments');
    expect(await found()).toEqual({ guard });
    await client.query("create function idle() returns trigger language plpgsql as 'begin return new; end'");
    await client.query(
      'create trigger zz_clear_stale_ciphertext before update on appointments for each row execute function idle()',
    );
    expect(await found()).toEqual({ guard });
  });

  test('the guard on inserts', async () => {
    await client.query('alter table appointments disable trigger aa_clear_brought_ciphertext');
    const guard = [`trigger aa_clear_brought_ciphertext of ${target}`];
    expect(await found()).toEqual({ guard });
    await client.query('drop trigger aa_clear_brought_ciphertext on appointments');
    expect(await found()).toEqual({ guard });
  });

  test('coverage: a health function that reports more than there is', async () => {
    const [row] = await fullRows(client, 1);
    await corrupt('update appointments set email_encrypted = null where id = $1', row);
    await client.query(
      `create or replace function encryption_rollout.not_sealed_with_sql(p_target encryption_rollout.targets, p_numbers integer[], p_prefix text default '')
       returns text language sql immutable as $$ select '(false)' $$`,
    );
    const names = ['encrypted_rows', 'encryption_percentage', 'unencrypted_rows'];
    expect(await found()).toEqual({
      presence: [row],
      coverage: [
        ...[...names, 'readable_percentage', 'readable_rows'].map(
          (name) => `encryption_rollout.health.${name} of ${target}`,
        ),
        ...[...names, 'encrypted_with_current_key'].map(
          (name) => `encryption_rollout.health_summary.${name} of ${target}`,
        ),
      ].sort(),
    });
  });

  test('a completed run: without a passed phase, without its audit, with mismatches', async () => {
    await client.query('update encryption_rollout.phases set passed_at = null where number = 3');
    expect(await found()).toEqual({ completion: [`run ${run} of ${target}`] });
    await client.query('update encryption_rollout.phases set passed_at = now()');
    expect(await found()).toEqual({});
    await client.query('update encryption_rollout.audits set rows_mismatched = 1');
    expect(await found()).toEqual({ completion: [`run ${run} of ${target}`] });
    await client.query('delete from encryption_rollout.audits');
    expect(await found()).toEqual({ completion: [`run ${run} of ${target}`] });
  });

  test('a completed run whose table is not, or that began after the first phase with work to do', async () => {
    await client.query('update encryption_rollout.run_targets set completed_at = null');
    expect(await found({ complete: true })).toEqual({ completion: [`run ${run} of ${target}`] });
    // Left out of the last attempt, it is nobody's to complete.
    await client.query('update encryption_rollout.runs set attempt = 2');
    expect(await found({ complete: true })).toEqual({});
    await client.query('update encryption_rollout.runs set attempt = 1');
    await client.query('update encryption_rollout.run_targets set completed_at = now(), resume_at = 1');
    await client.query('delete from encryption_rollout.batches where phase = 1');
    await client.query('delete from encryption_rollout.phases where number = 1');
    expect(await found()).toEqual({ completion: [`run ${run} of ${target}`] });
  });

  test('more encrypted rows than were ever encrypted', async () => {
    await client.query("update encryption_rollout.key_access set uses = 1 where purpose = 'batch'");
    expect(await found()).toEqual({ work: [`encryption_rollout.batches of ${target}`, target] });
    // A log that was cut is not judged.
    await client.query("delete from encryption_rollout.key_access where purpose = 'install'");
    expect(await found()).toEqual({});
  });

  test('another key in the database: said once, not of every row', async () => {
    await client.query("update encryption_rollout.key_material set key = decode($1, 'hex')", [
      'cd'.repeat(32),
    ]);
    const [verification] = await verify(client);
    expect(subjects(verification)).toEqual({ key: ['key 1'] });
    expect(verification?.results.find(({ invariant }) => invariant === invariants.opens)?.checked).toBe(0);
    expect(JSON.stringify(verification)).not.toContain('cdcd');
    expect(JSON.stringify(verification)).not.toContain(testKey.key.toString('hex').slice(0, 8));
  });
});

describe('a rollout under way', () => {
  beforeEach(async () => {
    await database.drop();
    database = await freshDatabase({ template: 'appointments' });
    client = database.client;
    run = await rollOut(client, 60, 3);
  });

  test('rows that are not encrypted yet are fine, unless a complete rollout is asked for', async () => {
    expect(await found()).toEqual({});
    const [verification] = await verify(client, { complete: true });
    const presence = verification?.results.find(({ invariant }) => invariant === invariants.presence);
    // 2 × 8 rows in each of 3 phases, of 57.
    expect(presence?.violations).toBe(57 - 48);
    expect(subjects(verification)).toHaveProperty('trigger');
  });

  test('a row encrypted by half is not', async () => {
    const row = await one(
      client,
      'select id from appointments where email_encrypted is not null and e164 is not null limit 1',
    );
    await corrupt('update appointments set e164_encrypted = null where id = $1', row);
    expect(await found()).toEqual({ presence: [row] });
  });

  test('live edits, deletes and inserts are', async () => {
    const rows = await fullRows(client, 3);
    await client.query("update appointments set email = 'new@example.com' where id = $1", [rows[0]]);
    await client.query('update appointments set email = null, e164 = null, first_name = null where id = $1', [
      rows[1],
    ]);
    await client.query('delete from appointments where id = $1', [rows[2]]);
    await client.query('update appointments set id = gen_random_uuid() where email_encrypted is not null');
    await client.query(
      'insert into appointments (organization_id, start_at, end_at, email) select organization_id, start_at, end_at, email from appointments limit 5',
    );
    await client.query('select public.batch_encrypt_appointments(20)');
    expect(await found()).toEqual({});
  });

  test('a phase that began again in a later attempt counts anew, within its batches', async () => {
    await client.query(
      'update encryption_rollout.phases set attempt = 2, rows_attempted = 8 where number = 3',
    );
    expect(await found()).toEqual({});
    await client.query('update encryption_rollout.phases set rows_attempted = 17 where number = 3');
    expect(await found()).toEqual({ phases: [`run ${run}, phase 3 of ${target}`] });
  });
});
