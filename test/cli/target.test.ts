import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { runCommand } from '../../cli/program.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
const written: string[] = [];
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  written.length = 0;
  for (const stream of [process.stdout, process.stderr])
    vi.spyOn(stream, 'write').mockImplementation((text) => written.push(String(text)) > 0);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await database.drop();
});

const call = async (...argv: string[]) => {
  written.length = 0;
  const code = await runCommand([...argv, '--database-url', database.url]);
  return `${code}: ${written.join('')}`.trim();
};
const status = async (table: string) =>
  (await database.client.query('select health_status from encryption_rollout.health($1)', [table])).rows[0]
    .health_status;

test('a rename is followed, a column added and taken out, and the table', async () => {
  const { client } = database;
  await seedAppointments(client, 20);
  await client.query('select public.batch_encrypt_appointments()');
  expect(await call('follow', 'public.appointments')).toBe(
    '0: public.appointments is called as it was registered: there is nothing to follow.',
  );
  await client.query('alter table appointments rename to visits; alter table visits rename email to mail');
  expect(await call('follow', 'public.appointments')).toMatch(
    /^1: Found no terminal .*table public\.appointments: renamed to public\.visits; column email of public\.appointments: renamed to mail.*--yes/s,
  );
  expect(await call('follow', 'public.appointments', '--yes')).toMatch(
    /^0: Followed\. Change the configuration/,
  );
  expect(await status('public.visits')).toBe('HEALTHY');

  expect(await call('add-column', 'public.visits', 'note', '--yes')).toMatch(/^0: Added\. Add note/);
  expect(await status('public.visits')).toBe('IN_PROGRESS');
  await client.query('select public.batch_encrypt_appointments()');
  expect(await status('public.visits')).toBe('HEALTHY');

  await client.query('alter table public.visits drop column note');
  expect(await call('remove-column', 'public.visits', 'note')).toMatch(
    /Remove note_encrypted from public\.visits.* It is the only copy: column note of public\.visits was dropped/s,
  );
  expect(await call('remove-column', 'public.visits', 'note', '--yes')).toMatch(
    /^0: Removed\. Take note out/,
  );
  // Rows that had nothing else have an IV of nothing, which Monitor and gates clear when they count.
  expect(await status('public.visits')).toBe('DEGRADED');
  await client.query("select encryption_rollout.clear_orphans('public.visits', 100)");
  expect(await status('public.visits')).toBe('HEALTHY');

  expect(await call('remove-table', 'public.visits')).toMatch(
    /Remove from public\.visits: mail_encrypted, e164_encrypted, first_name_encrypted, pii_iv with all/,
  );
  expect(await call('remove-table', 'public.visits', '--yes')).toMatch(
    /^0: Removed\. Take public\.visits out/,
  );
  expect(await call('remove-table', 'public.visits', '--yes')).toMatch(
    /^1: Found no registered table public\.visits, expected one of: \(none is registered\)/,
  );
  const { rows } = await client.query(
    "select count(mail)::integer as mails, (select count(*)::integer from pg_attribute where attrelid = 'public.visits'::regclass and attname ~ 'encrypted|iv$') as ours from public.visits",
  );
  expect(rows).toEqual([{ mails: 17, ours: 0 }]);
});
