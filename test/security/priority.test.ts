/** A priority condition comes with the input of an execution. What is more than a condition gets nowhere. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(40);
  await world.client.query(
    'create table public.precious (n integer); insert into public.precious values (1)',
  );
});
afterEach(() => world.stop());

const attacks = [
  'true); drop table public.precious; select (true',
  'true\n) limit 0; delete from public.precious; select (true',
  'true) or (true',
  'true) union select from public.precious where (true',
  'true) -- ',
  'true) /* ',
  "email = E'\\') ; drop table public.precious; --'",
  "email = $$a$$); drop table public.precious; select ($$b$$ = 'b'",
  '"is_vip"); drop table public.precious; select ("is_vip"',
  "email = U&'\\0027) ; drop table public.precious; --'",
];

describe.each(attacks)('priority %s', (priority) => {
  test.each(['prepare-database', 'dry-run'])(
    'is refused by %s, and nothing has happened',
    async (handler) => {
      const event = { input: { priority }, execution: 'one', onCall: { subscribers: 1 } };
      await expect(world.invoke(handler, event)).rejects.toMatchObject({
        name: 'InvalidInput',
        message: expect.stringContaining('priority: found'),
      });
      const { rows } = await world.client.query('select n from public.precious');
      expect(rows).toEqual([{ n: 1 }]);
    },
  );

  test('is refused in a configuration', () => {
    expect(Target.safeParse({ priority }).error?.issues.map(({ path }) => path)).toEqual([['priority']]);
  });
});

test('the engine alone would have run it, which is why the text is read first', async () => {
  await world.client
    .query('select encryption_rollout.register_target($1)', [{ ...Target.parse({}), priority: attacks[0] }])
    .catch(() => undefined);
  const { rows } = await world.client.query("select to_regclass('public.precious') is null as dropped");
  expect(rows).toEqual([{ dropped: true }]);
});

test('a backslash in quotes is one of its letters, whatever the server makes of it', async () => {
  await world.client.query(
    `do $$ begin execute format('alter database %I set standard_conforming_strings = off', current_database()); end $$`,
  );
  // To such a server the first quotation ends before the semicolon.
  const priority = "email = '\\' or email = '); drop table public.precious; select (true --'";
  await world.invoke('prepare-database', { input: { priority }, execution: 'one' });
  await world.invoke('dry-run', { input: { dryRun: true, priority }, onCall: { subscribers: 1 } });
  const { rows } = await world.client.query('select n from public.precious');
  expect(rows).toEqual([{ n: 1 }]);
});

test('a condition that is one is used', async () => {
  const run = await world.prepare('one', {
    priority: "is_vip and first_name is distinct from 'a;b)--'",
  });
  await world.encrypt(run, 1);
  const { rows } = await world.client.query(
    'select bool_and(is_vip) as vip from public.appointments where pii_iv is not null',
  );
  expect(rows).toEqual([{ vip: true }]);
});

test.each(['no_such_column', 'email =', '1'])(
  'what is no condition is named by a dry run: %s',
  async (priority) => {
    await expect(
      world.invoke('dry-run', { input: { dryRun: true, priority }, onCall: { subscribers: 1 } }),
    ).rejects.toMatchObject({
      name: 'UnusableTarget',
      message: expect.stringContaining(`The priority condition "${priority}" cannot be evaluated`),
    });
  },
);

test.each([
  ['email::integer = 1', '22P02'],
  // Not of the condition's text, although the class says so: the table that is not there has the name of a person.
  ["split_part(email, '.', 1)::regclass is not null", '42P01'],
])('one that fails for a row is named without the row’s datum: %s', async (priority, state) => {
  const refused = world.invoke('dry-run', { input: { dryRun: true, priority }, onCall: { subscribers: 1 } });
  await expect(refused).rejects.toMatchObject({ message: expect.stringContaining(`SQLSTATE ${state}`) });
  await expect(refused).rejects.not.toMatchObject({ message: expect.stringContaining('@') });
});
