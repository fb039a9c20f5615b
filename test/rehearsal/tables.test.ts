import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { samples } from '../../rehearsal/database/samples.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { Bench } from './process.ts';

const bench = new Bench();
beforeAll(() => bench.prepare({ soakSliceMinutes: 60 }, 3));
afterAll(() => bench.clear());

let database: TestDatabase;
beforeEach(async () => {
  database = await freshDatabase({ template: 'empty' });
});
afterEach(() => database.drop());

const names = samples.map(({ target }) => `${target.schema}.${target.table}`);
const complete = (name: string) => ({
  name,
  triggerEnabled: true,
  rows: expect.objectContaining({ mismatched: 0 }),
});

it('takes three tables through the phases in one run, which one of them stops, and two that come later, one of them partitioned and with a key of two columns', async () => {
  const options = ['--rows', '2000', '--database-url', database.url, '--yes'];
  const stopped = bench.start(...options, '--tables', '3', '--fault', 'error-spike');
  expect(await stopped.exit(), stopped.output).toBe(2);
  const stop = stopped.report();
  expect(stop.reason).toMatch(/^Phase 3 .*: CheckVitals: public\.appointments: Error rate: expected/);
  expect(stop).toMatchObject({ outcome: 'STOPPED', plaintextUnchanged: true, liveTraffic: { failed: 0 } });
  // What one table has met stops all of them, and every trigger is off.
  expect(stop.tables.map(({ name, triggerEnabled }) => [name, triggerEnabled])).toEqual(
    names.slice(0, 3).map((name) => [name, false]),
  );
  // Phase 2 has passed for all; the table before whose turn the stop came has not begun phase 3.
  for (const { rows } of stop.tables) expect(rows.encrypted / rows.withPii).toBeGreaterThan(0.2);
  for (const { rows } of stop.tables.slice(1)) expect(rows.encrypted / rows.withPii).toBeLessThan(0.3);

  const resumed = bench.start(...options, '--tables', '3');
  expect(await resumed.exit(), resumed.output).toBe(0);
  const end = resumed.report();
  expect(end).toMatchObject({ outcome: 'COMPLETED', resumed: true, liveTraffic: { failed: 0 } });
  expect(end.tables).toEqual(names.slice(0, 3).map(complete));
  for (const { rows } of end.tables)
    expect([rows.encrypted, rows.verified]).toEqual([rows.withPii, rows.withPii]);

  const later = bench.start(...options, '--tables', '5');
  expect(await later.exit(), later.output).toBe(0);
  const all = later.report();
  expect(all).toMatchObject({ outcome: 'COMPLETED', liveTraffic: { failed: 0 } });
  expect(all.liveTraffic.writes).toBeGreaterThan(5);
  expect(all.tables).toEqual(names.map(complete));
  for (const { rows } of all.tables)
    expect([rows.encrypted, rows.verified]).toEqual([rows.withPii, rows.withPii]);
  const { rows: runs } = await database.client.query(
    `select status, attempt, (select json_agg(t.purpose order by t.target = any ($1), t.target) from encryption_rollout.run_targets t
       where t.run_id = r.id) as purposes
     from encryption_rollout.runs r order by started_at`,
    [names.slice(3)],
  );
  expect(runs).toEqual([
    { status: 'COMPLETED', attempt: 2, purposes: ['encrypt', 'encrypt', 'encrypt'] },
    { status: 'COMPLETED', attempt: 1, purposes: ['verify', 'verify', 'verify', 'encrypt', 'encrypt'] },
  ]);
}, 600_000);
