/** The samples of inputs, through the handlers that read them. */
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseConfig } from '../../../infra/config.ts';
import { parseInput, RolloutInput } from '../../../lambdas/core/plan/input.ts';
import { appointments, createStaff, deploy, runTables, staff } from '../tables.ts';
import { type TestWorld, testWorld } from '../world.ts';

const directory = 'config/inputs';
const files = readdirSync(directory);
const attested = JSON.parse(readFileSync('test/support/attested-input.json', 'utf8'));
const sample = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(`${directory}/${name}.json`, 'utf8'));

let world: TestWorld;
beforeEach(async () => {
  world = await testWorld(200);
});
afterEach(() => world.stop());

async function start(input: unknown, execution = 'one') {
  world.running.add(execution);
  const run = await world.invoke('prepare-database', { input, execution });
  return { run, judgement: await world.invoke('preflight', { run, input, onCall: { subscribers: 1 } }) };
}

describe('the samples of inputs', () => {
  test('are told in the operator guide, as is every field', () => {
    const guide = readFileSync('docs/operator-guide.md', 'utf8');
    for (const file of files) expect(guide).toContain(`config/inputs/${file}`);
    for (const field of Object.keys(RolloutInput.shape)) expect(guide).toContain(`| \`${field}\` |`);
  });

  test('every field has one, and every file is tried below', () => {
    const used = new Set(files.flatMap((file) => Object.keys(sample(file.replace('.json', '')))));
    expect([...used].sort()).toEqual(Object.keys(RolloutInput.shape).sort());
    expect(files.map((file) => file.replace('.json', ''))).toEqual([
      'acknowledged-triggers',
      'defaults',
      'dry-run',
      'one-phase',
      'pace',
      'priority',
      'resume',
      'tables',
    ]);
  });

  test('defaults', async () => {
    const { run, judgement } = await start(sample('defaults'));
    expect(run).toMatchObject({ resumeAt: 1, untilPhase: 5 });
    expect(judgement.verdict).toBe('GO');
  });

  test('example-input, where the configuration has none', async () => {
    world.configure({ attestations: {} });
    expect((await start(attested)).judgement.verdict).toBe('GO');
  });

  test('example-input as it is, given to the console, is refused before anything is written', async () => {
    const input = JSON.parse(readFileSync('config/example-input.json', 'utf8'));
    const refusal = {
      name: 'InvalidInput',
      message: expect.stringContaining(
        "attestations.stagingTestsPassed: expected the name of the person who attests, in the sample's place",
      ),
    };
    await expect(start(input)).rejects.toMatchObject(refusal);
    await expect(
      world.invoke('dry-run', { input: { ...input, dryRun: true }, onCall: { subscribers: 1 } }),
    ).rejects.toMatchObject(refusal);
    const { rows } = await world.client.query('select count(*)::int as runs from encryption_rollout.runs');
    expect(rows).toEqual([{ runs: 0 }]);
  });

  test('dry-run', async () => {
    expect(
      await world.invoke('dry-run', { input: sample('dry-run'), onCall: { subscribers: 1 } }),
    ).toMatchObject({
      verdict: 'GO',
      forecast: { rowsToEncrypt: 190 },
    });
  });

  test('pace', async () => {
    const { run } = await start(sample('pace'));
    const { rows } = await world.client.query('select pace from encryption_rollout.runs');
    expect(rows).toEqual([{ pace: { share: 0.5, batchMilliseconds: 500, writers: 1 } }]);
    const { pauseSeconds } = await world.invoke('encrypt-batch', {
      run,
      phase: 1,
      target: 'public.appointments',
      execution: 'e',
      batch: 0,
    });
    expect(pauseSeconds).toBe(0);
  });

  test('one-phase, then resume', async () => {
    const { run } = await start(sample('one-phase'));
    expect(run.untilPhase).toBe(1);
    await world.encrypt(run, 1);
    await world.invoke('gate', { run, phase: 1, stage: 'worked' });
    await world.inTurn('gate', { run, phase: 1, stage: 'soaked' });
    world.aws.metrics.length = 0;
    const { summary } = await world.invoke('end-phase', { run, phase: 1 });
    expect(summary).toMatch(/ended after "Phase 1 Initial Batch".* 10 of 190 rows.* trigger is disabled/);
    expect(world.aws.metrics).toEqual([]);
    const { rows } = await world.client.query(
      'select status, stop_reason, until_phase from encryption_rollout.runs',
    );
    expect(rows).toEqual([
      { status: 'STOPPED', stop_reason: 'Ended after phase 1, as its input asked', until_phase: 1 },
    ]);
    // A repeated delivery.
    expect(await world.invoke('end-phase', { run, phase: 1 })).toMatchObject({ summary });

    const resumed = await start(sample('resume'), 'two');
    expect(resumed.run).toMatchObject({ id: run.id, attempt: 2, resumeAt: 2, untilPhase: 5 });
    expect(resumed.judgement.verdict).toBe('GO');
  });

  test('priority: one condition for several tables is refused; by table, each has its own', async () => {
    await createStaff(world, 100);
    deploy(world, [appointments, staff]);
    await expect(start(sample('priority'))).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining(
        'priority: found one condition for 2 tables, expected one for each that has any, like {"public.appointments": "is_vip"}',
      ),
    });
    world.running.clear();
    const { run, judgement } = await start({ priority: { [staff]: 'is_manager' } }, 'two');
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({ table: staff, measured: '10 rows where is_manager' }),
    );
    await world.encrypt(run, 1, staff);
    const { rows } = await world.client.query(
      'select is_manager, count(*)::integer from public.staff where pii_iv is not null group by 1',
    );
    expect(rows).toEqual([{ is_manager: true, count: 5 }]);
  });

  test('priority: these rows come first', async () => {
    const { run, judgement } = await start(sample('priority'));
    expect(judgement.criteria).toContainEqual(expect.objectContaining({ measured: '20 rows where is_vip' }));
    await world.encrypt(run, 1);
    const { rows } = await world.client.query(
      'select is_vip, count(*)::integer from public.appointments where pii_iv is not null group by 1',
    );
    expect(rows).toEqual([{ is_vip: true, count: 10 }]);
  });

  test('tables: some of several, each with its own priority', async () => {
    await world.client.query(
      `create table public.users (id int primary key generated always as identity, name text not null, email text, phone text,
         created_at timestamptz default now());
       insert into public.users (name, email, phone)
       select 'u', 'user' || n || '@example.com', case when n % 10 = 0 then '+1555' || n end from generate_series(1, 100) as n;
       create schema billing;
       create table billing.invoices (number text primary key, recipient text);
       insert into billing.invoices select 'I' || n, 'Name' || n from generate_series(1, 40) as n`,
    );
    const path = 'config/example-tables.json';
    const { targets } = parseConfig(JSON.parse(readFileSync(path, 'utf8')), path);
    world.configure({ targets: [...targets] });
    const { run, judgement } = await start(sample('tables'));
    expect(judgement.verdict).toBe('GO');
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({ table: 'public.users', measured: '10 rows where phone is not null' }),
    );
    expect(judgement.criteria).not.toContainEqual(expect.objectContaining({ table: 'public.appointments' }));
    expect(await runTables(world, run)).toMatchObject([
      { name: 'public.users' },
      { name: 'billing.invoices' },
    ]);
    await world.encrypt(run, 1, 'public.users');
    await world.encrypt(run, 1, 'billing.invoices');
    expect((await world.invoke('gate', { run, phase: 1, stage: 'worked' })).verdict).toBe('GO');
    const { rows } = await world.client.query(
      `select (select count(*)::integer from public.users where pii_iv is not null and phone is not null) as users,
         (select count(*)::integer from public.users where pii_iv is not null) as "allUsers",
         (select count(*)::integer from billing.invoices where recipient_sealed is not null) as invoices`,
    );
    expect(rows).toEqual([{ users: 5, allUsers: 5, invoices: 2 }]);
    await world.client.query(
      "update encryption_rollout.runs set status = 'STOPPED', ended_at = clock_timestamp()",
    );
    // All of the deployment's: two go on, and one joins, from its beginning.
    const all = await start({}, 'two');
    expect(all.run).toMatchObject({ id: run.id, attempt: 2, resumeAt: 1 });
    const { tables } = (await world.invoke('operate', { command: 'status' })).status;
    expect(tables.map(({ name }: { name: string }) => name)).toEqual([
      'public.appointments',
      'public.users',
      'billing.invoices',
    ]);
  });

  test('a table, or a priority, of another deployment is refused by name', async () => {
    for (const [input, message] of [
      [{ tables: ['public.orders'] }, 'tables: found "public.orders", expected some of public.appointments'],
      [{ priority: { 'public.orders': 'true' } }, 'priority: found the table "public.orders", expected some'],
    ] as const)
      await expect(world.invoke('prepare-database', { input, execution: 'one' })).rejects.toMatchObject({
        name: 'InvalidInput',
        message: expect.stringContaining(message),
      });
  });

  test('acknowledged-triggers', async () => {
    await world.client.query(
      `create function public.audit() returns trigger language plpgsql as 'begin return new; end';
       create trigger audit_appointments after update on public.appointments
         for each row execute function public.audit()`,
    );
    expect((await start({}, 'one')).judgement.verdict).toBe('NO_GO');
    expect((await start(sample('acknowledged-triggers'), 'two')).judgement.verdict).toBe('GO');
  });
});

describe('an input that is wrong', () => {
  test.each([
    [{ untilPhase: 7 }, ': untilPhase: found 7, expected the number of a phase, 1 to 5'],
    [{ dryRun: 'yes' }, ': dryRun: found "yes", expected boolean'],
    [{ tables: [] }, ': tables: found [], expected at least one'],
    [
      { tables: ['public.appointments', 'public.staff'] },
      ': tables: found "public.staff", expected some of public.appointments, the tables of this deployment',
    ],
    [
      { priority: { 'public.staff': 'is_vip' } },
      ': priority: found the table "public.staff", expected some of public.appointments',
    ],
    [{ priority: { 'public.appointments': 'true; drop table x' } }, 'priority: found a semicolon'],
    [{ acknowledgedTriggers: ['audit', 5] }, ': acknowledgedTriggers.1: found 5, expected string'],
    [{ attestations: { onCallEstablished: 5 } }, 'attestations.onCallEstablished: '],
    [{ priority: 'true); update public.appointments set email = null; select (true' }, 'priority'],
    [
      { untilphase: 2 },
      'input: found untilphase, expected some of dryRun, untilPhase, tables, priority, pace, acknowledgedTriggers, attestations',
    ],
  ])('fails at once with the name of the field, and nothing has happened: %j', async (input, field) => {
    await expect(world.invoke('prepare-database', { input, execution: 'one' })).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining(field),
    });
    const { rows } = await world.client.query(
      `select (select count(*)::integer from encryption_rollout.runs) as runs,
         (select count(*)::integer from public.appointments where email is null and first_name is not null) as emptied`,
    );
    expect(rows[0].runs).toBe(0);
    expect(rows[0].emptied).toBeLessThan(50);
  });

  test('is not repeated where it may hold a person’s data', () => {
    for (const input of [{ priority: ['R. Roe'] }, { attestations: { onCallEstablished: ['R. Roe'] } }])
      expect(() => parseInput(input)).toThrow(/^(?!.*Roe).*(priority|onCallEstablished): /);
  });

  test('a condition on a column that is not there is refused by name', async () => {
    await expect(
      world.invoke('prepare-database', { input: { priority: 'is_very_important' }, execution: 'one' }),
    ).rejects.toMatchObject({
      name: 'UnusableTarget',
      message: expect.stringContaining('is_very_important'),
    });
  });
});
