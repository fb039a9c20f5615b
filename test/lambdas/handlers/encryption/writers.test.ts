/** Two writers on one table, by the synthesized machines. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readConfig } from '../../../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../../../infra/synthesis.ts';
import { exhaustSlice, noticeLap } from '../../../../lambdas/adapters/postgres/runs/laps.ts';
import { beginPhase, recountPhase } from '../../../../lambdas/adapters/postgres/runs/phases.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { type Ending, StateMachines, silent } from '../../../../rehearsal/machines/state-machines.ts';
import { passBefore, type TestWorld, worldsAfter } from '../../world.ts';

const pace = { mode: 'adaptive', writers: 2 } as const;
const { machines } = synthesizeRollout(readConfig('config/example.json'));
const kebab = (state: string) => state.replace(/(?<!^)[A-Z]/g, '-$&').toLowerCase();

let world: TestWorld;
let run: PrepareDatabaseOutput;
let stateMachines: StateMachines;

const begun = worldsAfter(2_000, async (first) => {
  await first.client.query(`
    alter table public.appointments set (fillfactor = 10);
    create table public.sealings (id uuid, pid integer);
    create function public.note_sealing() returns trigger language plpgsql as $$ begin
      if current_setting('encryption_rollout.batch', true) = 'on' then
        insert into public.sealings values (new.id, pg_backend_pid());
        perform pg_sleep(0.001);
      end if;
      return new; end $$;
    create trigger note_sealing before update of pii_iv on public.appointments
      for each row execute function public.note_sealing()`);
  // Some four rows to a page: several stripes.
  await first.client.query('vacuum full public.appointments');
  return first.prepare('one', { pace });
});
beforeEach(async () => {
  [world, run] = await begun();
  world.configure({
    plan: {
      phases: { 3: { batchRows: 200 }, 5: { batchRows: 200 } },
      // Rows are sealed slowly here, and the application may have to wait for a batch of them.
      abort: { lockWaitMilliseconds: 60_000 },
    },
  });
  stateMachines = new StateMachines({
    definitions: new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition])),
    invoke: (name, input) => world.invoke(kebab(name), input),
    listener: silent,
  });
});
afterEach(() => world.stop());

const execute = (name: MachineName, execution: string, input: unknown) =>
  stateMachines.execute(name, execution, input);

async function phase(number: 3 | 5): Promise<Ending> {
  await passBefore(world.client, run, number);
  const does = { approval: false, batches: true, trigger: false, soak: false, audit: false };
  const name = `${run.id}-${run.attempt}-p${number}`;
  return execute('Phase', name, { run: { ...run, resumeAt: 1 }, phase: number, part: 1, does });
}

const query = async (sql: string) => (await world.client.query(sql)).rows;

/** Both writers have written, at the same time, and no row that nobody edits was sealed twice. */
async function expectShared(): Promise<void> {
  const [overlap] = await query(
    `select count(*)::integer as n from encryption_rollout.batches as a join encryption_rollout.batches as b
       on a.request like '%-w1-1/%' and b.request like '%-w1-2/%' and a.rows_encrypted > 0 and b.rows_encrypted > 0
       and (a.started_at, a.milliseconds * interval '1 ms') overlaps (b.started_at, b.milliseconds * interval '1 ms')`,
  );
  expect(overlap.n).toBeGreaterThan(0);
  expect((await query('select distinct pid from public.sealings')).length).toBeGreaterThan(1);
  expect(
    await query(
      `select id from public.sealings join public.appointments using (id)
       where email is distinct from 'live@example.com' group by id having count(*) > 1`,
    ),
  ).toEqual([]);
}

const unsealed = async () =>
  (
    await query(
      `select count(*)::integer as n from public.appointments
       where pii_iv is null and coalesce(email, e164, first_name) is not null`,
    )
  )[0].n;

describe('two writers', () => {
  test('share a table beside live edits, each row once, from an aim to the last row', async () => {
    const session = await world.connect();
    let ended = false;
    const traffic = (async () => {
      while (!ended) {
        await session.query(
          `update public.appointments set email = 'live@example.com'
           where id = (select id from public.appointments where email like '%3@%' or email = 'live@example.com' limit 1 offset floor(random() * 40)::int)`,
        );
        await sleep(5);
      }
    })();
    expect(await phase(3)).toMatchObject({ status: 'SUCCEEDED', output: { verdict: 'GO' } });
    await expectShared();
    const [{ n, most }] = await query(
      `select count(*) filter (where pii_iv is not null)::integer as n, ceil(1900 * 0.91)::integer + 400 as most from public.appointments`,
    );
    expect(n).toBeGreaterThan(1_900 * 0.9);
    expect(n).toBeLessThanOrEqual(most);

    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const last = await phase(5);
    ended = true;
    await traffic;
    expect(last).toMatchObject({ status: 'SUCCEEDED', output: { verdict: 'GO' } });
    expect(await unsealed()).toBe(0);
    expect((await query('select slice from encryption_rollout.paces order by slice')).length).toBe(2);
    const { status } = await world.invoke('operate', { command: 'status' });
    expect(status.tuned.pace).toMatchObject({ writers: 2 });
    expect(status.paces).toHaveLength(2);
    await query(`update encryption_rollout.runs set pace = pace || '{"writers": 1}'`);
    expect((await world.invoke('operate', { command: 'status' })).status.paces).toHaveLength(1);
  });

  test('are ended together by a stop, and go on where they were', async () => {
    await world.client.query(`
      select encryption_rollout.set_trigger('public.appointments', true);
      create function public.slow() returns trigger language plpgsql as $$ begin
        if new.is_vip is not null then perform pg_sleep(0.02); end if; return new; end $$;
      create trigger slow before update of pii_iv on public.appointments for each row execute function public.slow()`);
    const working = phase(5);
    const atWork = async () =>
      (
        await query(
          `select pid from pg_stat_activity where application_name = 'encryption-rollout ${run.id} 1'
           and query like '%encrypt_batch%' and state = 'active'`,
        )
      ).length;
    while ((await atWork()) < 2) await sleep(10);
    await execute('Rollback', `${run.id}-1-rollback`, { run, reason: 'stopped by hand' });
    const state = await query(
      `select r.status, t.tgenabled from encryption_rollout.runs r, pg_trigger t where t.tgname = 'encrypt_appointment_pii'`,
    );
    expect({ state, atWork: await atWork() }).toEqual({
      state: [{ status: 'STOPPED', tgenabled: 'D' }],
      atWork: 0,
    });
    expect((await working).status).toBe('FAILED');
    const before = await unsealed();

    await world.client.query(
      "drop trigger slow on public.appointments; select encryption_rollout.set_trigger('public.appointments', true)",
    );
    world.running.clear();
    run = await world.prepare('two', { pace });
    expect(run.attempt).toBe(2);
    expect(await phase(5)).toMatchObject({ status: 'SUCCEEDED', output: { verdict: 'GO' } });
    expect({ left: await unsealed(), moved: before > 0 }).toEqual({ left: 0, moved: true });
    await expectShared();
  });
});

test('laps go on of the writer that meets a row again and again, while the other stands still', async () => {
  for (const slice of [0, 1])
    await query(
      `insert into encryption_rollout.cursors (target, purpose, leaf, slices, slice, laps)
       values ('public.appointments', 'encrypt', 'public.appointments'::regclass, 2, ${slice}, 1)`,
    );
  await query(
    `insert into encryption_rollout.phases (run_id, target, number, attempt, rows_with_pii, rows_encrypted_now)
     values ('${run.id}', 'public.appointments', 5, 1, 1900, 1899)`,
  );
  const ended = () => noticeLap(world.client, run, 'public.appointments', 5, 2);
  expect(await ended()).toBe(false);
  await exhaustSlice(world.client, run, 'public.appointments', 5, { slices: 2, slice: 0 });
  for (let lap = 0; lap < 3; lap++) {
    await query('update encryption_rollout.cursors set laps = laps + 1 where slice = 1');
    expect(await ended()).toBe(true);
    expect(await ended()).toBe(false);
  }
});

test('an exact count keeps what the other writer adds while it goes on', async () => {
  await beginPhase(world.client, run, 'public.appointments', 3);
  const [counting, holder] = [await world.connect(), await world.connect()];
  await holder.query('begin; lock table public.appointments in access exclusive mode');
  const counted = recountPhase(counting, run, 'public.appointments', 3);
  const isWaiting = `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%health%' and datname = current_database()`;
  while ((await query(isWaiting)).length === 0) await sleep(10);
  // As a batch does.
  await world.client.query(
    'update encryption_rollout.phases set rows_encrypted_now = rows_encrypted_now + 100',
  );
  await holder.query('rollback');
  expect(await counted).toMatchObject({ encryptedRows: 0, rowsWithPii: 1_900 });
  expect(await query('select rows_encrypted_now from encryption_rollout.phases')).toEqual([
    { rows_encrypted_now: 100 },
  ]);
});
