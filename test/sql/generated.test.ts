/**
 * sql/sample/generated.sql is what the engine generates for the sample table, to be read. After a change of a generator:
 * WRITE_GENERATED_SQL=1 npx vitest run --project unit test/sql/generated.test.ts
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { freshDatabase } from '../support/database.ts';

const file = join(import.meta.dirname, '..', '..', 'sql', 'sample', 'generated.sql');

const pieces: [heading: string, sql: string][] = [
  ['The trigger that encrypts what is written, and its function', 'encryption_rollout.encrypt_row_sql(t)'],
  ['', 'encryption_rollout.main_trigger_sql(t)'],
  ['The guards, and their function', 'encryption_rollout.clear_stale_sql(t)'],
  ['', 'encryption_rollout.update_guard_sql(t)'],
  ['', 'encryption_rollout.insert_guard_sql(t)'],
  [
    'A batch: finds rows in a window, then encrypts them ($1: keys, $2: their TIDs)',
    "encryption_rollout.search_sql(encryption_rollout.table_sql(t), encryption_rollout.to_write_sql(t, 'encrypt', 1, true), 5000, '(0,0)', '(2048,0)')",
  ],
  ['', 'encryption_rollout.encrypt_rows_sql(t, encryption_rollout.table_sql(t), 1)'],
  ['Clearing: $2: TIDs', 'encryption_rollout.clear_rows_sql(t, encryption_rollout.table_sql(t))'],
  [
    'By hand',
    "encryption_rollout.batch_function_sql(t, encryption_rollout.public_name(t, 'batch', '(integer)', '', ''))",
  ],
  ['', 'encryption_rollout.health_function_sql(t)'],
  [
    '',
    "encryption_rollout.decryption_function_sql(t, 'public.decrypt_appointments_pii_with_iv_logged', format('decrypt_logged(%L', t.name))",
  ],
  [
    '',
    "encryption_rollout.decryption_function_sql(t, 'public.decrypt_pii_with_iv_logged', format('decrypt_logged_by_key(%L', t.key_types))",
  ],
];

test('the generated text that is committed is what the engine generates', async () => {
  const database = await freshDatabase({ template: 'appointments' });
  const { rows } = await database.client.query({
    text: `select ${pieces.map(([, sql]) => sql).join(', ')} from encryption_rollout.targets as t`,
    rowMode: 'array',
  });
  // Numbers that a database gives: another one each time.
  const { rows: numbers } = await database.client.query('select table_oid from encryption_rollout.targets');
  await database.drop();
  const texts = (rows[0] as string[]).map((text, n) => {
    const [heading] = pieces[n] ?? [''];
    return `${heading && `-- ${heading}.\n\n`}${text
      .trim()
      .replace(/ +$/gm, '')
      .replaceAll(new RegExp(`\\b${numbers[0].table_oid}\\b`, 'g'), '16384')};\n`;
  });
  const generated = `-- Generated for public.appointments, the first target of its database, as its registration describes it: not to be\n-- executed, but read beside what generates it. test/sql/generated.test.ts compares it, and writes it anew.\n\n${texts.join('\n')}`;
  if (process.env.WRITE_GENERATED_SQL !== undefined) await writeFile(file, generated);
  expect(await readFile(file, 'utf8')).toBe(generated);
});
