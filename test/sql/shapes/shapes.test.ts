/**
 * What fits, tried: tables of many shapes, each with columns of all types, go through registration, batches, edits, the
 * trigger, the final audit, the verifier, and as text into a fresh database, where they are opened. docs/tables.md has what
 * came of it. After a change: WRITE_TABLES_PAGE=1 npx vitest run --project unit test/sql/shapes/shapes.test.ts
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { check } from '../../../cli/check.ts';
import { checkScreen } from '../../../cli/check-screen.ts';
import { auditRows, readHealth, sampleRows } from '../../../lambdas/adapters/postgres/encryption/engine.ts';
import { rowVerifier } from '../../../lambdas/core/encryption/verification.ts';
import { judge } from '../../../lambdas/core/gates/judgement.ts';
import { labelsOf, Target } from '../../../lambdas/core/plan/settings.ts';
import { connectionOf } from '../../../terminal/connection.ts';
import { verify } from '../../../verifier/verify.ts';
import { glued } from '../../lambdas/core/telling/glued.ts';
import { freshDatabase, type TestDatabase, testKey } from '../../support/database.ts';
import { withSection } from '../../support/sections.ts';
import { columnName, columns, keyColumns, refusals, tableKinds, types } from './definitions.ts';
import { createTable, editRows, insertRows, ordinary, type Shape, shapes } from './tables.ts';

/** Of the application's sessions: nothing that is written or compared may depend on them. */
const strangeSettings = `set datestyle = 'sql, dmy'; set timezone = 'Asia/Kolkata'; set intervalstyle = 'sql_standard';
  set extra_float_digits = -10; set bytea_output = 'escape'; set standard_conforming_strings = on`;

let database: TestDatabase;
let client: pg.Client;
/** The application's. */
let application: pg.Client;
beforeAll(async () => {
  database = await freshDatabase({ template: 'engine' });
  client = database.client;
  application = await database.connect();
  await client.query(types);
  await application.query(strangeSettings);
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
});
afterAll(() => database.drop());

/** Half a minute on two cores; other test files may have them. */
const timeout = 600_000;

test('tables of every shape are encrypted, verified, restored as text and opened', { timeout }, async () => {
  const call = (sql: string, shape: Shape) => client.query(sql, [shape.name]);

  for (const shape of shapes) {
    await application.query(createTable(shape));
    await application.query(insertRows(shape, 1, 8));
  }
  const { criteria, fits } = await checked(
    await readingSession(),
    shapes.map(({ target }) => target),
  );
  expect(criteria.filter(({ passed }) => passed === false)).toEqual([]);
  expect(fits).toBe(true);
  expect(new Set(criteria.flatMap(({ table }) => table ?? [])).size).toBe(shapes.length);
  for (const shape of shapes) {
    await client.query('select encryption_rollout.register_target($1)', [shape.target]);
    // The batches' session is ours, and need not be.
    await application.query('select encryption_rollout.encrypt_up_to($1, null)', [shape.name]);
    await application.query(editRows(shape, 1));
    expect(await readHealth(client, shape.name), shape.name).toMatchObject({
      unencryptedRows: '3',
      failedRows: '0',
    });
    await call('select encryption_rollout.encrypt_up_to($1, null)', shape);
    await call('select encryption_rollout.set_trigger($1, true)', shape);
    await application.query(insertRows(shape, 9, 12));
    await application.query(editRows(shape, 5));
    await application.query(`update ${shape.table} set n = n where n = 11`);
    expect(await readHealth(client, shape.name), shape.name).toMatchObject({
      totalRows: '12',
      unencryptedRows: '0',
      healthStatus: 'HEALTHY',
    });
  }

  for (const shape of shapes) {
    const verifies = rowVerifier(
      labelsOf(shape.target as unknown as Target),
      new Map([[testKey.number, testKey.key]]),
    );
    const seen = new Set<string>();
    // Five at a time, so that the order and the key's way through text are tried.
    for (let after: readonly string[] | null = null; ; ) {
      const rows = await auditRows(client, shape.name, { afterKey: after, untilKey: null }, 5, '3');
      for (const row of rows) {
        expect(verifies(row), `${shape.name}: row ${row.rowKey}`).toBe(true);
        seen.add(row.rowKey);
      }
      if (rows.length < 5) break;
      after = rows[4]?.key ?? null;
    }
    expect(seen.size, shape.name).toBe(12);
    expect((await sampleRows(client, shape.name, 12)).every(verifies), shape.name).toBe(true);
  }
  await verifyAll(client);

  const restored = await restore();
  try {
    for (const shape of shapes) await openAll(restored.client, shape);
    await verifyAll(restored.client);
  } finally {
    await restored.drop();
  }
});

/** `check`, which installs nothing and reads catalogs. */
function checked(session: pg.Client, targets: readonly object[]) {
  const parsed = targets.map((target) => Target.parse({ canary: {}, createdAt: null, ...target }));
  const given = { targets: parsed, acknowledgedTriggers: [], offPeak: null, plan: {} };
  return check(session, connectionOf(database.url), given, false);
}

async function readingSession(): Promise<pg.Client> {
  const session = await database.connect();
  await session.query('set default_transaction_read_only = on');
  return session;
}

/** With cryptography and SQL that share nothing with the engine. */
async function verifyAll(session: pg.Client): Promise<void> {
  const found: string[] = [];
  const verifications = await verify(session, {
    complete: true,
    onViolation: (target, violation) => found.push(`${target}: ${JSON.stringify(violation)}`),
  });
  expect(found).toEqual([]);
  expect(verifications.map(({ counts }) => counts.encrypted)).toEqual(shapes.map(() => 12));
}

/** A fresh database with the same tables; their rows go there as text, the way of dumps. Then the engine is put to them. */
async function restore(): Promise<TestDatabase> {
  const other = await freshDatabase({ template: 'engine' });
  await other.client.query(types);
  await other.client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  const copy = async (table: string) => {
    const { rows } = await client.query(
      `select string_agg(quote_ident(attname), ', ' order by attnum) as all,
         string_agg(quote_ident(attname) || ' bytea', ', ' order by attnum) filter (where attname ~ '(_encrypted|_iv)$') as added,
         string_agg(quote_ident(attname), ', ' order by attnum) filter (where attgenerated = '') as written
       from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped`,
      [table],
    );
    const { added, written } = rows[0];
    const has = await other.client.query(
      "select from pg_attribute where attrelid = $1::regclass and attname = 'pii_iv'",
      [table],
    );
    if (added !== null && has.rowCount === 0 && !table.startsWith('encryption_rollout.'))
      await other.client.query(`alter table ${table} ${added.split(', ').map((c: string) => `add ${c}`)}`);
    const texts = await client.query(`select t::text as text from ${table} as t`);
    await other.client.query(
      `insert into ${table} (${written}) overriding system value
       select ${written.split(', ').map((c: string) => `(r.r).${c}`)} from (select t::${table} as r from unnest($1::text[]) as t) as r on conflict do nothing`,
      [texts.rows.map(({ text }) => text)],
    );
  };
  await copy('encryption_rollout.targets');
  await copy('encryption_rollout.created_objects');
  await client.query('select encryption_rollout.record_trigger_uses()');
  await copy('encryption_rollout.key_access');
  // As a dump does.
  await other.client.query(
    "select setval(pg_get_serial_sequence('encryption_rollout.key_access', 'id'), max(id)) from encryption_rollout.key_access",
  );
  for (const shape of shapes) {
    await other.client.query(createTable(shape));
    await copy(shape.table);
    await other.client.query('select encryption_rollout.register_target($1)', [shape.target]);
    await other.client.query('select encryption_rollout.set_trigger($1, true)', [shape.name]);
  }
  return other;
}

/** Rows of every stage (moved, edited and inserted while the trigger was on): each value opens, by the function that people call, to a text that reads back as the same value, bit by bit. */
async function openAll(session: pg.Client, { key, table, name }: Shape): Promise<void> {
  const { rows: functions } = await session.query(
    `select split_part(name, '(bytea, ', 1) as name from encryption_rollout.created_objects
     where kind = 'function' and purpose = 'decryption' and target = $1`,
    [name],
  );
  const open = (column: string) =>
    `${functions[0].name}(${column}_encrypted, pii_iv, ${keyColumns(key).join(', ')})`;
  await session.query(strangeSettings);
  const { rows } = await session.query({
    text: `select n, ${columns.map(({ type }, index) => {
      const column = columnName(index);
      return `record_image_eq(row((${open(column)})::${type}), row(${column}))`;
    })} from ${table} where n % 3 = 0 order by n`,
    rowMode: 'array',
  });
  await session.query('reset all');
  expect(rows, name).toEqual([3, 6, 9, 12].map((n) => [n, ...columns.map(() => true)]));
}

test('what does not fit is refused with its reason, and nothing is added', async () => {
  const before = await client.query(
    'select count(*)::int as objects from encryption_rollout.created_objects',
  );
  for (const { name, create, registration } of refusals) {
    expect(await refusalOf(create, registration), name).toMatchObject({
      code: 'ER002',
      hint: expect.any(String),
    });
  }
  const after = await client.query('select count(*)::int as objects from encryption_rollout.created_objects');
  expect(after.rows).toEqual(before.rows);
});

test('check refuses each of them, too, and says the same of it', async () => {
  for (const { name, create, registration } of refusals) {
    const { hint } = await refusalOf(create, registration);
    await client.query('begin');
    try {
      await client.query(create);
      await client.query('set transaction read only');
      const found = await checked(client, [refusedTarget(registration)]);
      const { criteria, fits } = found;
      expect(fits, name).toBe(false);
      const said = criteria.filter(({ passed }) => passed === false).map(({ advice }) => advice);
      expect(said.join('\n'), name).toContain(hint);
      expect(glued(judge('Preflight', criteria).reason), name).toEqual([]);
      expect(glued(checkScreen(found)), name).toEqual([]);
    } finally {
      await client.query('rollback');
    }
  }
});

const refusedTarget = (registration: object = {}) => ({
  schema: 'public',
  table: 'refused',
  key: ['id'],
  columns: ['email'],
  trigger: 'encrypt_refused',
  ...registration,
});

/** Registers such a table, and undoes it. */
async function refusalOf(create: string, registration?: object) {
  await client.query('begin');
  try {
    await client.query(create);
    const target = refusedTarget(registration);
    await client.query('select encryption_rollout.register_target($1)', [target]);
    return { code: '', message: 'accepted', hint: '' };
  } catch (error) {
    const { code, message, hint = '' } = error as { code: string; message: string; hint?: string };
    return { code, message, hint };
  } finally {
    await client.query('rollback');
  }
}

test('docs/tables.md says what came of it', async () => {
  const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\t', '\\t');
  const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
    [head, head.map(() => '---'), ...rows.map((row) => row.map(cell))]
      .map((row) => `| ${row.join(' | ')} |`)
      .join('\n');
  const code = (text: string) => (text === '' ? '(empty)' : `\`${text}\``);
  const target = async (shape: Shape) =>
    (await client.query('select * from encryption_rollout.targets where name = $1', [shape.name])).rows[0];

  const keyRows: string[][] = [];
  for (const shape of shapes.filter(({ kind }) => kind === ordinary)) {
    const rows = await auditRows(client, shape.name, { afterKey: null, untilKey: null }, 3, '3');
    const { key_types } = await target(shape);
    keyRows.push([shape.key.name, key_types.join(', '), rows.map(({ rowKey }) => code(rowKey)).join(' ')]);
  }
  const [first] = shapes as [Shape];
  const { rows: samples } = await client.query(
    `select (encryption_rollout.audit_rows($1, null, 100)).plaintexts`,
    [first.name],
  );
  const columnRows = columns.map(({ type }, index) => {
    const texts = new Set(samples.map(({ plaintexts }) => plaintexts[index]).filter((text) => text !== null));
    return [
      code(type),
      [...texts]
        .sort()
        .map((text) => code(text))
        .join(' '),
    ];
  });
  const kindRows = tableKinds.map((kind) => {
    const tried = shapes.filter((shape) => shape.kind === kind).map(({ key }) => key.name);
    return [kind.name, kind === ordinary ? 'all of the above' : tried.join('; ')];
  });
  const refused: string[][] = [];
  for (const { name, create, registration } of refusals) {
    const { message, hint } = await refusalOf(create, registration);
    refused.push([name, message, hint]);
  }

  const file = join(import.meta.dirname, '..', '..', '..', 'docs', 'tables.md');
  const committed = await readFile(file, 'utf8');
  const page = withSection(
    committed,
    'shapes',
    [
      `${shapes.length} tables of ${columns.length} columns each, 12 rows: all of it encrypted, verified, restored and opened.`,
      `### Keys\n\n${table(['Key', 'Type', 'Text of the first rows, in the order of the audit'], keyRows)}`,
      `### Columns\n\nEach of them with each of these keys.\n\n${table(['Type', 'What is sealed, of the values that were tried'], columnRows)}`,
      `### Kinds of table\n\n${table(['Table', 'Tried with keys'], kindRows)}`,
      `### Refused\n\n${table(['What', 'Reason', 'What to do'], refused)}`,
    ].join('\n\n'),
  );
  if (process.env.WRITE_TABLES_PAGE !== undefined) await writeFile(file, page);
  expect(await readFile(file, 'utf8')).toBe(page);
});
