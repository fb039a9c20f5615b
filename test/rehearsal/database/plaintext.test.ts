import { expect, test } from 'vitest';
import { Target } from '../../../lambdas/core/plan/settings.ts';
import { keepPlaintext } from '../../../rehearsal/database/sample-tables.ts';
import { freshDatabase, seedAppointments } from '../../support/database.ts';

test('what became of the plaintext is told by its rows: lost or changed, or new ones of others', async () => {
  const database = await freshDatabase({ template: 'appointments' });
  const { client } = database;
  await seedAppointments(client, 100);
  const seen = { live: null, fresh: false, rows: 100, rowsWithPii: 95 };
  const compare = await keepPlaintext(client, [{ ...seen, target: Target.parse({}) }]);
  const table = 'public.appointments';
  await client.query(`update ${table} set note = 'no personal data'`);
  expect(await compare()).toEqual([{ table, lost: 0, added: 0 }]);
  // Two rows with the same values, of another key.
  await client.query(`insert into ${table} (organization_id, start_at, end_at, email)
    select organization_id, start_at, end_at, 'new@example.com' from ${table} limit 2`);
  expect(await compare()).toEqual([{ table, lost: 0, added: 2 }]);
  await client.query(`delete from ${table} where email = 'person3@example.com'`);
  await client.query(`update ${table} set email = 'other@example.com' where email = 'person4@example.com'`);
  expect(await compare()).toEqual([{ table, lost: 2, added: 3 }]);
  await database.drop();
});
