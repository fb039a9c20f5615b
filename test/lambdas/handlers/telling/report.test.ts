import { afterEach, expect, test } from 'vitest';
import { readReport } from '../../../../lambdas/adapters/postgres/telling/report.ts';
import { successCriteria } from '../../../../lambdas/core/afterwards/success-metrics.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { reportMarkdown } from '../../../../lambdas/core/telling/report-markdown.ts';
import { appointments } from '../../tables.ts';
import { rollOut, walkPhase } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
afterEach(() => world.stop());

const report = () => readReport(world.client, defaultPlan);

test('there is none before the first run', async () => {
  world = await testWorld(10);
  expect(await report()).toBeUndefined();
});

test('of a rollout that was stopped, resumed and completed: both attempts, and nothing of anybody', async () => {
  world = await testWorld(600);
  const stopped = await world.prepare('one');
  await world.invoke('preflight', { run: stopped, input: {}, onCall: { subscribers: 1 } });
  await walkPhase(world, stopped, 1);
  const rollback = { run: stopped, reason: 'A test wants it' };
  for (const handler of ['cancel-batches', 'disable-trigger', 'prove-plaintext', 'gather-evidence'])
    await world.invoke(handler, rollback);
  world.running.delete('one');
  world.configure({ version: '1.3.0' });
  const run = await world.prepare('two');
  await world.client.query(
    `insert into encryption_rollout.holds
       (id, run_id, attempt, gate, reason, unknown, expires_at, task_token, decision, decided_at, decided_by, comment)
     values ('hold-abc', $1, 2, 'Phase 3 Bulk Migration: Gate', 'CPU: no reading', '{Database CPU}', now() + interval '1 hour',
       'the-token', 'go', clock_timestamp(), 'R. Roe', 'seen in the console')`,
    [run.id],
  );
  await rollOut(world, run);

  const written = await report();
  if (written === undefined) throw new Error('no report');
  expect(written.run).toMatchObject({ id: run.id, status: 'COMPLETED', attempts: 2 });
  expect(written.about.versions).toEqual(['1.2.3', '1.3.0']);
  expect(written.tables).toMatchObject([
    { name: appointments, purpose: 'encrypt', attempt: 2, completedAt: expect.stringMatching(/^20.*Z$/) },
  ]);
  expect(written.phases.map(({ table, number, passedAt }) => [table, number, passedAt !== null])).toEqual(
    [1, 2, 3, 4, 5].map((number) => [appointments, number, true]),
  );
  expect(written.phases.reduce((rows, { rowsEncrypted }) => rows + rowsEncrypted, 0)).toBe(570);
  expect(written.pace.reduce((rows, stretch) => rows + stretch.rows, 0)).toBe(570);
  for (const { at, seconds } of written.pace) expect(Date.parse(at) % (seconds * 1_000)).toBe(0);
  expect(written.gates.at(-1)).toMatchObject({
    gate: 'Phase 5 Complete Remaining: AuditGate',
    verdict: 'GO',
  });
  expect(written.audits).toEqual([
    { table: appointments, attempt: 2, finished: true, rowsVerified: 570, rowsMismatched: 0 },
  ]);
  expect(written.keyAccess).toContainEqual(
    expect.objectContaining({ table: appointments, purpose: 'batch' }),
  );

  const text = reportMarkdown(written);
  expect(text).toMatch(
    /rollback of attempt 1: trigger off after [\d.]+ m?s, plaintext proven after [\d.]+ m?s/,
  );
  expect(text).toMatch(
    /Held at Phase 3 Bulk Migration: Gate: CPU: no reading\. Decided after .* go by R\. Roe \(seen in the console\)/,
  );
  expect(text).toContain('- Made with versions 1.2.3, then 1.3.0; database ');
  expect(text).toMatch(/Phase 5 Complete Remaining: .* expected/);
  expect(text).toMatch(/ms a row, expected at most 5 ms;/);
  expect(text).toMatch(
    /Latency of writes, public\.appointments: [\d.]+ ms without the trigger, [\d.]+ ms with it/,
  );
  expect(text).toContain('## What went well');
  for (const secret of ['the-token', '@example.com', 'CanaryTest', '+1555']) {
    expect(text).not.toContain(secret);
    expect(JSON.stringify(written)).not.toContain(secret);
  }
});

test('of a run with thousands of waits: they push nothing else out, and what is left out is said', async () => {
  world = await testWorld(10);
  const run = await world.prepare('one');
  await world.client.query(
    `insert into encryption_rollout.events (run_id, attempt, event, detail)
     select $1, 1, event, '{"for": "Pressure that can ease: CPU"}'
     from generate_series(1, 600) as i, unnest('{WAITING,GOING_ON}'::text[]) as event
     order by i, event desc`,
    [run.id],
  );
  const written = await report();
  expect(written?.events[0]?.event).toBe('STARTED');
  expect(written?.events.filter(({ event }) => event === 'WAITING')).toHaveLength(250);
  expect(written?.leftOut).toEqual({ gates: 0, events: 700, holds: 0 });
});

test('of a run that was resumed hundreds of times: what a report leaves out is not missing from the records', async () => {
  world = await testWorld(10);
  const run = await world.prepare('one');
  await world.client.query(
    `insert into encryption_rollout.events (run_id, attempt, event, detail) values ($1, 1, 'WAITING', '{"for": "Paused by R. Roe"}')`,
    [run.id],
  );
  await world.client.query(
    `insert into encryption_rollout.events (run_id, attempt, event)
     select $1, attempt, event from generate_series(2, 401) as attempt, unnest('{RESUMED,STOPPED}'::text[]) as event
     order by attempt, event`,
    [run.id],
  );
  await world.client.query('update encryption_rollout.runs set attempt = 401');
  const written = await report();
  if (written === undefined) throw new Error('no report');
  const judged = successCriteria(defaultPlan, {
    report: written,
    ownAlarms: [],
    writeMilliseconds: [{ table: appointments, off: 1, on: 1 }],
  }).find(({ name }) => name === 'Audit trail complete');
  expect(written.leftOut.events).toBe(301);
  expect(judged).toMatchObject({ measured: 'complete', passed: true });
});
