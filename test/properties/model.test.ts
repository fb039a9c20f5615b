import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { verify } from '../../verifier/verify.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { runs } from './arbitraries.ts';
import { createVisits, installPoison, type Step, steps, tables, World } from './model.ts';

let database: TestDatabase;
let connections: [pg.Client, pg.Client, pg.Client];
beforeAll(async () => {
  database = await freshDatabase({ template: 'appointments' });
  await createVisits(database.client);
  await installPoison(database.client);
  connections = [await database.connect(), await database.connect(), database.client];
  // A batch that waits for the application would wait for ever here: it fails instead.
  await connections[1].query("set lock_timeout = '5s'");
});
afterAll(() => database.drop());

async function play(sequence: readonly Step[]): Promise<void> {
  const worlds = tables.map((table) => new World(table, ...connections));
  for (const world of worlds) await world.reset();
  for (const { of = 0, ...action } of sequence) {
    // The fault is one for both tables.
    const concerned = action.do === 'poison' ? worlds : worlds.slice(of, of + 1);
    for (const world of concerned) await world.apply(action);
    for (const world of worlds) await world.check();
  }
  for (const world of worlds) await world.finish();
  const verifications = await verify(database.client);
  expect(verifications.map(({ target }) => target)).toEqual(tables);
  expect(verifications.flatMap(({ results }) => results.filter(({ violations }) => violations > 0))).toEqual(
    [],
  );
}

test(
  'whatever the application, batches, the trigger and faults do: plaintext stays, nothing stale is left, coverage is true',
  async () => {
    await fc.assert(
      fc.asyncProperty(steps, play).afterEach(async () => {
        // A run that failed in the middle may have left a transaction open.
        for (const client of connections) await client.query('rollback');
      }),
      { numRuns: runs(25) },
    );
  },
  Number(process.env.PROPERTY_RUNS ?? 100) * 1_500,
);

const pii = ['a@example.com', '+15555550100', 'Ann'] as const;
const edited = ['b@example.com', null, 'Ann'] as const;

/** Interleavings that must be there in every run, whatever the seed. */
test.each<[string, Step[]]>([
  [
    'an edit waits for a batch, then makes its ciphertext stale',
    [
      { do: 'insert', values: pii },
      { do: 'editDuringBatch', row: 0, values: edited, limit: 5, commit: true },
    ],
  ],
  [
    'a row is edited between batch and trigger, and again after it',
    [
      { do: 'insert', values: pii },
      { do: 'batch', limit: 5 },
      { do: 'edit', row: 0, values: edited },
      { do: 'trigger', on: true },
      { do: 'touch', row: 0 },
      { do: 'edit', row: 0, values: [null, null, null] },
      { do: 'edit', row: 0, values: pii },
    ],
  ],
  [
    'a poisoned row is passed over, gets another key, and is reached after a resume',
    [
      { do: 'insert', values: ['a@example.com', null, 'poison'] },
      { do: 'insert', values: pii },
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
      { do: 'insert', values: pii, of: 0 },
      { do: 'insert', values: pii, of: 1 },
      { do: 'batch', limit: 5, of: 0 },
      { do: 'trigger', on: true, of: 1 },
      { do: 'edit', row: 0, values: edited, of: 1 },
      { do: 'poison', on: true },
      { do: 'insert', values: ['a@example.com', null, 'poison'], of: 0 },
      { do: 'batch', limit: 5, of: 1 },
      { do: 'batch', limit: 5, of: 0 },
      { do: 'resume', of: 1 },
      { do: 'batch', limit: 5, of: 0 },
    ],
  ],
])('%s', (_, sequence) => play(sequence));
