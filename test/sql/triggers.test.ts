import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { appointments, freshDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterEach(() => database.drop());

const setTrigger = async (enabled: boolean) =>
  (
    await client.query("select encryption_rollout.set_trigger('public.appointments', $1) as changed", [
      enabled,
    ])
  ).rows[0].changed;

const insert = async (email: string | null, by: pg.Client = client): Promise<string> =>
  (
    await by.query(
      'insert into public.appointments (organization_id, start_at, end_at, email) values (gen_random_uuid(), now(), now(), $1) returning id',
      [email],
    )
  ).rows[0].id;

/** The row as verification sees it: which values there are, and whether each opens to its plaintext. */
async function state(id: string) {
  const { rows } = await client.query(
    `select pii_iv, email_encrypted, e164_encrypted, first_name_encrypted,
       public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) is not distinct from email
       and public.decrypt_pii_with_iv_logged(e164_encrypted, pii_iv, id) is not distinct from e164
       and public.decrypt_pii_with_iv_logged(first_name_encrypted, pii_iv, id) is not distinct from first_name as opens
     from public.appointments where id = $1`,
    [id],
  );
  return rows[0];
}
const nothing = { pii_iv: null, email_encrypted: null, e164_encrypted: null, first_name_encrypted: null };
const errors = async () => (await client.query('select * from public.encryption_errors order by id')).rows;

describe('set_trigger', () => {
  test('the trigger is installed disabled', async () => {
    const { rows } = await client.query(
      "select tgenabled, tgname from pg_trigger where tgrelid = 'public.appointments'::regclass order by tgname",
    );
    expect(rows).toEqual([
      { tgname: 'aa_clear_brought_ciphertext', tgenabled: 'O' },
      { tgname: 'encrypt_appointment_pii', tgenabled: 'D' },
      { tgname: 'zz_clear_stale_ciphertext', tgenabled: 'O' },
    ]);
    expect(await state(await insert('a@example.com'))).toMatchObject(nothing);
  });

  test('switches it, and takes no lock when there is nothing to switch', async () => {
    expect(await setTrigger(true)).toBe(true);
    expect(await setTrigger(false)).toBe(true);
    const other = await database.connect();
    await other.query('begin');
    await other.query('lock table public.appointments in row exclusive mode');
    await client.query("set lock_timeout = '50ms'");
    expect(await setTrigger(false)).toBe(false);
    await expect(setTrigger(true)).rejects.toMatchObject({ code: '55P03' });
    await other.query('rollback');
  });
});

describe('the main trigger', () => {
  beforeEach(() => setTrigger(true));

  test('encrypts an insert', async () => {
    const row = await state(await insert('a@example.com'));
    expect(row).toMatchObject({ opens: true, e164_encrypted: null });
    expect(row.pii_iv).toHaveLength(16);
    expect(row.email_encrypted.subarray(0, 3)).toEqual(Buffer.from([1, 0, 1]));
  });

  test('takes a new IV when a PII column changes, and re-encrypts all of them', async () => {
    const id = await insert('a@example.com');
    await client.query("update public.appointments set first_name = 'Ann' where id = $1", [id]);
    const before = await state(id);
    await client.query("update public.appointments set email = 'b@example.com' where id = $1", [id]);
    const after = await state(id);
    expect(after.opens).toBe(true);
    expect(after.pii_iv).not.toEqual(before.pii_iv);
    expect(after.first_name_encrypted).not.toEqual(before.first_name_encrypted);
  });

  test('leaves a row alone whose PII stays the same, or is not touched', async () => {
    const id = await insert('a@example.com');
    const before = await state(id);
    await client.query("update public.appointments set email = 'a@example.com', note = 'x' where id = $1", [
      id,
    ]);
    await client.query("update public.appointments set note = 'y' where id = $1", [id]);
    expect(await state(id)).toEqual(before);
  });

  test('encrypts an unencrypted row when its PII is written, even unchanged', async () => {
    await setTrigger(false);
    const id = await insert('a@example.com');
    await setTrigger(true);
    await client.query("update public.appointments set email = 'a@example.com' where id = $1", [id]);
    expect(await state(id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test('re-encrypts a row whose key changes, since the key is authenticated with it', async () => {
    const id = await insert('a@example.com');
    const { rows } = await client.query(
      'update public.appointments set id = gen_random_uuid() where id = $1 returning id',
      [id],
    );
    expect(await state(rows[0].id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test('leaves no ciphertext and no IV when the row holds no PII', async () => {
    const id = await insert(null);
    expect(await state(id)).toMatchObject(nothing);
    await client.query("update public.appointments set email = 'a@example.com' where id = $1", [id]);
    await client.query('update public.appointments set email = null where id = $1', [id]);
    expect(await state(id)).toMatchObject(nothing);
  });

  test('works for any writer, who can read neither the key nor the engine', async () => {
    await client.query('begin');
    await client.query('create role clerk; grant select, insert, update on public.appointments to clerk');
    await client.query('set local role clerk');
    const id = await insert('a@example.com');
    await client.query("update public.appointments set email = 'b@example.com' where id = $1", [id]);
    for (const forbidden of [
      'select * from encryption_rollout.keys',
      'select * from encryption_rollout.read_key()',
      'select public.batch_encrypt_appointments(1)',
      'select * from public.encryption_errors',
      'select * from public.get_encryption_health_summary()',
      "select * from public.get_key_access_stats('1 hour')",
      `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments`,
      'select * from public.app_config',
      'select * from encryption_rollout.key_material',
    ]) {
      await client.query('savepoint before');
      await expect(client.query(forbidden)).rejects.toMatchObject({ code: '42501' });
      await client.query('rollback to before');
    }
    await client.query('reset role');
    expect(await state(id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
    await client.query('rollback');
  });

  test('is not misled by what a writer has put into its search_path', async () => {
    await client.query(`
      create schema evil;
      create function evil.octet_length(bytea) returns integer language plpgsql as $$ begin raise exception 'called'; end $$;
      create function evil.convert_to(text, text) returns bytea language plpgsql as $$ begin raise exception 'called'; end $$`);
    await client.query('set search_path = evil, pg_catalog, public');
    const id = await insert('a@example.com');
    await client.query('reset search_path');
    expect(await errors()).toEqual([]);
    expect(await state(id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test.each([
    ['the key has vanished', 'alter table encryption_rollout.key_material rename to hidden', '42P01'],
    [
      'the key is another',
      "update encryption_rollout.key_material set key = decode(repeat('ab', 32), 'hex')",
      'ER003',
    ],
    [
      'the cryptography is gone',
      'alter function encryption_rollout.hkdf_expand(bytea, bytea) rename to gone',
      '42883',
    ],
    ['its uses cannot be counted', 'drop sequence encryption_rollout.trigger_uses_1', '42P01'],
    ['it cannot be written who has used it', 'drop table encryption_rollout.trigger_writers', '42P01'],
  ])('lets the write through when %s, and records it', async (_, harm, sqlstate) => {
    const encrypted = await insert('before@example.com');
    await client.query(harm);
    const id = await insert('customer@example.com');
    await client.query("update public.appointments set email = 'changed@example.com' where id = $1", [
      encrypted,
    ]);
    const { rows } = await client.query(
      'select pii_iv, email_encrypted from public.appointments where id = any($1)',
      [[id, encrypted]],
    );
    expect(rows).toEqual([
      { pii_iv: null, email_encrypted: null },
      { pii_iv: null, email_encrypted: null },
    ]);
    const recorded = await errors();
    expect(recorded).toMatchObject([
      { error_type: 'trigger', target: 'public.appointments', row_key: id, sqlstate },
      { error_type: 'trigger', row_key: encrypted, sqlstate },
    ]);
    expect(JSON.stringify(recorded)).not.toContain('example.com');
  });

  test('lets the write through even when the failure cannot be recorded', async () => {
    await client.query(
      'delete from encryption_rollout.key_material; drop table encryption_rollout.errors cascade',
    );
    const id = await insert('customer@example.com');
    expect((await client.query('select email from public.appointments where id = $1', [id])).rows).toEqual([
      { email: 'customer@example.com' },
    ]);
  });

  test('records each write that is too deep in the stack to be sealed, and batches seal it', async () => {
    await client.query(`
      create function public.deep(n integer) returns void language plpgsql as $$ begin
        if n > 0 then perform public.deep(n - 1);
        else insert into public.appointments (organization_id, start_at, end_at, email) values (gen_random_uuid(), now(), now(), 'deep@example.com');
        end if; end $$`);
    const writer = await database.connect();
    await writer.query("set max_stack_depth = '300kB'");
    let missed = 0;
    for (let depth = 60; ; depth++) {
      const went = await writer.query('select public.deep($1)', [depth]).then(
        () => true,
        (error) => {
          expect(error.code).toBe('54001');
          return false;
        },
      );
      if (!went) break;
      const { rows } = await client.query(
        'select count(*)::integer as n from public.appointments where pii_iv is null',
      );
      await client.query('select encryption_rollout.record_trigger_misses()');
      expect((await errors()).filter(({ resolved_at }) => resolved_at === null)).toMatchObject(
        rows[0].n === 0 ? [] : [{ error_type: 'trigger', sqlstate: '54001', target: 'public.appointments' }],
      );
      if (rows[0].n > 0) missed += 1;
      const seal = async () =>
        (
          await client.query(
            "select encryption_rollout.seal_misses('public.appointments', 100, null) as done",
          )
        ).rows[0].done;
      for (let calls = 0; !(await seal()); calls++) expect(calls).toBeLessThan(5);
      expect((await client.query('select from public.appointments where pii_iv is null')).rowCount).toBe(0);
    }
    expect(missed).toBeGreaterThan(0);
  });

  describe('uses of the key', () => {
    const stats = async () =>
      (
        await client.query(
          "select accessed_by, access_count::int, values_used::int from public.get_key_access_stats('1 hour') where purpose = 'trigger' order by 1",
        )
      ).rows;
    const record = () => client.query('select encryption_rollout.record_trigger_uses()');
    const me = { accessed_by: 'postgres', access_count: 1 };

    test('are counted row by row, those of a transaction that is rolled back among them, and take no row each', async () => {
      for (let n = 0; n < 20; n++) await insert('a@example.com');
      await client.query('begin');
      await insert('b@example.com');
      await client.query('rollback');
      await insert(null);
      expect(await stats()).toEqual([{ ...me, values_used: 21 }]);
      await record();
      await insert('c@example.com');
      await record();
      await record();
      expect(await stats()).toEqual([{ ...me, values_used: 22 }]);
      expect(
        (await client.query("select from encryption_rollout.key_access where purpose = 'trigger'")).rowCount,
      ).toBe(1);
    });

    test.each(['read committed', 'serializable'])(
      'name each log-in that has written since, whatever its settings say, and no one from before: in %s',
      async (isolation) => {
        await client.query(
          'create role clerk login; grant select, insert on public.appointments to clerk; set session authorization clerk',
        );
        await client.query(`begin isolation level ${isolation}`);
        // What was believed once.
        for (const variable of ['logged_1', 'named_in_1'])
          await client.query(
            "select set_config('encryption_rollout.' || $1, pg_current_xact_id()::text, true)",
            [variable],
          );
        await insert('a@example.com');
        await client.query('commit; reset session authorization');
        await insert('b@example.com');
        expect(await stats()).toEqual([{ accessed_by: 'clerk, postgres', access_count: 1, values_used: 2 }]);
        for (let n = 0; n < 3; n++) await record();
        await insert('c@example.com');
        await record();
        expect(await stats()).toEqual([
          { accessed_by: 'clerk, postgres', access_count: 1, values_used: 2 },
          { ...me, values_used: 1 },
        ]);
        await client.query('drop owned by clerk; drop role clerk');
      },
    );

    test('make no writer wait for another, and are told before the transaction ends', async () => {
      const other = await database.connect();
      await other.query("begin; set local lock_timeout = '1s'");
      await insert('a@example.com', other);
      await client.query("set lock_timeout = '1s'");
      await insert('b@example.com');
      await record();
      await client.query('select encryption_rollout.record_trigger_uses()');
      await insert('c@example.com', other);
      await client.query(
        "delete from encryption_rollout.trigger_writers; update encryption_rollout.trigger_uses set former_writers = '{}'",
      );
      expect((await stats()).map(({ accessed_by }) => accessed_by)).toEqual([
        '(unknown: rolled back, still open, or before a crash)',
        'postgres',
      ]);
      await other.query('commit');
      await client.query('reset lock_timeout');
    });

    test.each(['read committed', 'serializable'])(
      'name the log-in of a transaction that ends after its use was written down: in %s',
      async (isolation) => {
        await client.query('create role clerk login; grant select, insert on public.appointments to clerk');
        const other = await database.connect();
        await other.query(`set session authorization clerk; begin isolation level ${isolation}`);
        for (let n = 0; n < 2; n++) await insert('a@example.com', other);
        await insert('b@example.com');
        await record();
        expect(await stats()).toEqual([{ ...me, values_used: 3 }]);
        await other.query('commit');
        await record();
        await insert('c@example.com');
        await record();
        expect(await stats()).toEqual([
          { accessed_by: 'clerk, postgres', access_count: 1, values_used: 1 },
          { ...me, values_used: 3 },
        ]);
        await other.query('reset session authorization');
        await client.query('drop owned by clerk; drop role clerk');
      },
    );

    test('name a log-in in SERIALIZABLE that has its name rolled back and says that it was not', async () => {
      await client.query(
        'create role clerk login; grant select, insert on public.appointments to clerk; set session authorization clerk',
      );
      for (const claim of ['as it was', '(0,1)', '(999999999,9999)', 'nothing of the kind']) {
        await client.query('begin isolation level serializable; savepoint before');
        await insert('a@example.com');
        const { rows } = await client.query(
          "select current_setting('encryption_rollout.named_in_1') as place",
        );
        expect(rows[0].place).toMatch(/^\(\d+,\d+\)$/);
        await client.query('rollback to before');
        await client.query("select set_config('encryption_rollout.named_in_1', $1, true)", [
          claim === 'as it was' ? rows[0].place : claim,
        ]);
        await insert('a@example.com');
        await client.query('commit');
      }
      await client.query('reset session authorization');
      expect((await client.query('select role from encryption_rollout.serializable_writers')).rows).toEqual(
        Array(4).fill({ role: 'clerk' }),
      );
      expect((await client.query('select from public.appointments where pii_iv is null')).rowCount).toBe(0);
      await client.query('drop owned by clerk; drop role clerk');
    });

    test('name the log-in of a transaction that goes on seeing its name after it was taken away', async () => {
      await client.query(
        'create role clerk login; grant select, insert on public.appointments to clerk; set session authorization clerk',
      );
      await insert('a@example.com');
      const other = await database.connect();
      await other.query(
        'set session authorization clerk; begin isolation level repeatable read; select from public.appointments',
      );
      await client.query('reset session authorization');
      for (let n = 0; n < 4; n++) await record();
      expect((await client.query('select from encryption_rollout.trigger_writers')).rowCount).toBe(0);
      await insert('b@example.com', other);
      await other.query('commit');
      expect(await stats()).toEqual([{ accessed_by: 'clerk', access_count: 2, values_used: 2 }]);
      await record();
      expect(await stats()).toEqual([{ accessed_by: 'clerk', access_count: 1, values_used: 2 }]);
      // It has ended: no one from before is named.
      await record();
      await insert('c@example.com');
      expect(await stats()).toEqual([
        { accessed_by: 'clerk', access_count: 1, values_used: 2 },
        { ...me, values_used: 1 },
      ]);
      await other.query('reset session authorization');
      await client.query('drop owned by clerk; drop role clerk');
    });

    test('are summed up once for a day, however often they are looked at while it grows old', async () => {
      for (const hour of ['09', '10', '11'])
        await client.query(
          "insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target) values ($1, 'a', 'trigger', 'public.appointments')",
          [`2026-01-05T${hour}:00:00Z`],
        );
      const summedBefore = async (limit: string) => {
        await client.query(
          'select encryption_rollout.sum_key_access(clock_timestamp() - $1::timestamptz, 100)',
          [limit],
        );
        return (
          await client.query(
            "select uses::int, is_sum from encryption_rollout.key_access where purpose = 'trigger'",
          )
        ).rows;
      };
      const each = Array(3).fill({ uses: 1, is_sum: false });
      for (const hour of ['09', '10', '11'])
        expect(await summedBefore(`2026-01-05T${hour}:30:00Z`)).toEqual(each);
      for (const hour of ['09', '10'])
        expect(await summedBefore(`2026-01-06T${hour}:00:00Z`)).toEqual([{ uses: 3, is_sum: true }]);
    });

    test('are summed up by the day when they are old, and none is lost', async () => {
      for (const [days, by] of [
        [100, 'a'],
        [100, 'a'],
        [100, 'b'],
        [101, 'a'],
        [80, 'a'],
      ])
        await client.query(
          `insert into encryption_rollout.key_access (accessed_at, accessed_by, purpose, target, column_name, row_key)
           values (date_trunc('day', now()) + interval '1 hour' - make_interval(days => $1), $2, 'decrypt', 'public.appointments', 'email', 'k')`,
          [days, by],
        );
      const sum = async (limit: number) =>
        (await client.query("select encryption_rollout.sum_key_access('90 days', $1)::int as n", [limit]))
          .rows[0].n;
      const before = (await client.query('select from encryption_rollout.key_access')).rowCount;
      expect(await sum(3)).toBe(3);
      expect(await sum(3)).toBe(1);
      expect(await sum(3)).toBe(0);
      const { rows } = await client.query(
        "select accessed_by, uses::int, row_key, is_sum from encryption_rollout.key_access where purpose = 'decrypt' order by accessed_at, accessed_by, is_sum desc",
      );
      expect(rows.reduce((total, { uses }) => total + uses, 0)).toBe(5);
      expect(rows.filter(({ is_sum }) => !is_sum)).toMatchObject([{ row_key: 'k', uses: 1 }]);
      expect(rows.filter(({ is_sum, row_key }) => is_sum && row_key !== null)).toEqual([]);
      // The key's installation stays as it is.
      expect(before).toBeGreaterThan(5);
    });
  });
});

describe('the guard trigger', () => {
  let id: string;
  beforeEach(async () => {
    id = await insert('a@example.com');
    await client.query("update public.appointments set first_name = 'Ann' where id = $1", [id]);
    await client.query('select public.batch_encrypt_appointments()');
    expect(await state(id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test.each([
    ['a PII column', "email = 'b@example.com'"],
    ['only its case', "email = 'A@example.com'"],
    ['a PII column to null', 'first_name = null'],
    ['a PII column from null', "e164 = '+15550100'"],
    ['the key', "id = '00000000-0000-4000-8000-00000000000f'"],
  ])('clears the ciphertext of a row when %s changes', async (_, change) => {
    await client.query(`update public.appointments set ${change} where id = $1`, [id]);
    const { rows } = await client.query('select * from public.appointments');
    expect(rows).toMatchObject([nothing]);
    await client.query('select public.batch_encrypt_appointments()');
    expect(await state(rows[0].id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test.each([
    ['another row’s', 'email_encrypted = other.email_encrypted, pii_iv = other.pii_iv'],
    ['one value, under the row’s IV', 'email_encrypted = other.email_encrypted'],
    ['one beside a plaintext that is null', 'e164_encrypted = other.email_encrypted'],
    ['none for one value', 'email_encrypted = null'],
    ['none but an IV', 'email_encrypted = null, first_name_encrypted = null'],
    ['no IV', 'pii_iv = null'],
    ['no IV, and another plaintext', "pii_iv = null, email = 'c@example.com'"],
  ])('clears a row whose ciphertext alone a statement writes: %s', async (_, change) => {
    const other = await insert('b@example.com');
    await client.query('select public.batch_encrypt_appointments()');
    await client.query(
      `update public.appointments as t set ${change} from public.appointments as other where t.id = $1 and other.id = $2`,
      [id, other],
    );
    expect((await client.query('select * from public.appointments where id = $1', [id])).rows).toMatchObject([
      nothing,
    ]);
    await client.query('select public.batch_encrypt_appointments()');
    expect(await state(id)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test('clears what is brought to a row that is not encrypted, with or without an IV', async () => {
    const fresh = await insert('c@example.com');
    for (const change of [
      'email_encrypted = o.email_encrypted',
      'pii_iv = o.pii_iv, email_encrypted = o.email_encrypted',
    ])
      await client.query(
        `update public.appointments as t set ${change} from public.appointments as o where t.id = $1 and o.id = $2`,
        [fresh, id],
      );
    expect(
      (await client.query('select * from public.appointments where id = $1', [fresh])).rows,
    ).toMatchObject([nothing]);
  });

  test('clears it by the present names, too', async () => {
    const other = await insert('b@example.com');
    await client.query(
      'select public.batch_encrypt_appointments(); alter table public.appointments rename email to mail',
    );
    await client.query(
      'update public.appointments as t set email_encrypted = other.email_encrypted from public.appointments as other where t.id = $1 and other.id = $2',
      [id, other],
    );
    expect((await client.query('select * from public.appointments where id = $1', [id])).rows).toMatchObject([
      nothing,
    ]);
  });

  test('leaves a row alone whose PII stays the same', async () => {
    const before = await state(id);
    await client.query(
      "update public.appointments set note = 'x', email = email, status = 'done' where id = $1",
      [id],
    );
    expect(await state(id)).toEqual(before);
  });

  test('catches a change that another trigger makes', async () => {
    await client.query(`
      create function public.lower_email() returns trigger language plpgsql as
        $$ begin new.email := upper(new.email); return new; end $$;
      create trigger lower_email before update on public.appointments for each row execute function public.lower_email()`);
    await client.query("update public.appointments set note = 'x' where id = $1", [id]);
    expect((await client.query('select * from public.appointments')).rows).toMatchObject([nothing]);
  });
});

describe('an application that saves whole rows, with the ciphertext that it read long ago', () => {
  /** The engine's columns as they are now. */
  async function kept(id: string) {
    const { rows } = await client.query(
      'select pii_iv, email_encrypted from public.appointments where id = $1',
      [id],
    );
    return rows[0];
  }
  const save = (id: string, email: string, row: { pii_iv: Buffer; email_encrypted: Buffer }) =>
    client.query(
      'update public.appointments set email = $2, pii_iv = $3, email_encrypted = $4 where id = $1',
      [id, email, row.pii_iv, row.email_encrypted],
    );

  test('leaves no stale ciphertext while the trigger is off', async () => {
    const id = await insert('first@example.com');
    await client.query('select public.batch_encrypt_appointments()');
    const stale = await kept(id);
    await client.query("update public.appointments set email = 'second@example.com' where id = $1", [id]);
    await client.query('select public.batch_encrypt_appointments()');
    await save(id, 'third@example.com', stale);
    expect(await state(id)).toMatchObject(nothing);
  });

  test('is believed no ciphertext, be it of the plaintext that it brings as well', async () => {
    const id = await insert('first@example.com');
    await client.query('select public.batch_encrypt_appointments()');
    const old = await kept(id);
    for (const email of ['second@example.com', 'first@example.com'])
      await client.query('update public.appointments set email = $2 where id = $1', [id, email]);
    await client.query('select public.batch_encrypt_appointments()');
    expect(await kept(id)).not.toEqual(old);
    await save(id, 'first@example.com', old);
    expect(await state(id)).toMatchObject(nothing);
  });

  test.each(['second@example.com', 'third@example.com'])(
    'is encrypted anew while the trigger is on (%s)',
    async (email) => {
      await setTrigger(true);
      const id = await insert('first@example.com');
      const stale = await kept(id);
      await client.query("update public.appointments set email = 'second@example.com' where id = $1", [id]);
      await save(id, email, stale);
      const { opens, pii_iv, email_encrypted } = await state(id);
      expect(opens).toBe(true);
      expect(email_encrypted).not.toBeNull();
      expect(pii_iv).not.toEqual(stale.pii_iv);
    },
  );
});

describe('the guard on inserts', () => {
  /** As an application does that copies a whole row and then changes it. */
  async function copyOf(id: string): Promise<string> {
    const { rows } = await client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email, pii_iv, email_encrypted, e164_encrypted)
       select organization_id, start_at, end_at, 'copy@example.com', pii_iv, email_encrypted, email_encrypted
       from public.appointments where id = $1 returning id`,
      [id],
    );
    return rows[0].id;
  }
  let id: string;
  beforeEach(async () => {
    id = await insert('a@example.com');
    await client.query('select public.batch_encrypt_appointments()');
  });

  test('trusts no ciphertext that a new row brings along while the trigger is off', async () => {
    const copy = await copyOf(id);
    expect(await state(copy)).toMatchObject(nothing);
    await client.query('delete from encryption_rollout.cursors');
    await client.query('select public.batch_encrypt_appointments()');
    expect(await state(copy)).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test('nor ciphertext without an IV', async () => {
    const { rows } = await client.query(
      `insert into public.appointments (organization_id, start_at, end_at, email, email_encrypted)
       values (gen_random_uuid(), now(), now(), 'b@example.com', '\\x01') returning id`,
    );
    expect(await state(rows[0].id)).toMatchObject(nothing);
  });

  test('leaves it to the main trigger while that is on', async () => {
    await setTrigger(true);
    expect(await state(await copyOf(id))).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
    await client.query('alter trigger encrypt_appointment_pii on public.appointments rename to "AA"');
    await client.query("update encryption_rollout.targets set trigger_name = 'AA'");
    await client.query('select encryption_rollout.generate_triggers(t) from encryption_rollout.targets as t');
    expect(await state(await copyOf(id))).toMatchObject({ opens: true, pii_iv: expect.any(Buffer) });
  });

  test('comes back with the next registration when somebody has dropped it, as all that the engine needs does', async () => {
    await client.query(`
      drop trigger aa_clear_brought_ciphertext on public.appointments;
      drop trigger zz_clear_stale_ciphertext on public.appointments;
      drop trigger encrypt_appointment_pii on public.appointments;
      alter table public.appointments drop column email_encrypted`);
    const created = async () =>
      (
        await client.query(
          'select kind, name, parent from encryption_rollout.created_objects order by 1, 2, 3',
        )
      ).rows;
    const before = await created();
    await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    const { rows } = await client.query(
      "select guard_enabled from encryption_rollout.health('public.appointments')",
    );
    expect(rows).toEqual([{ guard_enabled: true }]);
    expect(await created()).toEqual(before);
    expect(await state(await copyOf(id))).toMatchObject(nothing);
  });

  test('is watched over', async () => {
    const guarded = async () =>
      (await client.query("select guard_enabled from encryption_rollout.health('public.appointments')"))
        .rows[0].guard_enabled;
    expect(await guarded()).toBe(true);
    await client.query('alter table public.appointments disable trigger aa_clear_brought_ciphertext');
    expect(await guarded()).toBe(false);
  });
});

test('two SERIALIZABLE transactions that write rows of their own both commit, and are named', async () => {
  await client.query(
    `select encryption_rollout.install_key(1, decode(repeat('0f', 32), 'hex'))
     where not exists (select from encryption_rollout.keys)`,
  );
  await setTrigger(true);
  const [one, other] = [await database.connect(), await database.connect()];
  for (let period = 0; period < 3; period++) {
    for (const session of [one, other]) await session.query('begin isolation level serializable');
    // By turns, twice each.
    for (const session of [one, other, one, other]) await insert(`p${period}@example.com`, session);
    for (const session of [one, other]) await session.query('commit');
    const { rows } = await client.query(
      `select roles from encryption_rollout.unrecorded_trigger_uses()
       union all select 'read by no trigger' from encryption_rollout.trigger_writers`,
    );
    expect(rows).toEqual([{ roles: 'postgres' }]);
    // One for each transaction, not for each row.
    expect((await client.query('select from encryption_rollout.serializable_writers')).rowCount).toBe(2);
    // Its names are kept until the next writing down but one.
    for (let n = 0; n < 2; n++) await client.query('select encryption_rollout.record_trigger_uses()');
    expect((await client.query('select from encryption_rollout.serializable_writers')).rowCount).toBe(0);
  }
  const { rows } = await client.query(
    'select count(*)::integer as n from public.appointments where email_encrypted is not null',
  );
  expect(rows).toEqual([{ n: 12 }]);
});

test('whether a log-in is known is asked of the index, whatever it is that a name is compared in', async () => {
  const { rows } = await client.query(
    "select prosrc from pg_proc where oid = 'encryption_rollout.encrypt_row_1'::regproc",
  );
  const [, looked = ''] = /(left join encryption_rollout\.trigger_writers .*)/.exec(rows[0].prosrc) ?? [];
  await client.query('set enable_seqscan = off');
  const plan = await client.query(`explain (costs off) select w.role from (select) as m ${looked}`);
  expect(plan.rows.map((row) => row['QUERY PLAN']).join('\n')).toMatch(
    /Index Cond: .*target_id = 1.*role = /,
  );
});

test.each([
  {
    encoding: 'EUC_JP',
    name: "convert_from('\\x8fa2f1', 'EUC_JP')",
    is: 'another there and back',
    recorded: true,
  },
  { encoding: 'WIN1252', name: "convert_from('\\x81', 'WIN1252')", is: 'nothing', recorded: null },
] as const)(
  'a row that is not sealed is recorded by its key, which in UTF-8 is $is ($encoding)',
  async (given) => {
    const other = await freshDatabase({ template: 'empty', encoding: given.encoding });
    try {
      await migrate(other.client);
      await other.client.query('create table public.people (name text primary key, email text)');
      await other.client.query('select encryption_rollout.register_target($1)', [
        { schema: 'public', table: 'people', key: ['name'], columns: ['email'], trigger: 'encrypt_people' },
      ]);
      await other.client.query("select encryption_rollout.set_trigger('public.people', true)");
      await other.client.query(`insert into public.people values (${given.name}, 'someone@example.com')`);
      const { rows } = await other.client.query(
        'select row_key = name as is_its from encryption_rollout.errors cross join public.people',
      );
      expect(rows).toEqual([{ is_its: given.recorded }]);
      // By whoever reads what there is.
      expect((await other.client.query('select * from public.encryption_errors')).rowCount).toBe(1);
      // Batches, too, record it.
      await other.client.query("select encryption_rollout.install_key(1, decode(repeat('0f', 32), 'hex'))");
      await other.client.query("select encryption_rollout.encrypt_batch('public.people', 10)");
      expect((await other.client.query('select row_key from encryption_rollout.errors')).rowCount).toBe(
        given.recorded === null ? 2 : 1,
      );
    } finally {
      await other.drop();
    }
  },
);
