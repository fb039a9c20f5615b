import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { afterEach, describe, expect, test } from 'vitest';
import { createSampleTable } from '../../../../lambdas/adapters/postgres/migrations.ts';
import { freshDatabase } from '../../../support/database.ts';
import { type TestWorld, testWorld } from '../../world.ts';

let world: TestWorld;
afterEach(() => world.stop());

/** A world whose database has the sample table and nothing of the engine. */
async function untouched(rows = 200): Promise<void> {
  const database = await freshDatabase({ template: 'empty' });
  await createSampleTable(database.client);
  world = await testWorld(rows, database);
}

const dryRun = (input: object = {}) =>
  world.invoke('dry-run', { input: { dryRun: true, ...input }, onCall: { subscribers: 1 } });
const failed = (judgement: { criteria: { name: string; passed: boolean | null }[] }) =>
  judgement.criteria.filter(({ passed }) => passed !== true).map(({ name }) => name);

/** Everything that a write would leave: objects, columns, rows with their versions, sequences, locks apart. */
async function traces(client: pg.Client): Promise<unknown> {
  const { rows } = await client.query(`
    select
      (select json_agg(c order by c.oid) from (select oid, relname, relnatts, relfilenode from pg_class where oid >= 16384) as c) as classes,
      (select json_agg(p.oid order by p.oid) from pg_proc as p where oid >= 16384) as functions,
      (select json_agg(t order by t.oid) from (select oid, tgname, tgenabled from pg_trigger) as t) as triggers,
      (select json_agg(s order by s.sequencename) from pg_sequences as s) as sequences,
      (select count(*)::integer from pg_roles where rolname like 'encryption%') as roles,
      (select md5(string_agg(a.xmin::text || a.ctid::text || a::text, ',' order by a.ctid)) from public.appointments as a) as rows`);
  const records = await client.query(
    "select to_regclass('encryption_rollout.events') is not null as installed",
  );
  const events = records.rows[0].installed
    ? (
        await client.query(
          'select (select count(*)::integer from encryption_rollout.events) as events, (select count(*)::integer from encryption_rollout.gates) as gates, (select count(*)::integer from encryption_rollout.runs) as runs',
        )
      ).rows
    : [];
  return [rows, events];
}

async function withoutTrace<T>(work: () => Promise<T>): Promise<T> {
  const before = await traces(world.client);
  world.aws.metrics.length = 0;
  const result = await work();
  expect(await traces(world.client)).toEqual(before);
  expect(world.aws.metrics).toEqual([]);
  expect(world.aws.executions.size).toBe(0);
  return result;
}

describe('DryRun on a database without the engine', () => {
  test('of many tables hands on what the output of an execution has room for, and counts the rest', async () => {
    await untouched(0);
    const names = Array.from({ length: 100 }, (_, n) => `customers_of_the_branch_with_the_long_name_${n}`);
    await world.client.query(
      names
        .map(
          (name) =>
            `create table public.${name} (id integer primary key, email text, created_at timestamptz)`,
        )
        .join(';'),
    );
    world.configure({
      targets: names.map((table) => ({
        table,
        columns: ['email'],
        canary: { id: -1, email: 'c@example.com' },
      })),
    });
    const judgement = await dryRun();
    // https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
    expect(Buffer.byteLength(JSON.stringify(judgement))).toBeLessThan(200_000);
    expect(judgement.leftOut).toBeGreaterThan(100);
    expect(judgement.forecast.tables).toHaveLength(100);
  });

  test('GO with a forecast, and leaves no trace', async () => {
    await untouched();
    const judgement = await withoutTrace(() => dryRun());
    expect(judgement.reason).toMatch(/all \d+ criteria passed/);
    expect(judgement).toMatchObject({
      gate: 'DryRun',
      verdict: 'GO',
      forecast: { rowsToEncrypt: 190, batches: 4 },
    });
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({
        name: 'Canary row',
        measured: 'nothing is against it; not inserted, since a dry run writes nothing',
      }),
    );
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({
        name: 'Guard against stale ciphertext',
        measured: 'not there yet: the rollout adds it',
      }),
    );
  });

  test('does not ask for the backup that the rollout will take', async () => {
    await untouched();
    world.aws.world.snapshotAt = new Date(Date.now() - 25 * 3_600_000);
    try {
      expect(failed(await dryRun())).toEqual(['Database backup completed']);
      world.configure({ takeBackup: true });
      const { verdict, criteria } = await dryRun();
      expect(verdict).toBe('GO');
      expect(criteria).toContainEqual(
        expect.objectContaining({ measured: '1 day 1 h old; the rollout takes one first' }),
      );
    } finally {
      world.aws.world.snapshotAt = new Date();
    }
  });

  test('names what PrepareDatabase would refuse', async () => {
    await untouched();
    await world.client.query('alter table public.appointments drop constraint appointments_pkey cascade');
    await world.client.query(
      'alter table public.appointments alter column email type varchar, add column pii_iv text',
    );
    world.configure({ targets: [{ columns: ['email', 'is_vip', 'nobody'] }] });
    const judgement = await withoutTrace(() => dryRun());
    expect(judgement.verdict).toBe('NO_GO');
    expect(failed(judgement)).toEqual(['Key', 'Column nobody', 'Column pii_iv']);
  });

  test('a table that is not there', async () => {
    await untouched();
    world.configure({ targets: [{ table: 'appointment', columns: ['email'], canary: {} }] });
    const judgement = await withoutTrace(() => dryRun());
    expect(failed(judgement)).toEqual(['Table']);
    expect(judgement.forecast).toBeNull();
  });

  test("asks for people's attestations, and takes those of the input", async () => {
    await untouched();
    world.configure({ attestations: { stagingTestsPassed: 'R. Roe' } });
    const judgement = await dryRun({ attestations: { rollbackTested: 'J. Doe' } });
    expect(failed(judgement)).toHaveLength(5);
  });

  test("finds others' triggers, and code of others", async () => {
    await untouched();
    const stranger = `stranger_${randomBytes(4).toString('hex')}`;
    await world.client.query(
      `create function public.note() returns trigger language plpgsql as 'begin return new; end';
       create trigger audit after update on public.appointments for each row execute function public.note();
       create role ${stranger}; grant trigger on public.appointments to ${stranger}`,
    );
    try {
      expect(failed(await withoutTrace(() => dryRun()))).toEqual([
        'Other triggers on the table',
        'No foreign code in batches',
      ]);
      await world.client.query('create publication feed for table public.appointments');
      const judgement = await dryRun({ acknowledgedTriggers: ['audit'] });
      expect(judgement.additions).toContainEqual(expect.objectContaining({ name: 'email_encrypted' }));
      expect(judgement.notices).toContainEqual(
        expect.objectContaining({
          about: 'replication',
          finding: 'publication feed sends it to subscribers',
        }),
      );
      expect(failed(judgement)).toEqual(['No foreign code in batches']);
    } finally {
      await world.client.query(`drop owned by ${stranger}; drop role ${stranger}`);
    }
  });

  test('a key that cannot be read is a failed line, not a metric', async () => {
    await untouched();
    world.setKey(undefined);
    const judgement = await withoutTrace(() => dryRun());
    expect(failed(judgement)).toEqual(['Encryption key configured']);
    expect(judgement.reason).toMatch(
      /could not be read from the secret arn:\S+: found no such secret in us-east-1, where this is deployed\. Expected/,
    );
  });

  test('a wrong input names its field', async () => {
    await untouched();
    await expect(dryRun({ untilPhase: 9 })).rejects.toThrow(/untilPhase/);
    await expect(dryRun({ priority: 'true); drop table public.appointments; select (true' })).rejects.toThrow(
      /priority/,
    );
  });
});

describe('DryRun on a database with the engine', () => {
  test('in the middle of a rollout it judges what is left, and leaves no trace', async () => {
    world = await testWorld(400);
    const run = await world.prepare('one');
    await world.encrypt(run, 1);
    await world.encrypt(run, 2);
    const judgement = await withoutTrace(() => dryRun({ priority: 'is_vip' }));
    expect(judgement).toMatchObject({ verdict: 'GO', forecast: { rowsToEncrypt: 380 - 94 } });
    expect(judgement.criteria).toContainEqual(expect.objectContaining({ measured: '40 rows where is_vip' }));
  });

  test('an engine that was installed by hand, without a key, gets its key when the rollout begins', async () => {
    world = await testWorld(20);
    await world.client.query(
      'delete from encryption_rollout.key_material; delete from encryption_rollout.keys',
    );
    const judgement = await withoutTrace(() => dryRun());
    expect(judgement.verdict).toBe('GO');
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({ measured: 'readable, and not in the database yet' }),
    );
  });

  test('a rename that nobody has followed, by the old name and by the new one', async () => {
    world = await testWorld(200);
    await world.client.query('alter table public.appointments rename email to mail');
    const renamed = await withoutTrace(() => dryRun());
    expect(renamed.verdict).toBe('NO_GO');
    expect(renamed.criteria).toContainEqual(
      expect.objectContaining({
        name: 'As it was registered',
        passed: false,
        measured: 'column email of public.appointments: renamed to mail found, its name expected',
        advice: 'npm run rollout -- follow public.appointments',
      }),
    );
    await world.client.query('alter table public.appointments rename to visits');
    world.configure({
      targets: [
        {
          table: 'visits',
          canary: {
            organization_id: '00000000-0000-4000-8000-000000000000',
            start_at: '2030-01-01T00:00:00Z',
            end_at: '2030-01-01T00:30:00Z',
            mail: 'Canary@Example.com',
          },
          columns: ['mail', 'e164', 'first_name'],
          trigger: 'encrypt_appointment_pii',
        },
      ],
    });
    expect(failed(await dryRun())).toContain('As it was registered');
    await world.client.query("select encryption_rollout.follow('public.appointments')");
    expect(failed(await dryRun())).not.toContain('As it was registered');
  });

  test('another key than that of the database', async () => {
    world = await testWorld(20);
    await world.prepare('one');
    world.setKey({ number: 1, key: 'ab'.repeat(32) });
    expect(failed(await withoutTrace(() => dryRun()))).toEqual(['Encryption key configured']);
  });

  test('a trigger that is on without any rollout', async () => {
    world = await testWorld(20);
    await world.client.query('alter table public.appointments enable trigger encrypt_appointment_pii');
    expect(failed(await dryRun())).toEqual(['Trigger before the start']);
  });
});
