/** What people ask and do of a run over several tables. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { OperateOutput } from '../../../../lambdas/core/operating/operate.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { appointments, createStaff, deploy, staff } from '../../tables.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
beforeEach(async () => {
  world = await testWorld(400);
  await createStaff(world, 100);
  deploy(world, [appointments, staff]);
});
afterEach(() => world.stop());

const operate = (input: Record<string, unknown>): Promise<OperateOutput> =>
  world.invoke('operate', input.command === 'status' ? input : { by: 'R. Roe', ...input });
const status = async () => (await operate({ command: 'status' })).status;
const begin = async () => {
  run = await world.prepare('one');
};
const batch = (target: string, phase = 1, number = 0) =>
  world.inTurn('encrypt-batch', { run, phase, target, execution: `p${phase}-${target}`, batch: number });
const look = (target: string) => world.inTurn('check-vitals', { run, phase: 1, target, during: 'batch' });

describe('status', () => {
  test('names the tables of the deployment before the first run', async () => {
    const nothing = { purpose: 'encrypt', rows: null, triggerEnabled: null, errors: {} };
    expect(await status()).toMatchObject({
      run: null,
      rows: null,
      tables: [
        { name: appointments, ...nothing },
        { name: staff, ...nothing },
      ],
    });
  });

  test('tells each table, and the rows of all together, cut and never rounded up', async () => {
    await begin();
    await world.encrypt(run, 1, staff);
    await world.client.query(
      "insert into encryption_rollout.errors (error_type, target) values ('encryption', $1), ('trigger', null)",
      [staff],
    );
    const begun = await status();
    // Its part of the phase has not begun.
    expect(begun.tables).toEqual([
      {
        name: appointments,
        purpose: 'encrypt',
        rows: null,
        triggerEnabled: false,
        errors: expect.anything(),
        drift: [],
      },
      {
        name: staff,
        purpose: 'encrypt',
        rows: { withPersonalData: 100, encrypted: 5, percentage: 5 },
        triggerEnabled: false,
        errors: expect.objectContaining({ encryption: 1 }),
        drift: [],
      },
    ]);
    expect(begun.tables[0]?.errors).not.toHaveProperty('encryption');
    // But the sum is of both from the start: it does not fall when the other begins.
    expect(begun.rows).toEqual({ withPersonalData: 480, encrypted: 5, percentage: 1.04 });
    await world.encrypt(run, 1, appointments);
    await world.encrypt(run, 1, staff);
    await world.enableTrigger(run);
    const { rows, tables } = await status();
    expect(rows).toEqual({ withPersonalData: 480, encrypted: 24, percentage: 5 });
    expect(tables).toMatchObject([
      {
        name: appointments,
        rows: { withPersonalData: 380, encrypted: 19, percentage: 5 },
        triggerEnabled: true,
      },
      { name: staff, rows: { withPersonalData: 100, encrypted: 5, percentage: 5 }, triggerEnabled: true },
    ]);
  });

  test('is about the tables of the latest attempt', async () => {
    await begin();
    await world.encrypt(run, 1, staff);
    world.running.clear();
    await world.invoke('prepare-database', { input: { tables: [appointments] }, execution: 'two' });
    const { run: latest, tables, rows } = await status();
    expect(latest).toMatchObject({ id: run.id, attempt: 2 });
    expect(tables.map(({ name }) => name)).toEqual([appointments]);
    expect(rows, 'nothing of the table that is not part of it').toBeNull();
  });

  test('estimates the work of both, with the soaks once', async () => {
    await begin();
    await look(appointments);
    await look(staff);
    // An hour for each of the 480 rows, as soon as a tenth of them says so.
    await world.encrypt(run, 1, appointments);
    await world.encrypt(run, 1, staff);
    await world.client.query('update encryption_rollout.batches set milliseconds = 3600000 * rows_encrypted');
    const { hoursLeft, millisecondsPerRow } = await status();
    expect(millisecondsPerRow).toBeCloseTo(3_600_000);
    // 19 and 5 of them are done, and the soaks of the phases 1, 2 and 4 are to come.
    expect(hoursLeft).toBeCloseTo(480 - 24 + 6.5, 0);
  });
});

test('a pause, and its end, are for the batches of every table', async () => {
  await begin();
  await operate({ command: 'pause', reason: 'release' });
  for (const table of [appointments, staff]) {
    expect(await look(table)).toMatchObject({ outcome: 'WAIT', reason: 'Paused by R. Roe: release' });
    expect(await batch(table)).toMatchObject({ outcome: 'MORE', encrypted: 0 });
  }
  await operate({ command: 'resume' });
  for (const table of [appointments, staff]) {
    expect(await look(table)).toMatchObject({ outcome: 'OK' });
    expect((await batch(table)).encrypted).toBeGreaterThan(0);
  }
});

test('what is tuned is tuned for the batches of every table', async () => {
  await begin();
  await operate({ command: 'tune', batchRows: 2, pauseSeconds: 1 });
  for (const table of [appointments, staff])
    expect(await batch(table)).toMatchObject({ outcome: 'MORE', encrypted: 2, pauseSeconds: 1 });
});

test('go accepts what is unknown of the table that was asked about, and of no other', async () => {
  await begin();
  for (const table of [appointments, staff]) {
    await world.encrypt(run, 1, table);
    await world.encrypt(run, 2, table);
    await world.encrypt(run, 3, table);
  }
  // Only the trigger of one of them has been tested.
  await world.enableTrigger(run);
  await world.client.query(
    "update encryption_rollout.events set event = 'LOST' where event = 'TRIGGER_TESTED' and target = $1",
    [staff],
  );
  const gate = () => world.inTurn('gate', { run, phase: 4, stage: 'worked' });
  const held = await gate();
  expect(held).toMatchObject({ verdict: 'INCONCLUSIVE' });
  const { hold, message } = await world.invoke('ask-person', { run, gate: held.gate, execution: 'hold-1' });
  expect(message).toContain(`The encryption rollout of ${appointments} and ${staff} waits for a person`);
  expect(message).toContain(`${staff}: Canary insert: expected`);
  const { done } = await operate({ command: 'decide', hold, decision: 'go' });
  expect(done).toBe(`${hold} is decided: go. ${held.gate} is judged again.`);
  const judged = await gate();
  expect(judged.verdict).toBe('GO');
  expect(judged.criteria).toContainEqual(
    expect.objectContaining({
      name: 'Canary insert',
      table: staff,
      measured: 'not tested; accepted by R. Roe',
      passed: true,
    }),
  );
  const { rows } = await world.client.query('select unknown from encryption_rollout.holds');
  expect(rows).toEqual([{ unknown: [`${staff}: Canary insert`, `${staff}: Write latency`] }]);
  // Now nobody knows of the other one either.
  await world.client.query(
    "update encryption_rollout.events set event = 'LOST' where event = 'TRIGGER_TESTED'",
  );
  expect(await gate()).toMatchObject({
    verdict: 'INCONCLUSIVE',
    reason: expect.stringMatching(/^Phase 4 Enable Trigger: Gate: public\.appointments: Canary insert: /),
  });
});
