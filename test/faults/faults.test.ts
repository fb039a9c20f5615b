/** The fault matrix. In the project `faults` all of it, written to docs/reliability.md; in the unit tests the cheapest. */

import pg from 'pg';
import { afterAll, describe, expect, inject, test } from 'vitest';
import { absentReader, hostileDatabase, hostileSettings } from '../security/hostile-server.ts';
import type { TestDatabase } from '../support/database.ts';
import { deliveries } from './deliveries.ts';
import type { Fault } from './fault.ts';
import { randomKills } from './kills.ts';
import { locks } from './locks.ts';
import { type Measured, reportFaults } from './report.ts';
import { rows } from './rows.ts';
import { forgetRollouts, setScene, writers } from './scene.ts';
import { installed, OwnServer } from './server.ts';
import { servers } from './servers.ts';
import { surroundings } from './surroundings.ts';
import { table } from './table.ts';

const all = process.env.FAULTS === 'all';
const isAdaptive = process.env.FAULTS_PACE === 'adaptive';
/** On a server that grants, publishes, streams and logs all that it can: FAULTS_SERVER=hostile npm run test:faults */
const isHostile = process.env.FAULTS_SERVER === 'hostile';
const groups: Readonly<Record<string, readonly Fault[]>> = {
  'The server and the way to it': [randomKills(!all ? 3 : isAdaptive || isHostile ? 30 : 300), ...servers],
  'Other sessions': locks,
  'AWS Lambda and Step Functions': deliveries,
  'Other AWS services, keys and clocks': surroundings,
  Rows: rows,
  'The table': table,
};

const started = performance.now();
const measured: Measured[] = [];

describe.each(Object.entries(groups))('%s', (group, faults) => {
  const chosen = faults.filter(({ bounded, oneWriter }) =>
    writers === 1 ? all || bounded : all && !oneWriter,
  );
  // The random kills take minutes.
  test.for(chosen)('$name', { timeout: all ? 1_200_000 : 180_000 }, async (fault) => {
    measured.push({ group, fault, ...(await provoke(fault)) });
  });
});

afterAll(forgetRollouts);
afterAll(async () => {
  // Not of a part of the matrix, not of one that failed, and not of the other pace or server.
  if (!all || isAdaptive || isHostile || measured.length !== Object.values(groups).flat().length) return;
  const client = new pg.Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  const { rows } = await client.query("select current_setting('server_version') as version");
  await client.end();
  reportFaults(measured, `PostgreSQL ${rows[0].version}`, (performance.now() - started) / 1000);
});

/** A fault about a database of its own has that one, on any server. */
async function settingOf(fault: Fault): Promise<{ server: OwnServer; database: TestDatabase | undefined }> {
  if (!isHostile || fault.database !== undefined) {
    const server = new OwnServer(fault.server ?? []);
    if (fault.server) await server.start();
    return { server, database: fault.server ? await server.database() : await fault.database?.() };
  }
  const server = new OwnServer([...(fault.server ?? []), ...hostileSettings]);
  await server.start();
  const database = await hostileDatabase(server);
  await installed(database.client);
  // Preflight asks for it, and gates would of each table that a fault makes.
  await database.client.query('alter default privileges revoke trigger on tables from shop');
  await absentReader(server);
  return { server, database };
}

/** Sets the scene, provokes the fault, repairs, resumes to the end, and has the invariant checker look at every row. */
async function provoke(fault: Fault): Promise<Pick<Measured, 'said' | 'outcome'>> {
  const { server, database } = await settingOf(fault);
  const { scene, finish, clear } = await setScene({
    rows: fault.rows ?? 400,
    database,
    prepare: async (client, world) => fault.prepare?.(client, world),
  });
  try {
    const said = await fault.run(scene, server);
    const outcome = await finish();
    expect(outcome).toMatchObject({ lost: 0, undecryptable: 0, violations: [] });
    return { said, outcome };
  } finally {
    await clear();
  }
}
