import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { cutOff } from '../../../support/database.ts';
import { metricsOf } from '../../tables.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(1_000);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

const target = 'public.appointments';
const batch = (number: number, phase = 1) =>
  world.inTurn('encrypt-batch', { run, phase, target, execution: 'e', batch: number });

async function encryptedRows(): Promise<number> {
  const { rows } = await world.client.query(
    'select count(*) as count from public.appointments where pii_iv is not null',
  );
  return Number(rows[0].count);
}

async function lastGate() {
  const { rows } = await world.client.query(
    'select * from encryption_rollout.gates order by id desc limit 1',
  );
  return rows[0];
}

describe('EncryptBatch', () => {
  test('stops phase 1 at 5 % of the rows that hold personal data', async () => {
    const { outcome, encrypted, percentage } = await batch(0);
    // 950 of the 1,000 seeded rows hold any.
    expect({ outcome, encrypted }).toEqual({ outcome: 'DONE', encrypted: 48 });
    expect(percentage).toBeCloseTo(5.05, 2);
    expect(await encryptedRows()).toBe(48);
  });

  test('does not count the scan of the table among the time that a batch takes', async () => {
    await world.client.query(`
      alter function encryption_rollout.health(text) rename to quick_health;
      do $do$ begin
        execute format($sql$
          create function encryption_rollout.health(p_target text) returns %s language sql as $body$
            select pg_sleep(3);
            select * from encryption_rollout.quick_health(p_target)
          $body$
        $sql$, pg_get_function_result('encryption_rollout.quick_health(text)'::regprocedure));
      end $do$`);
    // Which begins the phase, with a scan of its own.
    await batch(0, 2);
    world.aws.metrics.length = 0;
    const started = performance.now();
    for (let number = 1; (await batch(number, 2)).outcome !== 'DONE'; number++);
    const milliseconds = metricsOf(world, 'Payments', 'BatchMilliseconds').reduce(
      (sum, each) => sum + each,
      0,
    );
    expect(performance.now() - started - milliseconds).toBeGreaterThan(3_000);
  });

  test('delivered twice, encrypts and counts once', async () => {
    const first = await batch(0, 3);
    expect(await batch(0, 3)).toEqual({ ...first });
    expect(await encryptedRows()).toBe(first.encrypted);
    const { rows } = await world.client.query(
      'select rows_encrypted from encryption_rollout.phases where number = 3',
    );
    expect(rows).toEqual([{ rows_encrypted: first.encrypted }]);
  });

  test('of two deliveries at the same time, one does the work', async () => {
    const results = await Promise.allSettled([batch(0), batch(0)]);
    for (const result of results) {
      // Whichever came second is retried by Step Functions, or found the first one's result.
      if (result.status === 'fulfilled') expect(result.value.encrypted).toBe(48);
      else expect(result.reason).toMatchObject({ name: 'TransientError' });
    }
    expect((await batch(0)).encrypted).toBe(48);
    expect(await encryptedRows()).toBe(48);
  });

  test('publishes what it did under the target and the stack', async () => {
    await batch(0);
    for (const Target of ['Payments/public.appointments', 'Payments'])
      expect(world.aws.metrics).toContainEqual({
        name: 'RowsEncrypted',
        value: 48,
        dimensions: { Target },
      });
  });

  describe('at the adaptive pace', () => {
    beforeEach(async () => {
      await world.client.query(
        `update encryption_rollout.runs set pace = '{"share": 1, "batchMilliseconds": 50, "writers": 1}'`,
      );
    });
    const recorded = async () =>
      (
        await world.client.query(
          'select request, rows_encrypted as rows from encryption_rollout.batches order by started_at',
        )
      ).rows;

    test('one call works through as many batches as it takes, each recorded in its own transaction', async () => {
      world.configure({ plan: { phases: { 3: { batchRows: 100 } }, pace: { callSeconds: 300 } } });
      const { outcome, encrypted, pauseSeconds } = await batch(0, 3);
      expect({ outcome, pauseSeconds }).toEqual({ outcome: 'DONE', pauseSeconds: 0 });
      const batches = await recorded();
      expect(batches.length).toBeGreaterThan(1);
      expect(batches.reduce((sum, { rows }) => sum + rows, 0)).toBe(encrypted);
      expect(await encryptedRows()).toBe(encrypted);
      expect(encrypted).toBe(Math.ceil(950 * 0.91));
      const { rows } = await world.client.query('select share, batch_rows from encryption_rollout.paces');
      expect(rows).toHaveLength(1);
    });

    test('delivered twice, it does and counts the work once', async () => {
      world.configure({ plan: { phases: { 3: { batchRows: 100 } }, pace: { callSeconds: 300 } } });
      const first = await batch(0, 3);
      const before = await recorded();
      const { encrypted, ...ending } = first;
      expect(await batch(0, 3)).toMatchObject({ ...ending });
      expect(await recorded()).toEqual(before);
      const { rows } = await world.client.query(
        'select rows_encrypted from encryption_rollout.phases where number = 3',
      );
      expect(rows).toEqual([{ rows_encrypted: encrypted }]);
    });

    test('a row that fails ends the call, for the vitals to judge', async () => {
      world.configure({ plan: { phases: { 3: { batchRows: 100 } } } });
      await world.client.query(`
        create function public.poison() returns trigger language plpgsql as $$
        begin raise exception 'poison'; end $$;
        create trigger poison before update on public.appointments
          for each row when (new.is_vip) execute function public.poison()`);
      const { outcome, failed } = await batch(0, 3);
      expect(outcome).toBe('MORE');
      expect(failed).toBeGreaterThan(0);
      expect(await recorded()).toHaveLength(1);
    });

    test('somebody who pauses the run is heard between two batches', async () => {
      await world.client.query("update encryption_rollout.runs set paused_at = now(), paused_by = 'R. Roe'");
      expect(await batch(0, 3)).toMatchObject({ outcome: 'MORE', encrypted: 0 });
      expect(await recorded()).toEqual([]);
    });
  });

  describe('tells of its rates', () => {
    const rates = ['ErrorPercent', 'MillisecondsPerRow', 'ProgressPercent'];
    const published = () => world.aws.metrics.filter(({ name }) => rates.includes(name));
    const value = (name: string) => world.aws.metrics.find((metric) => metric.name === name)?.value as number;

    test('how many rows failed, how long one took, and how far the rollout is, under the target and the stack', async () => {
      await world.client.query(`
        create function public.poison() returns trigger language plpgsql as $$
        begin raise exception 'poison'; end $$;
        create trigger poison before update on public.appointments
          for each row when (new.is_vip) execute function public.poison()`);
      const { encrypted, failed, percentage } = await batch(0, 3);
      // As many as a rate takes, and both kinds.
      expect(encrypted + failed).toBeGreaterThanOrEqual(100);
      expect(encrypted).toBeGreaterThan(0);
      expect(failed).toBeGreaterThan(0);
      for (const Target of ['Payments/public.appointments', 'Payments']) {
        const there = published().filter(({ dimensions }) => dimensions.Target === Target);
        expect(there.map(({ name }) => name).sort()).toEqual(rates);
      }
      expect(published()).toHaveLength(2 * rates.length);
      expect(value('ErrorPercent')).toBeCloseTo((100 * failed) / (encrypted + failed));
      expect(value('MillisecondsPerRow')).toBeCloseTo(value('BatchMilliseconds') / encrypted);
      expect(value('ProgressPercent')).toBe(percentage);
      // 950 of the seeded rows hold personal data.
      expect(value('ProgressPercent')).toBeCloseTo((100 * encrypted) / 950, 1);
    });

    test('and of a handful of rows only how far it is', async () => {
      expect(await batch(0)).toMatchObject({ encrypted: 48 });
      expect(published()).toEqual(
        ['Payments/public.appointments', 'Payments'].map((Target) => ({
          name: 'ProgressPercent',
          value: expect.closeTo(5.05, 2),
          dimensions: { Target },
        })),
      );
    });
  });

  test('whose metrics are throttled is retried, and finds its result', async () => {
    world.aws.world.disturb = (operation) => {
      if (operation === 'PutMetricData') throw new AwsError('ThrottlingException', 'Rate exceeded');
    };
    await expect(batch(0)).rejects.toMatchObject({ name: 'TransientError' });
    world.aws.world.disturb = undefined;
    expect(await batch(0)).toMatchObject({ outcome: 'DONE', encrypted: 48 });
    expect(await encryptedRows()).toBe(48);
  });

  test('whose record cannot be written encrypts nothing, and leaves the cursor where it was', async () => {
    await world.client.query(
      'alter table encryption_rollout.batches add constraint full_up check (false) not valid',
    );
    await expect(batch(0)).rejects.toMatchObject({ name: 'DatabaseError', sqlState: '23514' });
    expect(await encryptedRows()).toBe(0);
    const { rows } = await world.client.query('select position from encryption_rollout.cursors');
    expect(rows).toEqual([]);
  });

  test.each([
    ['40001', 'TransientError'],
    ['40P01', 'TransientError'],
    ['53300', 'TransientError'],
    ['53100', 'DatabaseError'],
  ])('that meets SQLSTATE %s is a %s, and no row is called poison', async (sqlState, name) => {
    await world.client.query(`
      create function public.trouble() returns trigger language plpgsql as $$
      begin raise exception 'trouble' using errcode = '${sqlState}'; end $$;
      create trigger trouble before update of pii_iv on public.appointments
        for each row execute function public.trouble()`);
    await expect(batch(0)).rejects.toMatchObject({ name, sqlState });
    const { rows } = await world.client.query('select from public.encryption_errors');
    expect(rows).toEqual([]);
  });

  test('of an attempt that has been superseded writes nothing', async () => {
    world.running.delete('one');
    await world.prepare('two');
    await expect(batch(0)).rejects.toMatchObject({ name: 'RunSuperseded' });
    expect(await encryptedRows()).toBe(0);
  });

  test('with another key stops the phase before the first write', async () => {
    world.setKey({ number: 1, key: 'ab'.repeat(32) });
    expect(await batch(0)).toMatchObject({
      outcome: 'BREACH',
      reason: expect.stringContaining('Encryption key'),
    });
    expect(await encryptedRows()).toBe(0);
    expect(await lastGate()).toMatchObject({ gate: 'Phase 1 Initial Batch: EncryptBatch', verdict: 'NO_GO' });
  });

  test('gives way to a lock, tries once more, then stops the phase', async () => {
    const other = await world.connect();
    await other.query('begin; lock table public.appointments in share mode');
    const { outcome, reason } = await batch(0);
    await other.query('rollback');
    expect(outcome).toBe('BREACH');
    expect(reason).toContain('Database locks');
    expect(await encryptedRows()).toBe(0);
  });

  test('is not stopped for locks where something else of it was cancelled', async () => {
    await batch(0);
    const working = cutOff(world, 'table encryption_rollout.phases', () =>
      world.invoke('encrypt-batch', { run, phase: 1, target, execution: 'one', batch: 1 }),
    );
    await expect(working).rejects.toMatchObject({ name: 'DatabaseError', sqlState: '57014' });
  });

  test('passes over rows that another session has locked', async () => {
    const other = await world.connect();
    await other.query('begin');
    // Half of those that come first, so that the batch is bound to meet some.
    const { rows } = await other.query('select id from public.appointments where is_vip limit 50 for update');
    expect((await batch(0)).encrypted).toBe(48);
    const locked = await world.client.query(
      'select count(*)::int as count from public.appointments where pii_iv is not null and id = any ($1)',
      [rows.map(({ id }) => id)],
    );
    await other.query('rollback');
    expect(locked.rows[0].count).toBe(0);
  });

  test('returns CONTINUE when its execution has had its share of batches', async () => {
    const { outcome } = await world.inTurn('encrypt-batch', {
      run,
      phase: 5,
      target,
      execution: 'e',
      batch: 249,
    });
    expect(outcome).toBe('CONTINUE');
  });

  test('encrypts all there is in phase 5', async () => {
    await world.encrypt(run, 5);
    expect(await encryptedRows()).toBe(950);
  });
});

describe('when live edits have cleared what was counted as encrypted', () => {
  /** As if every counted row had been edited after its batch. */
  async function countAsEncrypted(phase: number, rows: number): Promise<void> {
    await world.inTurn('check-vitals', { run, phase, target, during: 'batch' });
    await world.client.query('update encryption_rollout.phases set rows_encrypted_now = $1', [rows]);
  }

  test('phase 1 is done with its 5 %, and does not chase single rows', async () => {
    await countAsEncrypted(1, 48);
    expect(await batch(0)).toMatchObject({ outcome: 'DONE', encrypted: 0 });
  });

  test('phase 3 sets its count right and goes on', async () => {
    await countAsEncrypted(3, 940);
    expect(await batch(0, 3)).toMatchObject({ outcome: 'MORE', percentage: 0 });
    expect(await batch(1, 3)).toMatchObject({ outcome: 'DONE' });
  });

  test('phase 5 goes back for rows that a lap has missed', async () => {
    await world.encrypt(run, 5);
    // A live write has moved a plain row to where this lap, clean so far, has been: behind the cursor, at the table's end.
    const cursor = `update encryption_rollout.cursors set dirty = false, position = '(1000000,0)'`;
    await world.client.query(
      'update public.appointments set email_encrypted = null where id = (select id from public.appointments where email is not null limit 1)',
    );
    await world.client.query(cursor);
    expect(await batch(100, 5)).toMatchObject({ outcome: 'MORE', encrypted: 0 });
    expect(await batch(101, 5)).toMatchObject({ encrypted: 1 });
  });
});

describe('rows that no lap can encrypt', () => {
  const stalled = { abort: { stalledLaps: 3, stalledMinutes: 0 } };

  /** Batches of phase 5 until one does not ask for more; fails instead of going on for ever. */
  async function phase5(): Promise<string> {
    for (let number = 0; number < 40; number++) {
      const { outcome } = await batch(number, 5);
      if (outcome !== 'MORE') return outcome;
    }
    throw new Error('phase 5 does not end');
  }
  const errors = async () =>
    (
      await world.client.query(
        `select first_name as name, sqlstate, detail
         from public.encryption_errors left join public.appointments as a on a.id::text = row_key order by first_name`,
      )
    ).rows;

  test('because somebody keeps them locked: they are named, and the phase ends', async () => {
    world.configure({ plan: stalled });
    const other = await world.connect();
    await other.query(
      "begin; select from public.appointments where first_name in ('Name77', 'Name177') for update",
    );
    expect(await phase5()).toBe('DONE');
    expect(await errors()).toEqual(
      ['Name177', 'Name77'].map((name) => ({
        name,
        sqlstate: '55P03',
        detail: 'somebody keeps the row locked; it is passed over until failed rows are tried again',
      })),
    );
    expect(await encryptedRows()).toBe(948);
    const gate = await world.inTurn('gate', { run, phase: 5, stage: 'worked' });
    expect(gate.verdict).toBe('NO_GO');
    const { rows } = await world.client.query(
      "select target, detail from encryption_rollout.events where event = 'ROWS_PASSED_OVER'",
    );
    expect(rows).toEqual([{ target, detail: { phase: 5, rows: 2, named: 2 } }]);
    await other.query('rollback');
  });

  test('because a trigger undoes each write: they are named, and the phase ends', async () => {
    world.configure({ plan: stalled });
    await world.client.query(`
      create function public.strip() returns trigger language plpgsql as $$ begin
        if new.first_name = 'Name77' and new.pii_iv is not null then
          update public.appointments set pii_iv = null, email_encrypted = null where id = new.id;
        end if; return null;
      end $$;
      create trigger strip after update on public.appointments for each row execute function public.strip()`);
    expect(await phase5()).toBe('DONE');
    expect(await errors()).toEqual([
      { name: 'Name77', sqlstate: 'ER012', detail: expect.stringContaining('undone again each time') },
    ]);
    expect(await encryptedRows()).toBe(949);
  });

  test('are waited for as long as the plan says', async () => {
    world.configure({ plan: { abort: { stalledLaps: 3, stalledMinutes: 30 } } });
    const other = await world.connect();
    await other.query("begin; select from public.appointments where first_name = 'Name77' for update");
    for (let number = 0; number < 12; number++)
      expect(await batch(number, 5)).toMatchObject({ outcome: 'MORE' });
    expect(await errors()).toEqual([]);
    await other.query('rollback');
    for (let number = 12; number < 14; number++) await batch(number, 5);
    expect(await encryptedRows()).toBe(950);
  });
});
