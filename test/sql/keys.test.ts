import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keyCheckValue } from '../../lambdas/core/encryption/aead.ts';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';

let database: TestDatabase;
beforeEach(async () => {
  database = await freshDatabase({ template: 'engine' });
});
afterEach(() => database.drop());

const query = (sql: string, parameters: unknown[] = []) => database.client.query(sql, parameters);
const install = async (number: number, key: Buffer): Promise<boolean> =>
  (await query('select encryption_rollout.install_key($1, $2) as done', [number, key])).rows[0].done;
const otherKey = Buffer.alloc(32, 1);

describe('install_key', () => {
  test('stores the first key, accepts the same again, refuses another', async () => {
    expect(await install(1, testKey.key)).toBe(true);
    expect(await install(1, testKey.key)).toBe(false);
    await expect(install(1, otherKey)).rejects.toMatchObject({ code: 'ER003' });
    await expect(install(2, testKey.key)).rejects.toMatchObject({ code: 'ER003' });
    const { rows } = await query('select number, key, is_current from encryption_rollout.key_material');
    expect(rows).toEqual([{ number: 1, key: testKey.key, is_current: true }]);
  });

  test('never repeats a key in an error', async () => {
    await install(1, testKey.key);
    const error = await install(1, otherKey).catch((caught) => caught);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(otherKey.toString('hex'));
  });

  test.each([
    ['lost', 'delete from encryption_rollout.key_material'],
    ['altered', "update encryption_rollout.key_material set key = '\\x00'"],
  ])('puts back a key that is %s', async (_, sql) => {
    await install(1, testKey.key);
    await query(sql);
    expect(await install(1, testKey.key)).toBe(false);
    expect((await query('select key from encryption_rollout.read_key()')).rows).toEqual([
      { key: testKey.key },
    ]);
  });

  test.each([0, 16, 31, 33])('refuses a key of %i bytes', async (bytes) => {
    await expect(install(1, Buffer.alloc(bytes))).rejects.toMatchObject({
      code: 'ER005',
      message: `key of ${bytes} bytes found, 32 expected`,
    });
  });

  test('refuses a key number that does not fit into two bytes', async () => {
    await expect(install(65_536, testKey.key)).rejects.toMatchObject({ code: 'ER005' });
  });
});

describe('check_key', () => {
  const check = (value: Buffer) => query('select encryption_rollout.check_key($1) as number', [value]);

  test('knows its own key', async () => {
    await install(7, testKey.key);
    expect((await check(keyCheckValue(testKey.key))).rows).toEqual([{ number: 7 }]);
    await expect(check(keyCheckValue(otherKey))).rejects.toMatchObject({ code: 'ER003' });
  });

  test('says when there is none', async () => {
    await expect(check(keyCheckValue(testKey.key))).rejects.toMatchObject({ code: 'ER004' });
  });
});

describe('read_key', () => {
  const read = () => query('select * from encryption_rollout.read_key()');

  test('refuses what is not the key, and says when it is lost', async () => {
    await install(1, testKey.key);
    await query('update encryption_rollout.key_material set key = $1', [otherKey]);
    await expect(read()).rejects.toMatchObject({ code: 'ER003' });
    await query('delete from encryption_rollout.key_material');
    await expect(read()).rejects.toMatchObject({ code: 'ER004', message: expect.stringContaining('key 1') });
    expect((await query('select encryption_rollout.lost_keys() as lost')).rows).toEqual([{ lost: [1] }]);
  });
});

describe('the table of the keys', () => {
  test('takes none that is not known by its number and check value', async () => {
    await install(1, testKey.key);
    for (const [number, key] of [
      [1, otherKey],
      [2, testKey.key],
    ] as const)
      await expect(
        query(
          `insert into encryption_rollout.key_material (number, key, check_value, is_current) values ($1, $2, $3, false)
           on conflict (number) do update set check_value = excluded.check_value`,
          [number, key, keyCheckValue(key)],
        ),
      ).rejects.toMatchObject({ code: '23503' });
  });

  test.each([
    ['may be collected', 'set statistics 100', false],
    ['have been collected, and none are any more', 'set statistics 0', true],
  ])('has a breach where statistics of it %s, which the fix ends', async (_, now, analyzed) => {
    await install(1, testKey.key);
    const ofKey = 'alter table encryption_rollout.key_material alter column key';
    if (analyzed) await query(`${ofKey} set statistics 100; analyze encryption_rollout.key_material`);
    await query(`${ofKey} ${now}`);
    const breaches = async () => (await query('select finding, fix from encryption_rollout.breaches()')).rows;
    const [breach, ...others] = await breaches();
    expect(others).toEqual([]);
    expect(breach.finding).toMatch(/^statistics of the keys/);
    await query(breach.fix);
    expect(await breaches()).toEqual([]);
    expect((await query('select key from encryption_rollout.read_key()')).rows).toEqual([
      { key: testKey.key },
    ]);
  });

  test('is read by its owner alone, and leaves nothing of them in the statistics', async () => {
    await install(1, testKey.key);
    await query('select encryption_rollout.rotate_key(2, $1, $2)', [otherKey, keyCheckValue(testKey.key)]);
    await query('analyze encryption_rollout.key_material');
    await query('begin');
    // Roles are the whole server's: the roll-back keeps them from the other tests.
    await query('create role reader_of_all in role pg_read_all_data');
    await query('set local role reader_of_all');
    expect((await query('select * from encryption_rollout.key_material')).rows).toEqual([]);
    const statistics = await query(
      "select * from pg_statistic where starelid = 'encryption_rollout.key_material'::regclass and staattnum = 2",
    );
    expect(statistics.rows).toEqual([]);
    await query('rollback');
  });

  test('is unlogged, and logged when that is wanted', async () => {
    const persistence = async () =>
      (
        await query(
          "select relpersistence from pg_class where oid = 'encryption_rollout.key_material'::regclass",
        )
      ).rows[0].relpersistence;
    await install(1, testKey.key);
    expect(await persistence()).toBe('u');
    const keep = async (logged: boolean) =>
      (await query('select encryption_rollout.keep_keys($1) as changed', [logged])).rows[0].changed;
    expect(await keep(true)).toBe(true);
    expect(await persistence()).toBe('p');
    expect(await keep(true)).toBe(false);
    expect(await keep(false)).toBe(true);
    expect(await install(1, testKey.key)).toBe(false);
  });
});

describe('public.app_config', () => {
  const ours = {
    key: 'encryption_rollout.key',
    value: `key 1, check value ${keyCheckValue(testKey.key).toString('hex')}`,
  };
  const found = async () => (await query('select key, value from public.app_config order by key')).rows;

  test('names the current key and does not hold it', async () => {
    await install(1, testKey.key);
    await install(1, testKey.key);
    expect(await found()).toEqual([ours]);
    await query('select encryption_rollout.rotate_key(2, $1, $2)', [otherKey, keyCheckValue(testKey.key)]);
    expect(await found()).toEqual([
      { ...ours, value: `key 2, check value ${keyCheckValue(otherKey).toString('hex')}` },
    ]);
  });

  test('of the application gets that row where its shape allows', async () => {
    await query('drop table public.app_config');
    await query(
      "create table public.app_config (value varchar, key varchar, note int); insert into public.app_config values ('x', 'theme')",
    );
    await install(1, testKey.key);
    expect(await found()).toEqual([ours, { key: 'theme', value: 'x' }]);
  });

  const table = 'create table public.app_config (key text primary key, value text)';
  const calls = `create function public.mine(text) returns boolean language plpgsql as $$
    begin raise exception 'called'; end $$`;
  test.each([
    ['of other columns', 'create table public.app_config (name text, value jsonb)'],
    ['a view', "create view public.app_config as select 'a'::text as key, 'b'::text as value"],
    [
      'a materialized view',
      "create materialized view public.app_config as select 'a'::text as key, 'b'::text as value",
    ],
    [
      'with another column that must be given',
      `${table}; alter table public.app_config add who text not null`,
    ],
    ['with a default', `${table}; alter table public.app_config add who text default session_user`],
    ['with a constraint', `${calls}; ${table}; alter table public.app_config add check (public.mine(value))`],
    ['with an index on an expression', `${table}; create index on public.app_config (lower(value))`],
    ['with a rule', `${table}; create rule mine as on insert to public.app_config do also select 1`],
    ['with columns too narrow', 'create table public.app_config (key varchar(10), value varchar(10))'],
  ])('%s is left alone, and nothing depends on it', async (_, sql) => {
    await query('drop table public.app_config');
    await query(sql);
    const contents = async () =>
      (await query('select to_jsonb(t) as row from public.app_config as t where t is distinct from null'))
        .rows.length;
    const before = await contents();
    expect(await install(1, testKey.key)).toBe(true);
    expect(await contents()).toBe(before);
    expect((await query('select * from encryption_rollout.read_key()')).rows).toEqual([
      { number: 1, key: testKey.key },
    ]);
  });

  test('that is locked or gone is no reason to fail', async () => {
    const other = await database.connect();
    await other.query('begin; lock table public.app_config');
    expect(await install(1, testKey.key)).toBe(true);
    await other.query('drop table public.app_config; commit');
    expect(await install(1, testKey.key)).toBe(false);
  });
});
