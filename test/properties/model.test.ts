import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, type TestDatabase, testKey } from '../support/database.ts';
import { type Step, steps, type Values } from './actions.ts';
import { minutes, runs } from './arbitraries.ts';
import { World } from './model.ts';
import { createTables, shapes } from './shapes.ts';

let database: TestDatabase;
let connections: [pg.Client, pg.Client, pg.Client];
beforeAll(async () => {
  database = await freshDatabase({ template: 'engine' });
  await database.client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  connections = [await database.connect(), await database.connect(), database.client];
  // A batch that waits for the application would wait for ever here: it fails instead.
  await connections[1].query("set lock_timeout = '5s'; set application_name = 'batches'");
});
afterAll(() => database.drop());

async function play(sequence: readonly Step[]): Promise<void> {
  await createTables(database.client);
  const worlds = shapes.map((shape) => new World(shape, ...connections));
  for (const { of = 0, ...action } of sequence) {
    // The fault is one for both tables.
    const concerned = action.do === 'poison' ? worlds : worlds.slice(of, of + 1);
    for (const world of concerned) await world.apply(action);
    for (const world of worlds) await world.check();
  }
  for (const world of worlds) await world.finish();
  const verifications = await verify(database.client);
  expect(verifications.map(({ target }) => target)).toEqual(worlds.map(({ target }) => target));
  expect(verifications.flatMap(({ results }) => results.filter(({ violations }) => violations > 0))).toEqual(
    [],
  );
}

test(
  'whatever the application, batches, the trigger and faults do: plaintext stays, nothing stale is left, coverage is true',
  async () => {
    const seed = Date.now() % 2 ** 31;
    const tell = (played: number) => process.stderr.write(`${played} runs, seed ${seed}\n`);
    let played = 0;
    await fc.assert(
      fc.asyncProperty(steps, play).afterEach(async () => {
        // A run that failed in the middle may have left a transaction open.
        for (const client of connections) await client.query('rollback');
        played += 1;
        if (minutes > 0 && played % 100 === 0) tell(played);
      }),
      minutes > 0
        ? { seed, numRuns: 1_000_000, interruptAfterTimeLimit: minutes * 60_000 }
        : { seed, numRuns: runs(12) },
    );
    if (minutes > 0) tell(played);
  },
  minutes > 0 ? (minutes + 30) * 60_000 : runs(100) * 3_000,
);

const pii: Values = ['a@example.com', '+15555550100', 'Ann', 'allergic to cats'];
const edited: Values = ['b@example.com', null, 'Ann', 'allergic to cats'];
const poisoned: Values = ['a@example.com', null, 'poison', null];

/** Interleavings that must be there in every run, whatever the seed. */
test.each<[string, Step[]]>([
  [
    'an edit waits for a batch, then makes its ciphertext stale',
    [
      { do: 'insert', part: 0, values: pii },
      { do: 'editDuringBatch', row: 0, values: edited, limit: 5, commit: true },
    ],
  ],
  [
    'a row is edited between batch and trigger, and again after it',
    [
      { do: 'insert', part: 0, values: pii },
      { do: 'batch', limit: 5 },
      { do: 'edit', row: 0, values: edited },
      { do: 'trigger', on: true },
      { do: 'touch', row: 0 },
      { do: 'edit', row: 0, values: [null, null, null, null] },
      { do: 'edit', row: 0, values: pii },
    ],
  ],
  [
    'a poisoned row is passed over, gets another key, and is reached after a resume',
    [
      { do: 'insert', part: 0, values: poisoned },
      { do: 'insert', part: 0, values: pii },
      { do: 'poison', on: true },
      { do: 'batch', limit: 5 },
      { do: 'changeKey', row: 0 },
      { do: 'batch', limit: 5 },
      { do: 'rewrite' },
    ],
  ],
  [
    'batches of one table leave the other alone, also where its rows have the same keys',
    [
      { do: 'insert', part: 0, values: pii, of: 0 },
      { do: 'insert', part: 0, values: pii, of: 1 },
      { do: 'batch', limit: 5, of: 0 },
      { do: 'trigger', on: true, of: 1 },
      { do: 'edit', row: 0, values: edited, of: 1 },
      { do: 'poison', on: true },
      { do: 'insert', part: 0, values: poisoned, of: 0 },
      { do: 'batch', limit: 5, of: 1 },
      { do: 'batch', limit: 5, of: 0 },
      { do: 'resume', of: 1 },
      { do: 'batch', limit: 5, of: 0 },
    ],
  ],
  [
    'rows move between partitions, and partitions come and go',
    [
      { do: 'insert', values: pii, part: 0, of: 1 },
      { do: 'insert', values: pii, part: 1, of: 1 },
      { do: 'insert', values: pii, part: 2, of: 1 },
      { do: 'batch', limit: 2, of: 1 },
      { do: 'move', row: 0, part: 2, values: null, of: 1 },
      { do: 'detach', part: 1, concurrently: true, of: 1 },
      { do: 'batch', limit: 5, of: 1 },
      { do: 'trigger', on: true, of: 1 },
      { do: 'detach', part: 2, concurrently: false, of: 1 },
      { do: 'attach', part: 1, of: 1 },
      { do: 'move', row: 0, part: 0, values: edited, of: 1 },
      { do: 'attach', part: 2, of: 1 },
      { do: 'touch', row: 0, of: 1 },
    ],
  ],
  [
    'partitions come back that were edited where nobody guarded them',
    [
      { do: 'insert', values: pii, part: 0, of: 1 },
      { do: 'insert', values: edited, part: 0, of: 1 },
      { do: 'insert', values: pii, part: 2, of: 1 },
      { do: 'batch', limit: 5, of: 1 },
      { do: 'detach', part: 0, concurrently: false, of: 1 },
      { do: 'editApart', part: 0, row: 0, values: edited, of: 1 },
      { do: 'attach', part: 0, of: 1 },
      { do: 'touch', row: 1, of: 1 },
      { do: 'batch', limit: 1, of: 1 },
      { do: 'batch', limit: 5, of: 1 },
      { do: 'trigger', on: true, of: 1 },
      { do: 'detach', part: 2, concurrently: true, of: 1 },
      { do: 'detach', part: 0, concurrently: true, of: 1 },
      { do: 'editApart', part: 2, row: 0, values: edited, of: 1 },
      { do: 'editApart', part: 0, row: 1, values: pii, of: 1 },
      { do: 'attach', part: 2, of: 1 },
      { do: 'attach', part: 0, of: 1 },
      { do: 'touch', row: 2, of: 1 },
      { do: 'batchDuringEdit', row: 1, values: edited, limit: 5, commit: true, of: 1 },
      { do: 'editDuringBatch', row: 2, values: edited, limit: 5, commit: true, of: 1 },
      { do: 'batch', limit: 5, of: 1 },
    ],
  ],
  ...[0, 1].map((of): [string, Step[]] => [
    `whole rows are saved, with ciphertext of before or of others (table ${of + 1})`,
    [
      { do: 'insert', values: pii, part: 0, of },
      { do: 'insert', values: edited, part: 1, of },
      { do: 'keep', row: 0, of },
      { do: 'batch', limit: 5, of },
      { do: 'save', row: 0, values: null, of },
      { do: 'batch', limit: 5, of },
      { do: 'keep', row: 0, of },
      { do: 'edit', row: 0, values: edited, of },
      { do: 'batch', limit: 5, of },
      { do: 'save', row: 0, values: null, of },
      { do: 'batch', limit: 5, of },
      ...[1, 16, 17, 7, 23].flatMap((columns): Step[] => [
        { do: 'paste', row: 0, from: 1, columns, of },
        { do: 'batch', limit: 5, of },
      ]),
      { do: 'trigger', on: true, of },
      { do: 'save', row: 0, values: edited, of },
      { do: 'paste', row: 1, from: 0, columns: 17, of },
    ],
  ]),
  ...[0, 1].flatMap((of) =>
    [false, true].map((on): [string, Step[]] => [
      `columns get other types, are dropped, and are taken out (table ${of + 1}, trigger ${on ? 'on' : 'off'})`,
      [
        { do: 'trigger', on, of },
        { do: 'insert', values: pii, part: 0, of },
        { do: 'insert', values: edited, part: 1, of },
        { do: 'batch', limit: 5, of },
        { do: 'retype', column: 0, type: 2, of },
        { do: 'edit', row: 0, values: edited, of },
        { do: 'follow', of },
        { do: 'batch', limit: 5, of },
        { do: 'dropColumn', column: 0, of },
        { do: 'edit', row: 0, values: pii, of },
        { do: 'touch', row: 1, of },
        { do: 'changeKey', row: 1, of },
        { do: 'insert', values: pii, part: 0, of },
        { do: 'batch', limit: 5, of },
        { do: 'follow', of },
        { do: 'takeOut', column: 0, of },
        { do: 'batch', limit: 5, of },
        // The table itself, and its schema: of its names these come last.
        { do: 'rename', name: of + 7, follow: false, of },
        { do: 'rename', name: of + 8, follow: false, of },
        { do: 'takeOut', column: 1, of },
        { do: 'edit', row: 0, values: edited, of },
        { do: 'addColumn', of },
        { do: 'follow', of },
        { do: 'addColumn', of },
        { do: 'dropColumn', column: 3, of },
        { do: 'insert', values: pii, part: 0, of },
      ],
    ]),
  ),
  ...[0, 1].map((of): [string, Step[]] => [
    `names change, and a column is added (table ${of + 1})`,
    [
      { do: 'trigger', on: true, of },
      { do: 'insert', values: pii, part: 0, of },
      // Of the table's names these come first: those of its key.
      { do: 'rename', name: 0, follow: false, of },
      { do: 'touch', row: 0, of },
      { do: 'edit', row: 0, values: edited, of },
      { do: 'insert', values: pii, part: 1, of },
      { do: 'addColumn', of },
      { do: 'batch', limit: 5, of },
      { do: 'rename', name: 2, follow: true, of },
      { do: 'addColumn', of },
      { do: 'edit', row: 0, values: pii, of },
      { do: 'batch', limit: 5, of },
      { do: 'trigger', on: false, of },
      ...Array.from(
        { length: 12 },
        (_, name) => ({ do: 'rename', name, follow: name % 4 === 3, of }) as const,
      ),
      { do: 'edit', row: 1, values: edited, of },
    ],
  ]),
])('%s', (_, sequence) => play(sequence));
