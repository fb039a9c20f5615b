/** What `check` says that a role may or may not: by what it prints, the role may in the end. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Checked } from '../../cli/check.ts';
import { glued } from '../lambdas/core/telling/glued.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { rollout } from './cloud.ts';

const file = path.join(mkdtempSync(path.join(tmpdir(), 'rights-')), 'rollout.json');
writeFileSync(
  file,
  JSON.stringify({
    target: {
      schema: 'vet',
      table: 'owners',
      columns: ['email'],
      createdAt: null,
      canary: { id: 7, email: 'canary@example.com' },
    },
  }),
);

let database: TestDatabase;
let owner: string;
let url: string;
/** The role that owns the tables, and has been given what README asks for, and nothing else. */
beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
  owner = `owner_${randomUUID().slice(0, 8)}`;
  const address = new URL(database.url);
  const name = address.pathname.slice(1);
  await database.client.query(`
    create role ${owner} login password 'test';
    revoke all on schema public from public;
    grant usage, create on schema public to ${owner};
    grant create on database ${name} to ${owner};
    create schema vet;
    grant usage on schema vet to ${owner};
    create table vet.owners (id bigint primary key, email text);
    insert into vet.owners values (1, 'ada@example.com');
    alter table vet.owners owner to ${owner}`);
  Object.assign(address, { username: owner, password: 'test' });
  url = address.href;
});
afterEach(async () => {
  await database.client.query(`drop owned by ${owner} cascade`);
  await database.drop();
  const server = await freshDatabase({ template: 'empty' });
  await server.client.query(`drop role ${owner}`);
  await server.drop();
});

const install = () => rollout(['install', '--database-url', url, '--config', file, '--yes']);

async function check() {
  const { code, stdout, stderr } = await rollout([
    'check',
    '--database-url',
    url,
    '--config',
    file,
    '--json',
  ]);
  expect(stderr).toBe('');
  const { criteria } = JSON.parse(stdout) as Checked;
  return { code, failed: criteria.filter(({ passed }) => passed === false) };
}

describe('of a role without a right that a rollout needs', () => {
  test.each([
    ['objects in public', 'revoke create on schema public from OWNER', 'Right to install'],
    ['looking into public', 'revoke usage on schema public from OWNER', 'Right to install'],
    ['schemas', 'revoke create on database DATABASE from OWNER', 'Right to install'],
    ['public at all', 'drop schema public', 'Right to install'],
    ['plpgsql', 'revoke usage on language plpgsql from public', 'Right to install'],
    [
      "pgcrypto's schema",
      'create schema "Extra"; create extension pgcrypto schema "Extra"',
      'Extension pgcrypto',
    ],
    ["the table's schema", 'revoke usage on schema vet from OWNER', 'Rights on the table'],
    ['reading', 'revoke select on vet.owners from OWNER', 'Rights on the table'],
    ['writing', 'revoke update on vet.owners from OWNER', 'Rights on the table'],
    ['triggers', 'revoke trigger on vet.owners from OWNER', 'Rights on the table'],
  ])('%s: check refuses, and what it says to do is enough', async (_, sql, name) => {
    const database_ = new URL(url).pathname.slice(1);
    await database.client.query(sql.replaceAll('OWNER', owner).replaceAll('DATABASE', database_));
    const refused = await install();
    const { code, failed } = await check();
    expect({ code, failed: failed.map((each) => each.name) }).toEqual({ code: 3, failed: [name] });
    // Only a rollout reads and writes rows: an installation may succeed without.
    if (!['reading', 'writing'].includes(_)) {
      expect(refused.code).toBe(1);
      expect(glued(refused.stderr)).toEqual([]);
    } else await rollout(['uninstall', '--database-url', url, '--yes']);

    await database.client.query(failed[0]?.advice ?? '');
    expect(await check()).toEqual({ code: 0, failed: [] });
    expect(await install()).toMatchObject({ code: 0, stderr: '' });
  });
});

test('what is missing of several is said at once, and once the engine is there as well', async () => {
  await install();
  const name = new URL(url).pathname.slice(1);
  await database.client.query(
    `revoke create on schema public from ${owner};
     revoke create on database ${name} from ${owner}`,
  );
  const { failed } = await check();
  expect(failed).toEqual([
    expect.objectContaining({
      name: 'Right to install',
      advice: `grant usage, create on schema public to ${owner};`,
    }),
  ]);
  await rollout(['uninstall', '--database-url', url, '--yes']);
  expect((await check()).failed).toEqual([
    expect.objectContaining({
      advice: `grant create on database ${name} to ${owner}; grant usage, create on schema public to ${owner};`,
    }),
  ]);
});

test('a database may be called what a format would read', async () => {
  const name = `100 % of ${owner}`;
  await database.client.query(`create database "${name}"`);
  const address = new URL(url);
  address.pathname = `/${encodeURIComponent(name)}`;
  const { stdout } = await rollout(['check', '--database-url', address.href, '--config', file, '--json']);
  await database.client.query(`drop database "${name}"`);
  const { criteria } = JSON.parse(stdout) as Checked;
  expect(criteria.find((each) => each.name === 'Right to install')?.advice).toContain(
    `grant create on database "${name}" to ${owner};`,
  );
});

test('a server that wants a password and gets none is told so, with where to put it', async () => {
  const address = new URL(url);
  address.password = '';
  const without = await rollout(['check', '--database-url', address.href, '--config', file], {
    PGPASSWORD: '',
  });
  expect(without).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      new RegExp(
        `Found no password for ${owner}, which PostgreSQL at .* wants\\. Set PGPASSWORD, or put it into --database-url`,
      ),
    ),
  });
  address.password = 'another';
  const wrong = await rollout(['check', '--database-url', address.href, '--config', file]);
  expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining('password authentication failed') });
});
