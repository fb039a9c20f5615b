/** Databases that do not store UTF-8. */
import { afterEach, expect, test } from 'vitest';
import { fitted } from '../../../lambdas/adapters/postgres/encoding.ts';
import { createSampleTable } from '../../../lambdas/adapters/postgres/migrations.ts';
import { freshDatabase } from '../../support/database.ts';
import { rollOut } from '../whole-rollout.ts';
import { type TestWorld, testWorld } from '../world.ts';

let world: TestWorld;
afterEach(() => world?.stop());

async function worldOf(encoding: 'LATIN1' | 'SQL_ASCII'): Promise<void> {
  const database = await freshDatabase({ template: 'empty', encoding });
  await createSampleTable(database.client);
  world = await testWorld(0, database);
  await database.client.query(
    `insert into public.appointments (organization_id, start_at, end_at, email, first_name)
     select gen_random_uuid(), now(), now(), 'person' || n || '@example.com', ${
       // Of the two, only LATIN1 knows what ë is.
       encoding === 'LATIN1' ? "'Zo' || chr(235) || ' ' || chr(255)" : "'Zoe'"
     }
     from generate_series(1, 40) as n`,
  );
}

test.each([
  ['LATIN1', 'Zoë … 20–25 % 李🙂 Ł', 'Zoë ... 20-25 % ?? ?'],
  ['LATIN2', 'Zoë – Łódź', 'Zoë - Łódź'],
  ['WIN1252', 'Zoë – “so” → Ł', 'Zoë – “so” -> ?'],
  ['KOI8R', 'Зоя …', 'Зоя ...'],
  ['EUC_JP', '表 – 名', '表 - 名'],
])('%s: %s', (encoding, text, expected) => {
  expect(fitted(text, encoding)).toBe(expected);
});

test('LATIN1: a rollout seals UTF-8, which opens outside the database and inside it, and new rows likewise', async () => {
  await worldOf('LATIN1');
  const summary = await rollOut(world, await world.prepare());
  expect(summary).toContain('40');
  await world.client.query(
    `insert into public.appointments (organization_id, start_at, end_at, first_name)
     values (gen_random_uuid(), now(), now(), 'Åsa')`,
  );
  const { rows } = await world.client.query(
    `select first_name, public.decrypt_pii_with_iv_logged(first_name_encrypted, pii_iv, id) as opened,
       octet_length(first_name_encrypted) as bytes
     from public.appointments order by created_at, id`,
  );
  expect(rows).toHaveLength(41);
  for (const { first_name, opened, bytes } of rows) {
    expect(opened).toBe(first_name);
    expect(['Zoë ÿ', 'Åsa']).toContain(first_name);
    expect(bytes).toBe(3 + 16 + 32);
  }
});

test('SQL_ASCII is refused with its reason, by the dry run and by the rollout, and nothing is left behind', async () => {
  await worldOf('SQL_ASCII');
  const dryRun = await world.invoke('dry-run', { input: {}, onCall: { subscribers: 1 } });
  expect(dryRun.verdict).toBe('NO_GO');
  expect(dryRun.reason).toMatch(/Encoding of the database.*SQL_ASCII/);
  await expect(world.prepare()).rejects.toMatchObject({
    name: 'MissingPrerequisite',
    message: expect.stringMatching(
      /encoding SQL_ASCII, which does not say what its bytes mean; any other encoding expected\. What is sealed is UTF-8\. .*restore it/s,
    ),
  });
  const { rows } = await world.client.query(`select to_regnamespace('encryption_rollout') as schema`);
  expect(rows[0].schema).toBeNull();
});
