import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { pastTriggers, seedAppointments } from '../../../support/database.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(400);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

const gate = (phase: number, stage: string) => world.inTurn('gate', { run, phase, stage });
const failed = (judgement: { criteria: { name: string; passed: boolean | null }[] }) =>
  judgement.criteria.filter(({ passed }) => passed !== true).map(({ name }) => name);

describe('Gate', () => {
  test('GO after the phase did its work; the phase ends after its soak', async () => {
    await world.encrypt(run, 1);
    expect(await gate(1, 'worked')).toMatchObject({ verdict: 'GO', gate: 'Phase 1 Initial Batch: Gate' });
    const passed = async () =>
      (await world.client.query('select passed_at from encryption_rollout.phases')).rows[0].passed_at;
    expect(await passed()).toBeNull();
    expect(await gate(1, 'soaked')).toMatchObject({ verdict: 'GO' });
    expect(await passed()).not.toBeNull();
  });

  test('NO_GO when the work is not done', async () => {
    expect(failed(await gate(1, 'worked'))).toEqual(['Rows encrypted']);
  });

  test('decrypts outside the database, and records what does not open by its key alone', async () => {
    await world.encrypt(run, 1);
    await pastTriggers(
      world.client,
      `update public.appointments set first_name_encrypted = set_byte(first_name_encrypted, 20, get_byte(first_name_encrypted, 20) # 1)
       where first_name_encrypted is not null`,
    );
    const judgement = await gate(1, 'worked');
    expect(failed(judgement)).toEqual(['Decryption matches plaintext', 'Decryption failures']);
    const { rows } = await world.client.query(
      "select * from public.encryption_errors where error_type = 'decryption'",
    );
    expect(rows.length).toBeGreaterThan(0);
    expect(JSON.stringify(rows)).not.toMatch(/example\.com|\+1555/);
  });

  test('INCONCLUSIVE when the customer alarm does not exist', async () => {
    await world.encrypt(run, 1);
    world.aws.world.alarms.clear();
    const judgement = await gate(1, 'worked');
    expect(judgement.verdict).toBe('INCONCLUSIVE');
    expect(failed(judgement)).toEqual(['Customer-facing alarms']);
  });

  test('NO_GO when a customer alarm rings', async () => {
    await world.encrypt(run, 1);
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    expect(failed(await gate(1, 'worked'))).toEqual(['Customer-facing alarms']);
  });

  test('phase 4: the trigger is tested with a canary that leaves no trace', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.enableTrigger(run);
    const judgement = await gate(4, 'worked');
    expect(failed(judgement)).toEqual([]);
    const { rows } = await world.client.query(
      "select from public.appointments where email = 'Canary@Example.com'",
    );
    expect(rows).toEqual([]);
  });

  test('phase 4: a trigger that cannot encrypt is found, and the write has gone through', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.client.query(
      "update encryption_rollout.key_material set key = decode(repeat('ab', 32), 'hex')",
    );
    await world.enableTrigger(run);
    expect(failed(await gate(4, 'worked'))).toContain('Canary insert');
  });

  test('phase 5: the audit verifies every row, and names the one that is wrong', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.enableTrigger(run);
    await world.encrypt(run, 5);
    await world.client.query('set session_replication_role = replica');
    const { rows } = await world.client.query(
      "update public.appointments set first_name = 'Changed' where id = (select id from public.appointments where first_name is not null limit 1) returning id",
    );
    const audit = await world.inTurn('audit-rows', { run, batch: 0 });
    expect(audit).toMatchObject({ outcome: 'DONE', verified: 379, mismatched: 1 });
    const recorded = await world.client.query(
      "select distinct row_key from public.encryption_errors where error_type = 'decryption'",
    );
    expect(recorded.rows).toEqual([{ row_key: rows[0].id }]);
    expect((await gate(5, 'audited')).verdict).toBe('NO_GO');
  });

  test('phase 5: rows that the audit has passed over are found missing, those written meanwhile are not', async () => {
    for (const phase of [1, 2, 3] as const) await world.encrypt(run, phase);
    await world.enableTrigger(run);
    await world.encrypt(run, 5);
    const query = (sql: string, ...values: unknown[]) => world.client.query(sql, values);
    // As if the walk had not met what comes before the fifth row. Nobody else writes here; a transaction in another
    // database would make the walk begin earlier.
    await query(
      `insert into encryption_rollout.audits (run_id, attempt, target, after_key, since)
       select $1, $2, 'public.appointments', array[id::text], pg_current_xact_id()
       from public.appointments order by id offset 4 limit 1`,
      run.id,
      run.attempt,
    );
    expect(await world.inTurn('audit-rows', { run, batch: 0 })).toMatchObject({
      outcome: 'DONE',
      mismatched: 0,
    });
    expect(failed(await gate(5, 'audited'))).toEqual(['Rows reached by the audit']);

    await query('delete from encryption_rollout.audits');
    await query(
      "update public.appointments set note = 'before' where id = (select id from public.appointments order by id desc limit 1)",
    );
    await world.inTurn('audit-rows', { run, batch: 0 });
    await query(
      'delete from public.appointments where id = (select id from public.appointments order by id limit 1)',
    );
    await query(
      "update public.appointments set email = 'x' where id = (select id from public.appointments order by id desc limit 1)",
    );
    await seedAppointments(world.client, 20);
    expect(failed(await gate(5, 'audited'))).toEqual([]);
  });
});
