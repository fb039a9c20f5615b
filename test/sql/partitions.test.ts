/** A partitioned table is one target, whatever partitions it has at the moment. */
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, pastTriggers, type TestDatabase, testKey } from '../support/database.ts';

const name = 'crm.people';
const people = {
  schema: 'crm',
  table: 'people',
  key: ['id'],
  columns: ['email', 'phone'],
  trigger: 'encrypt_people',
  createdAt: 'created_at',
};

let database: TestDatabase;
let client: pg.Client;
/** Three leaves below the root, two of them in a partition of their own: 0–99, and 100–199 by the remainder of the hash. */
beforeEach(async () => {
  database = await freshDatabase({ template: 'engine' });
  client = database.client;
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await client.query(`
    create schema crm;
    create table crm.people (
      id integer primary key, email text, phone text, note text, created_at timestamptz default now()
    ) partition by range (id);
    create table crm.people_0 partition of crm.people for values from (0) to (100);
    create table crm.people_1 partition of crm.people for values from (100) to (200) partition by hash (id);
    create table crm.people_1a partition of crm.people_1 for values with (modulus 2, remainder 0);
    create table crm.people_1b partition of crm.people_1 for values with (modulus 2, remainder 1);
    insert into crm.people select n, 'person' || n || '@example.com', '+1555' || n, 'note ' || n from generate_series(0, 199) as n`);
});
afterEach(() => database.drop());

const rowsOf = async (sql: string, parameters: unknown[] = []) => (await client.query(sql, parameters)).rows;
const one = async (sql: string, parameters: unknown[] = []) =>
  Object.values((await rowsOf(sql, parameters))[0])[0];
const register = (more: object = {}) =>
  client.query('select encryption_rollout.register_target($1)', [JSON.stringify({ ...people, ...more })]);
const batch = async (limit: number) =>
  (await rowsOf('select * from encryption_rollout.encrypt_batch($1, $2)', [name, limit]))[0];
const encryptAll = () => one('select public.batch_encrypt_people()');
const setTrigger = (enabled: boolean) =>
  one('select encryption_rollout.set_trigger($1, $2)', [name, enabled]);
const health = async () => (await rowsOf('select * from encryption_rollout.health($1)', [name]))[0];
const count = async (condition: string, table = name) =>
  Number(await one(`select count(*) from ${table} where ${condition}`));
const plaintexts = () =>
  one(`select md5(string_agg(concat_ws(',', id, email, phone, note), ';' order by id)) from ${name}`);
/** In which leaves a trigger is, and in which state. */
const triggers = async (trigger: string) =>
  Object.fromEntries(
    (
      await rowsOf(
        `select c.relname as leaf, t.tgenabled as state from pg_trigger t join pg_class c on c.oid = t.tgrelid
         where t.tgname = $1 order by 1`,
        [trigger],
      )
    ).map(({ leaf, state }) => [leaf, state]),
  );
const unsealed = 'pii_iv is null or email_encrypted is null';
const sealed = 'pii_iv is not null or email_encrypted is not null';

/** What the independent checker finds, of a table that is to be completely encrypted or not; nothing, as a rule. */
async function violations(complete: boolean): Promise<string[]> {
  const [found] = await verify(client, { targets: [name], complete });
  return (
    found?.results.flatMap((each) =>
      each.first.map(({ subject, detail }) => `${each.invariant} ${subject}: ${detail}`),
    ) ?? ['none']
  );
}

test('whoever asks for another lap waits for the batch under way, and neither ends the other', async () => {
  await register();
  // A cursor that was updated lies behind the others: an update that reads the table as it lies locks it last.
  await batch(1);
  await client.query(`
    update encryption_rollout.cursors set laps = laps where leaf = (select min(leaf) from encryption_rollout.cursors);
    insert into encryption_rollout.failed_rows (target, row_key, sqlstate) values ('${name}', '{"id": 7}', '23514')`);
  const other = await database.connect();
  await other.query('set enable_indexscan = off; set enable_bitmapscan = off');
  await client.query('begin');
  await batch(1);
  const { pid } = (await other.query('select pg_backend_pid() as pid')).rows[0];
  const asking = other.query('select encryption_rollout.forget_failed_rows($1)', [name]);
  await expect
    .poll(() => one(`select wait_event_type from pg_stat_activity where pid = $1`, [pid]))
    .toBe('Lock');
  await batch(200);
  await client.query('commit');
  await asking;
  expect(await one('select bool_and(dirty) from encryption_rollout.cursors')).toBe(true);
});

describe('registering', () => {
  test('adds columns and triggers to every partition, also to those that come later', async () => {
    await register();
    const everywhere = (state: string, ...more: string[]) =>
      Object.fromEntries(
        ['people', 'people_0', 'people_1', 'people_1a', 'people_1b', ...more]
          .sort()
          .map((leaf) => [leaf, state]),
      );
    expect(await triggers('encrypt_people')).toEqual(everywhere('D'));
    await client.query(`
      create table crm.people_2 partition of crm.people for values from (200) to (300);
      create table crm.people_3 (like crm.people including all);
      alter table crm.people attach partition crm.people_3 for values from (300) to (400)`);
    expect(await triggers('encrypt_people')).toEqual(everywhere('D', 'people_2', 'people_3'));
    expect(await triggers('zz_clear_stale_ciphertext')).toEqual(everywhere('O', 'people_2', 'people_3'));
    expect(await setTrigger(true)).toBe(true);
    expect(await setTrigger(true)).toBe(false);
    expect(await triggers('encrypt_people')).toEqual(everywhere('O', 'people_2', 'people_3'));
    await client.query('create table crm.people_4 partition of crm.people default');
    expect(await triggers('encrypt_people')).toEqual(everywhere('O', 'people_2', 'people_3', 'people_4'));
    // Called again it changes nothing.
    await register();
    expect(await health()).toMatchObject({ trigger_enabled: true, guard_enabled: true });
    expect(await setTrigger(false)).toBe(true);
    expect(await triggers('encrypt_people')).toEqual(everywhere('D', 'people_2', 'people_3', 'people_4'));
    // One that is detached takes none along.
    await client.query('alter table crm.people detach partition crm.people_2');
    expect(await triggers('encrypt_people')).toEqual(everywhere('D', 'people_3', 'people_4'));
  });

  test('is refused for a partition: its rows may move to others', async () => {
    for (const [table, parent] of [
      ['people_0', 'crm.people'],
      ['people_1', 'crm.people'],
      ['people_1a', 'crm.people_1'],
    ])
      await expect(register({ table })).rejects.toMatchObject({
        code: 'ER002',
        message: `crm.${table} found to be a partition of ${parent}, an ordinary or partitioned table expected`,
        hint: expect.stringContaining('Name the partitioned table that it belongs to'),
      });
  });

  test('is refused for a table with tables that inherit from it in the old way', async () => {
    await client.query(
      'create table crm.staff (id integer primary key, email text, phone text); create table crm.interns () inherits (crm.staff)',
    );
    const refused = register({ table: 'staff', createdAt: null });
    await expect(refused).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringContaining('a table with inheriting tables'),
      hint: expect.stringContaining('it hands them no triggers'),
    });
    await client.query('drop table crm.interns');
    await register({ table: 'staff', createdAt: null });
  });

  test('is refused, with the partition named, where one belongs to a stranger or has a trigger of our name', async () => {
    await client.query(`
      create function crm.other() returns trigger language plpgsql as 'begin return new; end';
      create trigger encrypt_people before insert on crm.people_1b for each row execute function crm.other()`);
    await expect(register()).rejects.toMatchObject({
      code: 'ER002',
      message: expect.stringContaining('trigger encrypt_people of table crm.people_1b calls'),
    });
  });

  test('cannot meet a foreign table: its unique key keeps them out', async () => {
    await client.query(
      'create extension postgres_fdw; create server elsewhere foreign data wrapper postgres_fdw',
    );
    await expect(
      client.query(
        'create foreign table crm.far partition of crm.people for values from (500) to (600) server elsewhere',
      ),
    ).rejects.toMatchObject({ code: '42809' });
    await client.query(
      'create foreign table crm.far (id integer not null, email text, phone text, note text, created_at timestamptz) server elsewhere',
    );
    await expect(
      client.query('alter table crm.people attach partition crm.far for values from (500) to (600)'),
    ).rejects.toMatchObject({ code: '42809' });
  });
});

describe('batches', () => {
  beforeEach(() => register());

  test('encrypt the rows of all leaves, which open under the name of the table', async () => {
    const before = await plaintexts();
    expect(await encryptAll()).toBe(200);
    expect(await violations(false)).toEqual([]);
    expect(await count(unsealed)).toBe(0);
    expect(await plaintexts()).toBe(before);
    const opened = await one(
      'select public.decrypt_people_pii_with_iv_logged(email_encrypted, pii_iv, id) from crm.people_1a order by id limit 1',
    );
    expect(opened).toMatch(/^person1\d\d@example\.com$/);
    expect(await health()).toMatchObject({
      total_rows: '200',
      encrypted_rows: '200',
      health_status: 'HEALTHY',
    });
  });

  test('keep their place in each leaf, and end when a lap through all has found nothing', async () => {
    const steps = [];
    for (;;) {
      const { encrypted, exhausted } = await batch(60);
      steps.push(encrypted);
      if (exhausted) break;
    }
    expect(steps.reduce((sum, n) => sum + n, 0)).toBe(200);
    // The lap that encrypted ends short of 60, and the next one finds nothing.
    expect(steps.slice(-1)).toEqual([0]);
    expect(
      await rowsOf(
        'select leaf::regclass::text, laps::int, dirty from encryption_rollout.cursors order by 1',
      ),
    ).toEqual(
      ['crm.people_0', 'crm.people_1a', 'crm.people_1b'].map((leaf) => ({ leaf, laps: 2, dirty: false })),
    );
  });

  test('do not end while a leaf has rows that were locked', async () => {
    await encryptAll();
    await client.query("update crm.people set email = 'new@example.com' where id = 7");
    const other = await database.connect();
    await other.query('begin; select from crm.people where id = 7 for update');
    expect(await batch(100)).toMatchObject({ encrypted: 0, skipped: 1, exhausted: false });
    await other.query('rollback');
    expect(await batch(100)).toMatchObject({ encrypted: 1, exhausted: false });
    expect(await batch(100)).toMatchObject({ encrypted: 0, exhausted: true });
  });

  test('take priority rows of every leaf first', async () => {
    await register({ priority: 'id % 10 = 3' });
    expect(await batch(20)).toMatchObject({ encrypted: 20 });
    expect(await count(`id % 10 = 3 and not (${unsealed})`)).toBe(20);
    // Also those of a partition that comes later.
    await client.query(`
      create table crm.people_2 partition of crm.people for values from (200) to (300);
      insert into crm.people select n, 'x' from generate_series(200, 219) as n`);
    expect(await batch(2)).toMatchObject({ encrypted: 2 });
    expect(await rowsOf(`select id from crm.people_2 where pii_iv is not null order by 1`)).toEqual([
      { id: 203 },
      { id: 213 },
    ]);
  });

  test('follow partitions that are made, attached, detached and dropped between them', async () => {
    expect(await batch(30)).toMatchObject({ encrypted: 30, exhausted: false });
    // Attached with rows in plain text, detached with half of them encrypted, made and filled, dropped.
    await client.query(`
      create table crm.people_2 (like crm.people including all);
      insert into crm.people_2 select n, 'x' || n, 'y' from generate_series(200, 249) as n;
      alter table crm.people attach partition crm.people_2 for values from (200) to (300);
      alter table crm.people detach partition crm.people_0;
      create table crm.people_3 partition of crm.people for values from (300) to (400);
      insert into crm.people select n, 'z' || n from generate_series(300, 309) as n`);
    const detached = await count(sealed, 'crm.people_0');
    expect(detached).toBe(30);
    expect(await batch(30)).toMatchObject({ encrypted: 30, exhausted: false });
    await client.query('drop table crm.people_1a');
    const left = await count(unsealed);
    expect(await encryptAll()).toBe(left);
    expect(await violations(false)).toEqual([]);
    expect(await count('true')).toBe((await count('true', 'crm.people_1b')) + 50 + 10);
    // What is none of the table's any more is left alone.
    expect(await count(sealed, 'crm.people_0')).toBe(detached);
    // And comes back with what it has.
    await client.query('alter table crm.people attach partition crm.people_0 for values from (0) to (100)');
    expect(await health()).toMatchObject({ unencrypted_rows: '70', health_status: 'IN_PROGRESS' });
    expect(await encryptAll()).toBe(70);
    expect(await violations(false)).toEqual([]);
  });

  test('wait for a partition that is being attached no longer than the caller allows, and see it afterwards', async () => {
    await encryptAll();
    await client.query(
      "create table crm.people_2 (like crm.people including all); insert into crm.people_2 values (200, 'x', 'y')",
    );
    const other = await database.connect();
    await other.query(
      'begin; alter table crm.people attach partition crm.people_2 for values from (200) to (300)',
    );
    expect(await batch(10)).toMatchObject({ encrypted: 0, exhausted: true });
    await other.query('commit');
    expect(await batch(10)).toMatchObject({ encrypted: 1, exhausted: false });
  });

  test('go on beside a partition that is dropped under them', async () => {
    const other = await database.connect();
    await other.query('begin; drop table crm.people_0');
    await client.query("set lock_timeout = '100ms'");
    await expect(batch(10)).rejects.toMatchObject({ code: '55P03' });
    await client.query('set lock_timeout = 0');
    // It waits for the lock, and then finds that the leaf is gone.
    const waiting = batch(10);
    const waiters =
      'select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))';
    await expect.poll(async () => (await other.query(waiters)).rowCount, { interval: 10 }).toBeGreaterThan(0);
    await other.query('commit');
    expect(await waiting).toMatchObject({ encrypted: 10 });
    await encryptAll();
    expect(await count(unsealed)).toBe(0);
  });

  test('know columns by their names: in a partition that was attached they may come in another order', async () => {
    await client.query(`
      create table crm.people_2 (gone text, pii_iv bytea, phone text, phone_encrypted bytea, created_at timestamptz default now(),
        email_encrypted bytea, note text, id integer primary key, email text);
      alter table crm.people_2 drop column gone;
      insert into crm.people_2 (id, email, phone) select n, 'x' || n || '@example.com', 'y' || n from generate_series(200, 209) as n;
      alter table crm.people attach partition crm.people_2 for values from (200) to (300)`);
    expect(await encryptAll()).toBe(210);
    await setTrigger(true);
    await client.query(`
      update crm.people set email = 'z' || id where id >= 205;
      insert into crm.people (id, email) values (250, 'new@example.com')`);
    expect(await violations(true)).toEqual([]);
    // Its name is another now, in all of them.
    await setTrigger(false);
    await client.query(`
      alter table crm.people rename column email to mail;
      update crm.people set mail = 'w' || id where id in (1, 201)`);
    expect(await count('id in (1, 201) and pii_iv is not null')).toBe(0);
  });

  test('say which role they want to be a member of when a partition belongs to somebody else', async () => {
    await encryptAll();
    await client.query(`
      create role partition_owner; create role partition_engine; grant partition_engine to current_user;
      create table crm.people_2 (like crm.people including all);
      alter table crm.people attach partition crm.people_2 for values from (200) to (300);
      alter table crm.people_2 owner to partition_owner;
      grant usage on schema crm, encryption_rollout to partition_engine;
      grant execute on all functions in schema encryption_rollout to partition_engine;
      grant select, update, delete, insert on all tables in schema encryption_rollout to partition_engine`);
    try {
      await client.query('set role partition_engine');
      await expect(
        client.query(
          "select encryption_rollout.hold_leaf(t, 'crm.people_2'::regclass) from encryption_rollout.targets as t",
        ),
      ).rejects.toMatchObject({
        code: 'ER001',
        message: expect.stringContaining(
          'partition crm.people_2 of table crm.people found to belong to role partition_owner',
        ),
        hint: 'grant partition_owner to partition_engine;',
      });
    } finally {
      await client.query(
        'reset role; drop owned by partition_owner, partition_engine cascade; drop role partition_owner, partition_engine',
      );
    }
  });

  test('do not take a table that is not there for one without partitions', async () => {
    await encryptAll();
    await client.query('alter table crm.people rename to persons');
    expect(await batch(10)).toMatchObject({ encrypted: 0, exhausted: true });
    await client.query('drop table crm.persons');
    await expect(batch(10)).rejects.toMatchObject({ code: 'ER013' });
  });

  test('of a table without partitions are done at once', async () => {
    await client.query('drop table crm.people_0, crm.people_1');
    expect(await batch(10)).toMatchObject({ encrypted: 0, exhausted: true });
    expect(await health()).toMatchObject({ total_rows: '0', health_status: 'HEALTHY' });
  });
});

describe('a row that moves to another partition', () => {
  beforeEach(async () => {
    await client.query('create table crm.people_2 partition of crm.people for values from (200) to (300)');
    await register();
  });
  const move = () =>
    client.query("update crm.people set id = id + 200, note = 'moved' where id in (1, 2, 3)");
  const moved = () => rowsOf('select id, email, pii_iv is not null as sealed from crm.people_2 order by id');
  const expected = (isSealed: boolean) =>
    [201, 202, 203].map((id) => ({ id, email: `person${id - 200}@example.com`, sealed: isSealed }));

  test('loses its ciphertext while the trigger is off, and is found by a batch', async () => {
    await encryptAll();
    await move();
    expect(await moved()).toEqual(expected(false));
    expect(await violations(false)).toEqual([]);
    expect(await encryptAll()).toBe(3);
    expect(await violations(false)).toEqual([]);
  });

  test('is sealed where it arrives while the trigger is on', async () => {
    await encryptAll();
    await setTrigger(true);
    await move();
    expect(await moved()).toEqual(expected(true));
    expect(await violations(true)).toEqual([]);
  });

  test('never arrives with stale ciphertext where the trigger is on in one partition alone', async () => {
    await encryptAll();
    await client.query('alter table crm.people_0 enable trigger encrypt_people');
    await move();
    expect(await moved()).toEqual(expected(false));
    await client.query(
      'alter table crm.people_0 disable trigger encrypt_people; alter table crm.people_2 enable trigger encrypt_people',
    );
    await client.query('update crm.people set id = id + 200 where id in (4, 5)');
    expect(await rowsOf('select id from crm.people_2 where pii_iv is not null order by 1')).toEqual([
      { id: 204 },
      { id: 205 },
    ]);
    expect(await violations(false)).toEqual([]);
  });
});

describe('a partition that comes back', () => {
  const detach = `
    alter table crm.people detach partition crm.people_0;
    alter table crm.people detach partition crm.people_1`;
  const attach = `
    alter table crm.people attach partition crm.people_0 for values from (0) to (100);
    alter table crm.people attach partition crm.people_1 for values from (100) to (200)`;
  /** As nobody guards it: plaintext, key, ciphertext of other rows, rows that are copied. */
  const edits = `
    update crm.people_0 set email = 'edited' where id = 1;
    update crm.people_0 set id = 99, note = 'moved' where id = 2;
    update crm.people_0 as t set email_encrypted = o.email_encrypted from crm.people_0 as o where t.id = 3 and o.id = 4;
    update crm.people_0 set phone = 'x' where id = 5;
    insert into crm.people_0 select 2, email, phone, note, created_at, pii_iv, email_encrypted, phone_encrypted from crm.people_0 where id = 7;
    update crm.people_1 set email = 'edited' where id in (100, 101, 102)`;
  const lookAgain = async (limit = 100) =>
    (await rowsOf('select * from encryption_rollout.look_again($1, $2)', [name, limit]))[0];
  const ivs = async () =>
    new Map((await rowsOf(`select id, pii_iv::text as iv from ${name}`)).map(({ id, iv }) => [id, iv]));

  beforeEach(async () => {
    // 99 is free for the row that moves.
    await client.query('delete from crm.people where id = 99');
    await register();
    await encryptAll();
  });

  test('has what is stale in it sealed anew by the next batches, and the rest left as it is', async () => {
    const before = await ivs();
    await client.query(`${detach}; ${edits}; ${attach}`);
    const plain = await plaintexts();
    let encrypted = 0;
    for (let isOver = false; !isOver; ) {
      const { exhausted, ...step } = await batch(4);
      encrypted += step.encrypted;
      isOver = exhausted;
    }
    expect(await plaintexts()).toBe(plain);
    const after = await ivs();
    const anew = [...after.keys()].filter((id) => after.get(id) !== before.get(id)).sort((a, b) => a - b);
    expect(anew).toEqual([1, 2, 3, 5, 99, 100, 101, 102]);
    expect(encrypted).toBe(anew.length);
    expect(await violations(false)).toEqual([]);
    // Once is enough.
    expect(await lookAgain()).toEqual({ encrypted: 0, failed: 0, skipped: 0, exhausted: true });
    expect(await rowsOf('select from encryption_rollout.unknown_leaves($1)', [await target()])).toEqual([]);
  });

  test('waits for a row that somebody has locked, and keeps no batch from other rows', async () => {
    await client.query(`${detach}; ${edits}; ${attach}`);
    const other = await database.connect();
    await other.query('begin; select from crm.people where id = 1 for update');
    await client.query('update crm.people set pii_iv = null where id = 150');
    for (let n = 0; n < 10; n++) await batch(100);
    expect(await count(unsealed)).toBe(0);
    expect(await rowsOf('select from encryption_rollout.unknown_leaves($1)', [await target()])).not.toEqual(
      [],
    );
    await other.query('commit');
    await encryptAll();
    expect(await violations(false)).toEqual([]);
  });

  test('is looked at from its start when it went away once more meanwhile', async () => {
    await client.query(`${detach}; ${edits}; ${attach}`);
    expect(await lookAgain(2)).toMatchObject({ encrypted: 2, exhausted: false });
    await client.query(`${detach}; update crm.people_0 set email = 'again' where id < 99; ${attach}`);
    for (let n = 0; !(await lookAgain()).exhausted; n++) expect(n).toBeLessThan(10);
    expect(await violations(false)).toEqual([]);
  });

  test('keeps ciphertext of a value that was taken away meanwhile, for a person to decide', async () => {
    await client.query(`${detach}; update crm.people_0 set phone = null where id = 6; ${attach}`);
    await encryptAll();
    expect(await health()).toMatchObject({ orphaned_rows: '1' });
    await client.query('update crm.people set phone_encrypted = null where id = 6');
    await encryptAll();
    expect(await violations(false)).toEqual([]);
  });

  test('is looked at once more when rows of it that failed are tried again', async () => {
    await client.query(`
      ${detach}; ${edits}; ${attach};
      create function crm.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
      create trigger refuse before update on crm.people_0 for each row when (new.id = 1) execute function crm.refuse()`);
    await encryptAll();
    expect(await rowsOf('select row_key from encryption_rollout.failed_rows')).toHaveLength(1);
    await client.query('drop trigger refuse on crm.people_0');
    await one('select encryption_rollout.forget_failed_rows($1)', [name]);
    await encryptAll();
    expect(await violations(false)).toEqual([]);
  });

  test('is told of where the table is complete, until it was looked at', async () => {
    await setTrigger(true);
    await client.query(`
      insert into encryption_rollout.runs (id, status, execution) values ('00000000-0000-4000-8000-000000000000', 'COMPLETED', 'e');
      insert into encryption_rollout.run_targets (run_id, target, attempt, completed_at)
      values ('00000000-0000-4000-8000-000000000000', '${name}', 1, now())`);
    const drift = () => rowsOf('select what, found from encryption_rollout.drift($1)', [name]);
    await client.query(
      `${detach}; ${edits}; ${attach}; create table crm.people_9 partition of crm.people default`,
    );
    expect(await drift()).toContainEqual({
      what: 'partition crm.people_0 of crm.people',
      found: 'rows that were written without the guard',
    });
    // Of one that is empty there is nothing to tell.
    expect(await drift()).not.toContainEqual(
      expect.objectContaining({ what: 'partition crm.people_9 of crm.people' }),
    );
    for (let n = 0; !(await lookAgain()).exhausted; n++) expect(n).toBeLessThan(10);
    expect(await drift()).toEqual([]);
    await client.query('delete from encryption_rollout.run_targets; delete from encryption_rollout.runs');
    expect(await violations(true)).toEqual([]);
  });

  test('so are rows that were written while the guard was gone', async () => {
    await client.query(`
      drop trigger zz_clear_stale_ciphertext on crm.people;
      update crm.people set email = 'edited' where id % 10 = 0`);
    await register();
    await encryptAll();
    expect(await violations(false)).toEqual([]);
  });

  test('so are all rows when a migration has written other values past the triggers, and a person has them looked at', async () => {
    await client.query("alter table crm.people alter phone type text using phone || ' (old)'");
    await client.query('delete from encryption_rollout.leaves where target = $1', [name]);
    await encryptAll();
    expect(await violations(false)).toEqual([]);
  });

  test.each([
    ['a person follows it', () => one('select encryption_rollout.follow($1)', [name])],
    ['an execution registers it again', () => register()],
  ])(
    'so are all rows when a column has got another type, by which its values are other texts, and %s',
    async (_, notice) => {
      await client.query('alter table crm.people alter phone type json using to_json(phone)');
      await notice();
      await encryptAll();
      expect(await violations(false)).toEqual([]);
      await setTrigger(true);
      await client.query(`update crm.people set phone = '{"a": 1}' where id = 1`);
      expect(await violations(true)).toEqual([]);
    },
  );

  async function target() {
    return one('select t from encryption_rollout.targets as t where name = $1', [name]);
  }
});

describe('triggers of a single partition', () => {
  beforeEach(async () => {
    await register();
    await encryptAll();
    await setTrigger(true);
  });

  test('that is off there is off, and is switched on again everywhere', async () => {
    await client.query('alter table crm.people_1a disable trigger encrypt_people');
    expect(await health()).toMatchObject({ trigger_enabled: false, guard_enabled: true });
    expect(await violations(true)).toEqual([
      expect.stringContaining('trigger encrypt_people of crm.people_1a: disabled'),
    ]);
    expect(await setTrigger(true)).toBe(true);
    expect(await health()).toMatchObject({ trigger_enabled: true });
    // Above the leaves it decides about what new ones get.
    await client.query('alter table only crm.people_1 disable trigger encrypt_people');
    expect(await health()).toMatchObject({ trigger_enabled: false });
    expect(await setTrigger(true)).toBe(true);
    expect(await triggers('encrypt_people')).toMatchObject({ people: 'O', people_1: 'O', people_1a: 'O' });
  });

  test('that is on there alone is switched off, and keeps the table from being cleared', async () => {
    await setTrigger(false);
    await client.query('alter table crm.people_1b enable trigger encrypt_people');
    await expect(
      client.query('select * from encryption_rollout.clear_batch($1, 10)', [name]),
    ).rejects.toMatchObject({ code: 'ER011' });
    expect(await setTrigger(false)).toBe(true);
    expect(await triggers('encrypt_people')).toMatchObject({ people_1b: 'D' });
  });

  test('that is the guard and is off is critical', async () => {
    await client.query('alter table crm.people_1b disable trigger zz_clear_stale_ciphertext');
    expect(await health()).toMatchObject({ guard_enabled: false, health_status: 'CRITICAL' });
  });

  test('that a stranger may create, or has made, are found; copies are told once', async () => {
    await client.query(`
      create role ${'partition_stranger'};
      grant trigger on crm.people_1a to partition_stranger;
      grant create, usage on schema crm to partition_stranger;
      set role partition_stranger;
      create function crm.other() returns trigger language plpgsql as 'begin return new; end';
      reset role;
      create trigger theirs before insert on crm.people for each row execute function crm.other();
      create trigger single before insert on crm.people_0 for each row execute function crm.other()`);
    try {
      expect(
        (await rowsOf('select finding from encryption_rollout.foreign_code($1) order by 1', [name])).map(
          ({ finding }) => finding,
        ),
      ).toEqual([
        'partition_stranger may create triggers on crm.people_1a',
        'trigger single of crm.people_0 calls crm.other(), which belongs to partition_stranger',
        'trigger theirs of crm.people calls crm.other(), which belongs to partition_stranger',
      ]);
    } finally {
      await client.query('drop owned by partition_stranger cascade; drop role partition_stranger');
    }
  });
});

test('the audit reads every row once, in the order of the key, and the sample takes from all leaves', async () => {
  await register();
  await encryptAll();
  const audited: number[] = [];
  let after: string[] | null = null;
  for (;;) {
    const rows = await rowsOf('select row_key from encryption_rollout.audit_rows($1, $2, 33)', [name, after]);
    if (rows.length === 0) break;
    audited.push(...rows.map(({ row_key }) => Number(row_key)));
    after = [rows[rows.length - 1].row_key];
  }
  expect(audited).toEqual(Array.from({ length: 200 }, (_, n) => n));
  expect(await one('select count(*)::int from encryption_rollout.sample_rows($1, 1000)', [name])).toBe(200);
  expect(
    await one("select new_records::int from encryption_rollout.new_rows($1, now() - interval '1 hour')", [
      name,
    ]),
  ).toBe(200);
});

test('a key of the identity and the time, as tables that are partitioned by time have it', async () => {
  await client.query(`
    create table crm.visits (id integer, email text, visited_at timestamptz, primary key (id, visited_at)) partition by range (visited_at);
    create table crm.visits_1 partition of crm.visits for values from ('2026-01-01 00:00Z') to ('2026-02-01 00:00Z');
    create table crm.visits_2 partition of crm.visits default;
    insert into crm.visits
      select n % 10, 'visitor' || n || '@example.com', timestamptz '2026-01-25 00:00Z' + n * interval '3 hours' from generate_series(0, 99) as n`);
  const visits = {
    table: 'visits',
    key: ['visited_at', 'id'],
    columns: ['email'],
    trigger: 'encrypt_visits',
    createdAt: 'visited_at',
  };
  await register(visits);
  const found = async () =>
    (await verify(client, { targets: ['crm.visits'], complete: true })).flatMap(({ results }) =>
      results.flatMap(({ invariant, violations }) => (violations > 0 ? [invariant] : [])),
    );
  expect(await one('select public.batch_encrypt_visits()')).toBe(100);
  // It moves, and is sealed for its new time by a batch, or by the trigger.
  await client.query("update crm.visits set visited_at = visited_at + interval '1 month' where id = 1");
  expect(await one('select public.batch_encrypt_visits()')).toBe(10);
  await one("select encryption_rollout.set_trigger('crm.visits', true)");
  await client.query("update crm.visits set visited_at = visited_at - interval '1 month' where id = 2");
  expect(await found()).toEqual([]);
  const audited: string[] = [];
  for (let after: string[] | null = null; ; ) {
    const rows: { row_key: string; key: string[] }[] = await rowsOf(
      "select * from encryption_rollout.audit_rows('crm.visits', $1, 7)",
      [after],
    );
    const last = rows.at(-1);
    if (last === undefined) break;
    audited.push(...rows.map(({ row_key }) => row_key));
    after = last.key;
  }
  expect(new Set(audited).size).toBe(100);
  expect(audited).toHaveLength(100);
});

test('clearing walks all leaves, and uninstalling leaves none of it behind', async () => {
  await register();
  const before = await plaintexts();
  await encryptAll();
  let cleared = 0;
  for (;;) {
    const [step] = await rowsOf('select * from encryption_rollout.clear_batch($1, 70)', [name]);
    cleared += step.cleared;
    if (step.exhausted) break;
  }
  expect(cleared).toBe(200);
  expect(await count(sealed)).toBe(0);
  expect(await plaintexts()).toBe(before);
  await client.query('select encryption_rollout.uninstall()');
  expect(await rowsOf('select tgname from pg_trigger where not tgisinternal')).toEqual([]);
  expect(
    await rowsOf(
      "select attname from pg_attribute where attname ~ '_encrypted$|pii_iv' and not attisdropped",
    ),
  ).toEqual([]);
});

test('what does not open is cleared leaf by leaf, each call going on where the one before ended', async () => {
  await register();
  await encryptAll();
  await pastTriggers(
    client,
    "update crm.people set email = null, email_encrypted = '\\x010001' where id in (1, 2, 110, 120, 130)",
  );
  expect(await health()).toMatchObject({ orphaned_rows: '5' });
  const cleared: number[] = [];
  for (let at = { leaf: 0, filenode: 0, position: '(0,0)' }; at.leaf !== null; ) {
    const sql = 'select * from encryption_rollout.clear_orphans($1, 2, $2, $3, $4)';
    const [done] = await rowsOf(sql, [name, at.leaf, at.filenode, at.position]);
    cleared.push(done.cleared);
    at = done;
  }
  expect(cleared.slice(0, 2)).toEqual([2, 2]);
  expect(await health()).toMatchObject({ orphaned_rows: '0' });
});

test('a key is not retired while a row of one leaf is sealed with it', async () => {
  await register();
  await encryptAll();
  await one('select encryption_rollout.rotate_key(2, $1, $2)', [
    Buffer.alloc(32, 2),
    keyCheckValue(testKey.key),
  ]);
  expect((await batch(199)).encrypted).toBe(199);
  await expect(client.query('select encryption_rollout.retire_key(1)')).rejects.toMatchObject({
    code: 'ER010',
  });
  await encryptAll();
  // Who writes to a partition directly holds no lock on the table.
  const other = await database.connect();
  await other.query("begin; update crm.people_1a set note = 'x'");
  await expect(client.query('select encryption_rollout.retire_key(1)')).rejects.toMatchObject({
    code: 'ER010',
    message: expect.stringContaining('transactions that are still open'),
  });
  await other.query('rollback');
  expect(await one('select encryption_rollout.retire_key(1)')).toBe(true);
});
