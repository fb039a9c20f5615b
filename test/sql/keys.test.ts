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
    const { rows } = await query('select * from public.app_config');
    expect(rows).toEqual([{ key: 'encryption_key.1', value: testKey.key.toString('hex') }]);
  });

  test('never repeats a key in an error', async () => {
    await install(1, testKey.key);
    const error = await install(1, otherKey).catch((caught) => caught);
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(otherKey.toString('hex'));
  });

  test('puts back a key that has vanished from app_config', async () => {
    await install(1, testKey.key);
    await query('delete from public.app_config');
    expect(await install(1, testKey.key)).toBe(false);
    expect((await query('select from public.app_config')).rowCount).toBe(1);
  });

  test('adopts a key that an operator has put there, and refuses to replace it', async () => {
    await query("insert into public.app_config values ('encryption_key.1', $1)", [
      testKey.key.toString('hex'),
    ]);
    await expect(install(1, otherKey)).rejects.toMatchObject({ code: 'ER003' });
    expect(await install(1, testKey.key)).toBe(true);
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

  test('refuses what is not the key, without repeating it', async () => {
    await install(1, testKey.key);
    await query('update public.app_config set value = $1', [otherKey.toString('hex')]);
    await expect(read()).rejects.toMatchObject({ code: 'ER003' });
    await query("update public.app_config set value = 'secret'");
    await expect(read()).rejects.toMatchObject({
      code: 'ER005',
      message: expect.not.stringContaining('secret'),
    });
    await query('delete from public.app_config');
    await expect(read()).rejects.toMatchObject({ code: 'ER004' });
  });
});

describe('public.app_config', () => {
  test('as we create it, it can be read by its owner alone', async () => {
    await install(1, testKey.key);
    await query('begin');
    await query('create role reader_of_all in role pg_read_all_data');
    await query('set local role reader_of_all');
    expect((await query('select * from public.app_config')).rows).toEqual([]);
    await query('rollback');
  });

  const cases: Record<string, { table: string; expected: string }> = {
    'granted to a role': {
      table: `create table public.app_config (key text, value text);
        create role config_reader; grant select on public.app_config to config_reader`,
      expected: 'config_reader',
    },
    'granted to everybody, one column': {
      table:
        'create table public.app_config (key text, value text); grant select (value) on public.app_config to public',
      expected: 'can be read by',
    },
    'open by a policy': {
      table: `create table public.app_config (key text, value text); grant select on public.app_config to public;
        alter table public.app_config enable row level security; create policy open on public.app_config using (true)`,
      expected: 'can be read by',
    },
    'of other columns': {
      table: 'create table public.app_config (name text, value jsonb)',
      expected: 'neither',
    },
    'a view': {
      table: "create view public.app_config as select 'a'::text as key, 'b'::text as value",
      expected: 'not found',
    },
  };
  for (const [name, { table, expected }] of Object.entries(cases)) {
    test(`is refused when it is ${name}`, async () => {
      await query('begin');
      // Roles are the whole server's: the roll-back keeps them from the other tests.
      await query('drop table public.app_config');
      await query(table);
      await expect(install(1, testKey.key)).rejects.toMatchObject({
        code: 'ER009',
        message: expect.stringContaining(expected),
        hint: expect.any(String),
      });
      await query('rollback');
    });
  }

  test('of the application is used when it is safe', async () => {
    await query('drop table public.app_config');
    await query(
      "create table public.app_config (value varchar, key varchar, note int); insert into public.app_config values ('x', 'theme')",
    );
    // Roles that read all data read it also without a grant, unless row-level security is on.
    await query('alter table public.app_config enable row level security');
    expect(await install(1, testKey.key)).toBe(true);
    expect((await query('select key from public.app_config order by key')).rows).toEqual([
      { key: 'encryption_key.1' },
      { key: 'theme' },
    ]);
  });
});
