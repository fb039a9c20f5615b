/** The statements of docs/after.md, as an application makes them. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

const statements = [...readFileSync('docs/after.md', 'utf8').matchAll(/^```sql\n(.*?)```/gms)].map(
  ([, sql = '']) => sql,
);

let database: TestDatabase;
const role = `reader_${randomUUID().slice(0, 8)}`;
beforeAll(async () => {
  database = await freshDatabase({ template: 'appointments' });
  await database.client.query(`
    insert into public.appointments (organization_id, start_at, end_at, email)
    values (gen_random_uuid(), now(), now(), 'Ada@Example.com'), (gen_random_uuid(), now(), now(), 'Bob@Example.com');
    create role ${role} in role encryption_rollout_decryptor;
    grant select on public.appointments to ${role}`);
  await database.client.query('select public.batch_encrypt_appointments(10)');
});
afterAll(async () => {
  await database.client.query(`reset role; drop owned by ${role}; drop role ${role}`);
  await database.drop();
});

test('open a value, and that is recorded', async () => {
  const { client } = database;
  const { rows } = await client.query("select id from public.appointments where email = 'Ada@Example.com'");
  await client.query(`set role ${role}`);
  expect(statements).toHaveLength(1);
  for (const statement of statements) {
    const opened = await client.query({ text: statement.replace('…', rows[0].id), rowMode: 'array' });
    expect(opened.rows).toEqual([['Ada@Example.com']]);
  }
  await client.query('reset role');
  const used = await client.query(
    "select accessed_by, values_used::int from public.get_key_access_stats(interval '1 hour') where purpose = 'decrypt'",
  );
  expect(used.rows).toEqual([{ accessed_by: expect.any(String), values_used: 1 }]);
});
