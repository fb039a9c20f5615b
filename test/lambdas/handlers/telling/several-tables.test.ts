/** What is told of a run over several tables. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readReport } from '../../../../lambdas/adapters/postgres/telling/report.ts';
import { defaultPlan } from '../../../../lambdas/core/plan/plan.ts';
import { reportMarkdown } from '../../../../lambdas/core/telling/report-markdown.ts';
import { appointments, createStaff, deploy, rollBack, staff } from '../../tables.ts';
import { rollOut, walkPhase } from '../../whole-rollout.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(400);
  await createStaff(world, 100);
  deploy(world, [appointments, staff]);
});
afterEach(() => world.stop());

test('a status update tells how both are doing', async () => {
  const run = await world.prepare('one');
  await world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  await walkPhase(world, run, 1);
  const { subject, message } = await world.invoke('write-update', {});
  expect(subject).toBe('Payments: Phase 1 Initial Batch, 5 %: public.appointments and 1 more');
  expect(message).toContain(`Encryption of ${appointments} and ${staff} (run ${run.id}, attempt 1): Phase 1`);
  expect(message).toContain('Where: 24 of 480 rows with personal data (5 %); in Phase 1 Initial Batch');
  expect(message).toContain(
    `\n- ${appointments}: 19 of 380 rows with personal data (5 %), errors in this attempt: none; trigger disabled.\n` +
      `- ${staff}: 5 of 100 rows with personal data (5 %), errors in this attempt: none; trigger disabled.\n`,
  );
});

test('a report has the phases, audits and use of the key of each, also of one that joined later', async () => {
  deploy(world, [appointments]);
  const first = await world.prepare('one');
  await world.invoke('preflight', { run: first, input: {}, onCall: { subscribers: 1 } });
  await walkPhase(world, first, 1);
  await rollBack(world, first);
  deploy(world, [appointments, staff]);
  await rollOut(world, await world.prepare('two'));

  const written = await readReport(world.client, defaultPlan);
  if (written === undefined) throw new Error('no report');
  const completedAt = expect.stringMatching(/^20.*Z$/);
  expect(written.tables).toMatchObject([
    { name: appointments, purpose: 'encrypt', attempt: 2, completedAt },
    { name: staff, purpose: 'encrypt', attempt: 2, completedAt },
  ]);
  expect(written.phases.map(({ number, table }) => `${number} ${table}`)).toEqual(
    [1, 2, 3, 4, 5].flatMap((number) => [`${number} ${appointments}`, `${number} ${staff}`]),
  );
  const rowsOf = (name: string) =>
    written.phases
      .filter(({ table }) => table === name)
      .reduce((rows, { rowsEncrypted }) => rows + rowsEncrypted, 0);
  expect([rowsOf(appointments), rowsOf(staff)]).toEqual([380, 100]);
  expect(written.audits).toEqual([
    { table: appointments, attempt: 2, finished: true, rowsVerified: 380, rowsMismatched: 0 },
    { table: staff, attempt: 2, finished: true, rowsVerified: 100, rowsMismatched: 0 },
  ]);
  const batches = written.keyAccess.filter(({ purpose }) => purpose === 'batch');
  expect(batches.map(({ table }) => table).sort()).toEqual([appointments, staff]);
  const text = reportMarkdown(written);
  expect(text).toContain(`# Rollout report: encryption of ${appointments} and ${staff}\n`);
  // The table that joined later had no trigger to be switched off.
  expect(text).toMatch(/rollback of attempt 1: trigger off after [\d.]+ m?s, plaintext proven/);
  for (const name of [appointments, staff]) {
    expect(text).toMatch(
      new RegExp(`- Phase 3 Bulk Migration: [\\d.]+ m?s, .*\\n(  - .*\\n)*  - ${name}: [\\d.]+ ms a row`),
    );
    expect(text).toMatch(new RegExp(`- Latency of writes, ${name}: [\\d.]+ ms without the trigger`));
    expect(text).toMatch(new RegExp(`batch of ${name}: \\d+ times? for`));
  }
});
