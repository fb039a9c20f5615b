/** Whose a refused write of live traffic is: the table's, or the rollout's. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Target } from '../../../lambdas/core/plan/settings.ts';
import { ownWrites } from '../../../rehearsal/database/own-traffic.ts';
import type { Writes } from '../../../rehearsal/database/traffic.ts';
import { freshDatabase, type TestDatabase } from '../../support/database.ts';

const target = Target.parse({
  schema: 'public',
  table: 'members',
  key: ['id'],
  columns: ['email'],
  trigger: 'members_pii',
  canary: {},
});
/** Raises what a function of this name raises when its condition holds. */
const trigger = (name: string, condition: string) =>
  `create function public.${name}() returns trigger language plpgsql as $$
   begin if ${condition} then raise exception 'refused: %', new.id; end if; return new; end $$;
   create trigger ${name} before insert or update on public.members for each row execute function public.${name}();`;

let database: TestDatabase;
beforeAll(async () => {
  database = await freshDatabase({ template: 'empty' });
  await database.client.query(
    `create table public.members (id bigint generated always as identity primary key, email text not null, slot int);
     insert into public.members (email) select n || '@example.com' from generate_series(1, 200) n;
     ${trigger('every_third', "new.id % 3 = 0 and current_setting('rehearsal.strict', true) is distinct from 'off'")}
     create function public.late() returns trigger language plpgsql as $$
     begin if new.id % 5 = 0 then raise exception 'late: %', new.id using errcode = 'PT001'; end if; return null; end $$;
     create constraint trigger late after insert on public.members deferrable initially deferred for each row execute function public.late();`,
  );
});
afterAll(() => database.drop());

const written = (writes: Writes, n: number) => writes.insert(database.client, n);

test('what its own triggers refused before is no failure, also at the commit; what another one refuses is', async () => {
  const { client } = database;
  const writes = (await ownWrites(client, target, 100)) as Writes;
  expect(typeof writes).toBe('object');
  expect((await client.query('select count(*)::int from public.members')).rows).toEqual([{ count: 200 }]);
  const made: (string | undefined)[] = [];
  for (let n = 0; n < 30; n++) made.push(await written(writes, n));
  expect(made).toContain(undefined);
  expect(made.filter((key) => key !== undefined).length).toBeGreaterThan(10);

  await client.query(trigger('another', 'true'));
  await client.query("set rehearsal.strict = 'off'");
  await expect(written(writes, 31)).rejects.toMatchObject({
    code: 'P0001',
    where: expect.stringContaining('another()'),
  });
  await client.query('drop schema rehearsal_traffic cascade');
  // Of a table that refuses everything there is no traffic, and it is said where that comes from.
  expect(await ownWrites(client, target, 50)).toMatch(
    /^SQLSTATE P0001 PL\/pgSQL function (?:public\.)?another\(\) line 2 at RAISE$/,
  );
});
