import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { invariants } from '../../verifier/findings.ts';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';
import { behindTheTriggers, fullRows } from './rollout.ts';

let database: TestDatabase;
let client: pg.Client;
let directory: string;
let file: string;

beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  await seedAppointments(client, 250);
  directory = await mkdtemp(join(tmpdir(), 'encryption-rollout-test-'));
  file = join(directory, 'before.jsonl');
});
afterEach(async () => {
  await database.drop();
  await rm(directory, { recursive: true });
});

async function compared() {
  const [verification] = await verify(client, { plaintextBefore: file });
  const result = verification?.results.find(({ invariant }) => invariant === invariants.snapshot);
  return {
    checked: result?.checked,
    violations: result?.first.map(({ subject, detail }) => `${subject} ${detail.split(' since ')[0]}`).sort(),
  };
}

test('encrypting changes no plaintext', async () => {
  await verify(client, { snapshot: file });
  await client.query('select public.batch_encrypt_appointments()');
  expect(await compared()).toEqual({ checked: 250, violations: [] });
});

test('names rows that differ or are gone, and no new ones', async () => {
  await verify(client, { snapshot: file });
  const [edited, moved, emptied, deleted] = await fullRows(client, 4);
  await behindTheTriggers(client, "update appointments set email = email || ' ' where id = $1", [edited]);
  await client.query('update appointments set first_name = email, email = first_name where id = $1', [moved]);
  await client.query('update appointments set email = null where id = $1', [emptied]);
  await client.query('delete from appointments where id = $1', [deleted]);
  await client.query("update appointments set note = 'no personal data'");
  await seedAppointments(client, 50);
  expect(await compared()).toEqual({
    checked: 250,
    violations: [
      `${edited} plaintext changed`,
      `${moved} plaintext changed`,
      `${emptied} plaintext changed`,
      `${deleted} gone`,
    ].sort(),
  });
});

test('holds no plaintext, tells no two equal ones apart from others, and is for its owner alone', async () => {
  await verify(client, { snapshot: file });
  const text = await readFile(file, 'utf8');
  expect(text).not.toMatch(/example\.com|\+1555|Name\d|Zoë/);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  await verify(client, { snapshot: `${file}2` });
  // Another salt: the hashes of two snapshots have nothing in common.
  const digests = (content: string) => content.match(/[0-9a-f]{64}/g) ?? [];
  const first = new Set(digests(text));
  expect(digests(await readFile(`${file}2`, 'utf8')).filter((digest) => first.has(digest))).toEqual([]);
});

test('compares keys of text bytewise, whatever the collation and the characters', async () => {
  await client.query('create table notes (name text primary key, body text)');
  const names = [
    'a',
    'B',
    'ä',
    'Z',
    '_',
    'a b',
    'a-b',
    '\u{1F600}',
    '\uFFFD',
    'line\nbreak',
    'tab\t',
    '"quoted"',
    'line\u2028separator',
  ];
  await client.query('insert into notes select name, name from unnest($1::text[]) as name', [names]);
  await client.query('select encryption_rollout.register_target($1)', [
    JSON.stringify({
      schema: 'public',
      table: 'notes',
      key: ['name'],
      columns: ['body'],
      trigger: 'encrypt_notes',
    }),
  ]);
  const targets = ['public.notes'];
  await verify(client, { targets, snapshot: file });
  await client.query("update notes set body = 'other' where name = 'line\nbreak'");
  await client.query("select * from encryption_rollout.encrypt_batch('public.notes', 100)");
  const [verification] = await verify(client, { targets, plaintextBefore: file });
  const violated = verification?.results.filter(({ violations }) => violations > 0);
  expect(violated).toMatchObject([
    { checked: names.length, violations: 1, first: [{ subject: 'line\nbreak' }] },
  ]);
});

test('one snapshot is of one target', async () => {
  await client.query('create table notes (name text primary key, body text)');
  await client.query('select encryption_rollout.register_target($1)', [
    JSON.stringify({
      schema: 'public',
      table: 'notes',
      key: ['name'],
      columns: ['body'],
      trigger: 'encrypt_notes',
    }),
  ]);
  await expect(verify(client, { snapshot: file })).rejects.toThrow(/2 targets and one snapshot.*--target/);
  await verify(client, { targets: ['public.notes'], snapshot: file });
  await expect(verify(client, { targets: ['public.appointments'], plaintextBefore: file })).rejects.toThrow(
    /is of public\.notes.*expected public\.appointments/,
  );
});

test('an existing file is never overwritten, and a damaged one is no evidence', async () => {
  await verify(client, { snapshot: file });
  await expect(verify(client, { snapshot: file })).rejects.toThrow(/Found a file/);

  const text = await readFile(file, 'utf8');
  const lines = text.trimEnd().split('\n');
  const damaged: [string, RegExp][] = [
    ['', /does not begin with the header/],
    [lines.slice(0, -1).join('\n'), /ends without a footer/],
    [[...lines.slice(0, 5), ...lines.slice(6)].join('\n'), /249 rows, 250 expected/],
    [[...lines.slice(0, 5), lines[6], lines[5], ...lines.slice(7)].join('\n'), /not in order/],
    [text.replace('["', '['), /not JSON/],
    [[...lines.slice(0, 5), '{}', ...lines.slice(5)].join('\n'), /line 6 is no row/],
  ];
  for (const [content, message] of damaged) {
    await writeFile(file, content);
    await expect(verify(client, { plaintextBefore: file })).rejects.toThrow(message);
  }
  await rm(file);
  await expect(verify(client, { plaintextBefore: file })).rejects.toThrow(/could not be read \(ENOENT\)/);
  // Whatever was wrong, the session is as usable as before.
  expect((await client.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
});
