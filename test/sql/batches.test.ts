import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { rowVerifier } from '../../lambdas/core/encryption/verification.ts';
import { labelsOf, Target } from '../../lambdas/core/plan/settings.ts';
import {
  appointments,
  freshDatabase,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
});
afterEach(() => database.drop());

interface Batch {
  encrypted: number;
  failed: number;
  skipped: number;
  exhausted: boolean;
}

async function batch(limit: number, by: pg.Client = client, check: Buffer | null = null): Promise<Batch> {
  const { rows } = await by.query('select * from encryption_rollout.encrypt_batch($1, $2, $3)', [
    'public.appointments',
    limit,
    check,
  ]);
  return rows[0];
}

/** Calls until exhausted; fails instead of going on for ever. */
async function batches(limit: number, most = 50): Promise<Batch[]> {
  const done: Batch[] = [];
  while (!done.at(-1)?.exhausted) {
    done.push(await batch(limit));
    if (done.length > most) throw new Error(`not exhausted after ${most} batches: ${JSON.stringify(done)}`);
  }
  return done;
}
const sum = (done: Batch[], field: 'encrypted' | 'failed' | 'skipped') =>
  done.reduce((total, each) => total + each[field], 0);

async function count(condition: string): Promise<number> {
  const { rows } = await client.query(
    `select count(*)::integer as n from public.appointments where ${condition}`,
  );
  return rows[0].n;
}
const unencrypted = 'pii_iv is null and coalesce(email, e164, first_name) is not null';

/** Verifies every row outside the database. Returns how many there were. */
async function verifyAll(): Promise<number> {
  const verify = rowVerifier(labelsOf(Target.parse({})), new Map([[testKey.number, testKey.key]]));
  const { rows } = await client.query(
    "select * from encryption_rollout.audit_rows('public.appointments', null, 1000000)",
  );
  for (const row of rows) {
    const sealedRow = { rowKey: row.row_key, iv: row.iv, plaintexts: row.plaintexts, sealed: row.sealed };
    if (!verify(sealedRow)) throw new Error(`row does not open: ${JSON.stringify(sealedRow)}`);
  }
  return rows.length;
}

describe('encrypt_batch', () => {
  test('encrypts every row with PII, priority rows first, so that each opens outside the database', async () => {
    await seedAppointments(client, 1_000);
    expect(await batch(60)).toEqual({ encrypted: 60, failed: 0, skipped: 0, exhausted: false });
    expect(await count('pii_iv is not null and not is_vip')).toBe(0);
    await batch(60);
    expect(await count('pii_iv is null and is_vip')).toBe(0);

    const rest = await batches(200);
    expect(sum(rest, 'encrypted')).toBe(950 - 120);
    expect(await count(unencrypted)).toBe(0);
    expect(await count('pii_iv is not null')).toBe(950);
    expect(await verifyAll()).toBe(1_000);
  });

  test('gives every row another IV', async () => {
    await seedAppointments(client, 300);
    await batches(1_000);
    const { rows } = await client.query(
      'select count(distinct pii_iv)::integer as n from public.appointments',
    );
    expect(rows[0].n).toBe(285);
  });

  test('takes awkward values: empty, one block long, megabytes, quotes, emoji', async () => {
    const values = ['', 'x'.repeat(16), 'é'.repeat(600_000), `'"\\$1%s\n\t`, '👩‍👩‍👧 ' + '\u0001'];
    for (const value of values)
      await client.query(
        'insert into public.appointments (organization_id, start_at, end_at, email) values (gen_random_uuid(), now(), now(), $1)',
        [value],
      );
    expect(await batch(100)).toMatchObject({ encrypted: values.length });
    expect(await verifyAll()).toBe(values.length);
    const { rows } = await client.query(
      'select email, public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) as opened from public.appointments',
    );
    for (const row of rows) expect(row.opened).toBe(row.email);
  });

  test('changes nothing but the ciphertext and the IV', async () => {
    await seedAppointments(client, 200);
    const plain = `select md5(string_agg(
      (to_jsonb(a) - '{email_encrypted,e164_encrypted,first_name_encrypted,pii_iv}'::text[])::text, '' order by id)) as sum
      from public.appointments a`;
    const before = (await client.query(plain)).rows[0].sum;
    await batches(100);
    expect((await client.query(plain)).rows[0].sum).toBe(before);
  });

  test('does nothing to an encrypted row: running again encrypts nothing twice', async () => {
    await seedAppointments(client, 200);
    await batches(100);
    const rows = async () => (await client.query('select ctid, * from public.appointments order by id')).rows;
    const before = await rows();
    expect(sum(await batches(100), 'encrypted')).toBe(0);
    expect(await rows()).toEqual(before);
  });

  test('on an empty table is exhausted at once', async () => {
    expect(await batch(10)).toEqual({ encrypted: 0, failed: 0, skipped: 0, exhausted: true });
  });

  test('finds rows that were written behind the cursor', async () => {
    await seedAppointments(client, 1_000);
    await batch(700);
    await client.query('delete from public.appointments where is_vip');
    await client.query('vacuum public.appointments');
    // These go into the space that the vacuum freed, on the first pages.
    await seedAppointments(client, 60);
    await batches(700);
    expect(await count(unencrypted)).toBe(0);
  });

  test('begins again when the table was rewritten under the cursor', async () => {
    await seedAppointments(client, 500);
    await batches(1_000);
    // A lap that has found nothing so far, far behind the end that the table has after the rewrite.
    await client.query("update encryption_rollout.cursors set position = '(1000,0)'");
    await client.query('truncate public.appointments');
    await seedAppointments(client, 100);
    expect(await batch(1_000)).toMatchObject({ encrypted: 95, exhausted: false });
  });

  test('looks at a bounded part of a large encrypted table per call', async () => {
    // As few rows to a page as possible: 400 MB of table out of 50,000 rows.
    await client.query(
      'alter table public.appointments set (fillfactor = 10); alter table public.appointments alter note set storage plain',
    );
    // The guard would take away ciphertext that is brought along.
    await client.query(
      `alter table public.appointments disable trigger user;
       insert into public.appointments (organization_id, start_at, end_at, note, email, pii_iv, email_encrypted)
       select gen_random_uuid(), now(), now(), repeat('x', 7500), 'a@example.com', '\\x00', '\\x010001' from generate_series(1, 50000)`,
    );
    const done = await batches(5_000);
    expect(done.length).toBeGreaterThanOrEqual(3);
    expect(done.length).toBeLessThanOrEqual(6);
    expect(sum(done, 'encrypted')).toBe(0);
  });

  test('repairs a row whose IV or single ciphertext is missing', async () => {
    await seedAppointments(client, 20);
    await batches(100);
    await client.query(`update public.appointments set pii_iv = null where email = 'person5@example.com'`);
    await client.query(
      `update public.appointments set e164_encrypted = null where email = 'person6@example.com'`,
    );
    expect(sum(await batches(100), 'encrypted')).toBe(2);
    expect(await verifyAll()).toBe(20);
  });

  test('refuses to start with another key than the caller has', async () => {
    await seedAppointments(client, 20);
    await expect(batch(10, client, keyCheckValue(Buffer.alloc(32, 9)))).rejects.toMatchObject({
      code: 'ER003',
    });
    expect(await count('pii_iv is not null')).toBe(0);
    expect(await batch(10, client, keyCheckValue(testKey.key))).toMatchObject({ encrypted: 10 });
  });

  test('refuses to start without a key, and with a damaged one', async () => {
    await seedAppointments(client, 20);
    await client.query("update encryption_rollout.key_material set key = decode(repeat('ab', 32), 'hex')");
    await expect(batch(10)).rejects.toMatchObject({ code: 'ER003' });
    await client.query('delete from encryption_rollout.key_material');
    await expect(batch(10)).rejects.toMatchObject({ code: 'ER004' });
    expect(await count('pii_iv is not null')).toBe(0);
  });

  test('refuses a target that it does not know, and a batch of nothing', async () => {
    await expect(
      client.query("select * from encryption_rollout.encrypt_batch('public.nothing', 10)"),
    ).rejects.toMatchObject({ code: 'ER007', message: expect.stringContaining('public.appointments') });
    await expect(batch(0)).rejects.toMatchObject({ code: '22023' });
  });

  test('is undone by a rollback, cursor and all', async () => {
    await seedAppointments(client, 100);
    await client.query('begin');
    await batch(50);
    await client.query('rollback');
    expect(await count('pii_iv is not null')).toBe(0);
    expect(sum(await batches(100), 'encrypted')).toBe(95);
  });
});

describe('locked rows', () => {
  test('are skipped without waiting, keep the walk from ending, and are found later', async () => {
    await seedAppointments(client, 200);
    const other = await database.connect();
    await other.query('begin');
    const locked = await other.query(
      'select id from public.appointments where email is not null limit 7 for update',
    );
    await client.query("set lock_timeout = '1ms'");
    const first = [await batch(100), await batch(200), await batch(200), await batch(200)];
    expect(sum(first, 'encrypted')).toBe(190 - 7);
    expect(first.every(({ skipped }) => skipped === 0)).toBe(false);
    expect(first.some(({ exhausted }) => exhausted)).toBe(false);

    await other.query('rollback');
    expect(sum(await batches(100), 'encrypted')).toBe(7);
    expect(await count(`${unencrypted} and id = any('{${locked.rows.map(({ id }) => id).join()}}')`)).toBe(0);
    expect(await verifyAll()).toBe(200);
  });

  test('do not keep batch_encrypt_appointments from returning', async () => {
    await seedAppointments(client, 100);
    const other = await database.connect();
    await other.query('begin');
    await other.query("select from public.appointments where first_name = 'Name7' for update");
    const { rows } = await client.query('select public.batch_encrypt_appointments() as n');
    expect(rows).toEqual([{ n: 94 }]);
    await other.query('rollback');
  });

  test('of a referring insert do not wait for a batch, nor a batch for it', async () => {
    await seedAppointments(client, 20);
    await client.query('create table public.reminders (appointment uuid references public.appointments)');
    const other = await database.connect();
    await other.query("set lock_timeout = '100ms'");
    await other.query('begin');
    await other.query('insert into public.reminders select id from public.appointments limit 1');
    await client.query('begin');
    expect(await batch(100)).toMatchObject({ encrypted: 19, skipped: 0 });
    await other.query('insert into public.reminders select id from public.appointments');
    await other.query('commit');
    await client.query('commit');
  });

  test('as a whole table are waited for no longer than the caller allows, and raised', async () => {
    await seedAppointments(client, 20);
    const other = await database.connect();
    await other.query('begin');
    await other.query('lock table public.appointments in share mode');
    await client.query("set lock_timeout = '50ms'");
    await expect(batch(10)).rejects.toMatchObject({ code: '55P03' });
    await other.query('rollback');
    expect((await client.query('select from public.encryption_errors')).rowCount).toBe(0);
  });
});

describe('concurrent batches', () => {
  test('of one target share the work: no row twice, none left', async () => {
    await seedAppointments(client, 2_000);
    const workers = await Promise.all(Array.from({ length: 4 }, () => database.connect()));
    const done = await Promise.all(
      workers.map(async (worker) => {
        let encrypted = 0;
        for (let n = 0; n < 10; n++) encrypted += (await batch(100, worker)).encrypted;
        return encrypted;
      }),
    );
    expect(done.reduce((a, b) => a + b)).toBe(1_900);
    expect(await verifyAll()).toBe(2_000);
  });

  test('while the application edits, inserts and deletes: nothing stale, nothing left', async () => {
    await seedAppointments(client, 1_000);
    const application = await database.connect();
    let stop = false;
    const traffic = (async () => {
      for (let n = 0; !stop; n++) {
        await application.query(
          `update public.appointments set email = 'edited' || $1 || '@example.com'
           where id = (select id from public.appointments order by random() limit 1)`,
          [n],
        );
        await seedAppointments(application, 3);
        await application.query(
          'delete from public.appointments where id in (select id from public.appointments order by random() limit 3)',
        );
      }
    })();
    for (let n = 0; n < 30; n++) await batch(50);
    stop = true;
    await traffic;
    await batches(500);
    expect(await count(unencrypted)).toBe(0);
    await verifyAll();
  });
});

describe('poison rows', () => {
  const poison = async (condition: string, body = `raise exception 'secret of %', new.email`) =>
    client.query(`
      create function public.poison() returns trigger language plpgsql as $$
      begin
        if ${condition} then ${body}; end if;
        return new;
      end $$;
      create trigger poison before update on public.appointments for each row execute function public.poison()`);
  const errors = async () => (await client.query('select * from public.encryption_errors order by id')).rows;

  test('are isolated, recorded without their data, passed over, and tried again when told', async () => {
    await seedAppointments(client, 1_000);
    await poison(`new.email in ('person33@example.com', 'person34@example.com', 'person777@example.com')`);
    const done = await batches(500);
    expect(sum(done, 'encrypted')).toBe(947);
    expect(sum(done, 'failed')).toBe(3);

    const recorded = await errors();
    expect(recorded).toHaveLength(3);
    for (const error of recorded)
      expect(error).toMatchObject({
        error_type: 'encryption',
        target: 'public.appointments',
        sqlstate: 'P0001',
        raised_by: 'poison',
      });
    expect(JSON.stringify(recorded)).not.toMatch(/example\.com|secret/);
    const keys = await client.query(
      'select id::text as key from public.appointments where pii_iv is null and email is not null order by email',
    );
    expect(recorded.map(({ row_key }) => row_key).sort()).toEqual(keys.rows.map(({ key }) => key).sort());

    expect(sum(await batches(500), 'failed')).toBe(0);
    expect(
      (
        await client.query(
          "select failed_rows::integer from encryption_rollout.health('public.appointments')",
        )
      ).rows,
    ).toEqual([{ failed_rows: 3 }]);

    await client.query('drop trigger poison on public.appointments');
    const forgotten = await client.query(
      "select encryption_rollout.forget_failed_rows('public.appointments')::integer as n",
    );
    expect(forgotten.rows).toEqual([{ n: 3 }]);
    expect(sum(await batches(500), 'encrypted')).toBe(3);
    expect(await verifyAll()).toBe(1_000);
  });

  test('by a constraint are recorded with its name', async () => {
    await seedAppointments(client, 50);
    await client.query(
      "alter table public.appointments add constraint no_ciphertext_please check (first_name <> 'Name7' or pii_iv is null)",
    );
    expect(sum(await batches(100), 'failed')).toBe(1);
    expect(await errors()).toMatchObject([{ sqlstate: '23514', raised_by: 'no_ciphertext_please' }]);
  });

  test('in numbers end the batch early, and the walk still ends', async () => {
    await seedAppointments(client, 600);
    await poison('true');
    const done = await batches(500);
    expect(done.every(({ failed }) => failed <= 100)).toBe(true);
    expect(sum(done, 'failed')).toBe(570);
    expect(sum(done, 'encrypted')).toBe(0);
  });

  test.each([
    ['lock_not_available', '55P03'],
    ['deadlock_detected', '40P01'],
    ['serialization_failure', '40001'],
    ['query_canceled', '57014'],
    ['disk_full', '53100'],
    ['read_only_sql_transaction', '25006'],
    ['out_of_memory', '53200'],
  ])('are not what %s is about: that is raised', async (condition, code) => {
    await seedAppointments(client, 50);
    await poison(`new.email = 'person7@example.com'`, `raise ${condition}`);
    await expect(batch(100)).rejects.toMatchObject({ code });
    expect(await errors()).toEqual([]);
    expect(await count('pii_iv is not null')).toBe(0);
  });
});

describe('batch_encrypt_appointments', () => {
  const byHand = async (argument: string) =>
    (await client.query(`select public.batch_encrypt_appointments(${argument}) as n`)).rows[0].n;

  test('encrypts up to n rows, priority rows first, and returns the number', async () => {
    await seedAppointments(client, 1_000);
    expect(await byHand('100')).toBe(100);
    expect(await count('pii_iv is not null and is_vip')).toBe(100);
    expect(await byHand('500')).toBe(500);
    expect(await byHand('1000')).toBe(350);
    expect(await byHand('10')).toBe(0);
    expect(await byHand('0')).toBe(0);
    expect(await verifyAll()).toBe(1_000);
  });

  test('with null, or nothing, encrypts all', async () => {
    await seedAppointments(client, 6_000);
    expect(await byHand('null')).toBe(5_700);
    await seedAppointments(client, 20);
    expect(await byHand('')).toBe(19);
  });

  test('lets the triggers of the application find their own schema', async () => {
    await seedAppointments(client, 20);
    await client.query(`
      create table public.touched (id uuid);
      create function public.touch() returns trigger language plpgsql as
        $$ begin insert into touched values (new.id); return new; end $$;
      create trigger touch after update on public.appointments for each row execute function public.touch()`);
    expect(await byHand('')).toBe(19);
    expect((await client.query('select from public.touched')).rowCount).toBe(19);
  });
});

test('an application that writes a row only as it has read it is told once of a batch: by xmin, or by REPEATABLE READ', async () => {
  await seedAppointments(client, 20);
  const app = await database.connect();
  const read = async () =>
    (await app.query("select id, xmin::text from public.appointments where email = 'person3@example.com'"))
      .rows[0];
  const save = async ({ id, xmin }: { id: string; xmin: string }) =>
    (
      await app.query("update public.appointments set note = 'saved' where id = $1 and xmin::text = $2", [
        id,
        xmin,
      ])
    ).rowCount;
  const before = await read();
  await app.query('begin isolation level repeatable read');
  await read();
  await batch(100);
  await expect(
    app.query("update public.appointments set note = 'saved' where id = $1", [before.id]),
  ).rejects.toMatchObject({ code: '40001' });
  await app.query('rollback');
  expect(await save(before)).toBe(0);
  expect(await save(await read())).toBe(1);
  // What is sealed is not written again.
  const after = await read();
  await batch(100);
  expect(await read()).toEqual(after);
});

test('a changed priority begins the walk again, so that its rows come first', async () => {
  await seedAppointments(client, 200);
  await batch(50);
  const registration = { ...appointments, priority: "first_name like 'Zoë%' -- unicode" };
  await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(registration)]);
  await batch(10);
  expect(await count("pii_iv is null and first_name like 'Zoë%'")).toBe(0);
});

test.each([
  ['an index', "note between '01000' and '01099'", 'create index on public.appointments (note)'],
  [
    'a join',
    'exists (select from public.firsts as f where f.note = appointments.note)',
    "create table public.firsts as select lpad(n::text, 5, '0') as note from generate_series(1000, 1099) as n; create index on public.appointments (note)",
  ],
])(
  'priority rows come first, and none is passed by, where %s would find them in another order',
  async (_, priority, make) => {
    await seedAppointments(client, 2_000);
    await client.query(
      "update public.appointments set note = lpad((2000 - substring(email from '[0-9]+')::integer)::text, 5, '0') where email is not null",
    );
    await client.query(make);
    await client.query('vacuum analyze');
    await client.query('select encryption_rollout.register_target($1)', [
      JSON.stringify({ ...appointments, priority }),
    ]);
    const isFirst = "note between '01000' and '01099' and coalesce(email, e164, first_name) is not null";
    const first = await count(isFirst);
    for (let n = 0; n < first; n += 10) await batch(10);
    expect(await count(`pii_iv is not null and not (${isFirst})`)).toBe((10 - (first % 10)) % 10);
    expect(await count(`pii_iv is null and ${isFirst}`)).toBe(0);
  },
);

test.each([
  ['in storage order', '{"(0,3)","(0,7)","(1,2)"}', true, '(1,2)'],
  ['in another, of which some were written', '{"(0,7)","(1,2)","(0,3)"}', true, '(0,1)'],
  ['in another, all of them locked', '{"(0,7)","(1,2)","(0,3)"}', false, '(1,2)'],
])('a search whose rows come %s goes on at the right place', async (_, found, cameOfIt, place) => {
  const { rows } = await client.query(
    "select encryption_rollout.place_after($1::tid[], '(0,1)', $2)::text as place",
    [found, cameOfIt],
  );
  expect(rows).toEqual([{ place }]);
});

test("a defect of ours is no row's fault, and one of the application's trigger is", async () => {
  await seedAppointments(client, 20);
  await client.query('alter function encryption_rollout.encrypt_aes_cbc(bytea, bytea, bytea) rename to gone');
  await expect(batch(20)).rejects.toMatchObject({ code: '42883' });
  expect((await client.query('select from encryption_rollout.failed_rows')).rowCount).toBe(0);
  await client.query('alter function encryption_rollout.gone(bytea, bytea, bytea) rename to encrypt_aes_cbc');
  await client.query(`
    create function public.broken() returns trigger language plpgsql as $$ begin
      if new.email = 'person3@example.com' then perform no_such_function(); end if; return new; end $$;
    create trigger broken before update on public.appointments for each row execute function public.broken()`);
  expect(sum(await batches(20), 'failed')).toBe(1);
  expect((await client.query('select sqlstate from encryption_rollout.failed_rows')).rows).toEqual([
    { sqlstate: '42883' },
  ]);
});
