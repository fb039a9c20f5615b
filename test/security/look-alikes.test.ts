/**
 * Nobody is misled by functions, operators and types that look like PostgreSQL's: not the SQL, not a command, not a handler, also
 * where they come first in everybody's search_path and the caller is a superuser.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { Target } from '../../lambdas/core/plan/settings.ts';
import { Cloud, identity, rollout, stackOf } from '../cli/cloud.ts';
import { rollOut } from '../lambdas/whole-rollout.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';
import {
  appointments,
  type FrozenDatabase,
  freshDatabase,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';
import { layTrap, leadIntoTrap, type Trap } from './look-alikes.ts';

let trap: Trap;
/** Without the engine; and with it, and 40 rows of the sample table, of which none is encrypted. */
let bare: FrozenDatabase;
let installed: FrozenDatabase;
let directory: string;
let keyFile: string;
beforeAll(async () => {
  const empty = await freshDatabase({ template: 'empty' });
  trap = await layTrap(empty.client);
  await createSampleTable(empty.client);
  await seedAppointments(empty.client, 40);
  bare = await empty.freeze();
  const full = await freshDatabase({ template: bare });
  await migrate(full.client);
  await full.client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  await full.client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  installed = await full.freeze();
});
afterAll(() => trap.remove());

let database: TestDatabase;
async function open(template: FrozenDatabase): Promise<void> {
  database = await freshDatabase({ template });
  await leadIntoTrap(database.client);
}
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'look-alikes-'));
  keyFile = join(directory, 'keys.json');
  writeFileSync(keyFile, JSON.stringify({ number: testKey.number, key: testKey.key.toString('hex') }));
});
afterEach(async () => {
  rmSync(directory, { recursive: true });
  await database.drop();
  const called = trap.called();
  trap.forget();
  expect(called).toEqual([]);
});

test('those who do not look out call them', async () => {
  await open(bare);
  const victim = await database.connect();
  for (const [sql, name] of [
    ["select upper('a')", 'upper(text)'],
    ["select 'pg_class'::pg_catalog.regclass = 1::pg_catalog.oid", 'regclass = oid'],
    // As in what is read-only, and rolled back.
    ["begin read only; select current_user || 'a'", 'name || name'],
  ] as const) {
    await expect(victim.query(sql)).rejects.toThrow(`hijacked by ${name}`);
    expect(trap.called()).toEqual([name]);
    trap.forget();
  }
});

test('the SQL calls none', async () => {
  await open(installed);
  const victim = await database.connect();
  const call = async (sql: string) => (await victim.query(sql)).rows;
  await call(`select encryption_rollout.register_target('${JSON.stringify(appointments)}')`);
  expect(await call('select search_path from encryption_rollout.targets')).toEqual([
    { search_path: 'evil, pg_catalog, public' },
  ]);
  expect(await call('select public.batch_encrypt_appointments(10)')).toEqual([
    { batch_encrypt_appointments: 10 },
  ]);
  await call("select encryption_rollout.set_trigger('public.appointments', true)");
  await call("select encryption_rollout.encrypt_batch('public.appointments', 100)");
  await call("update public.appointments set first_name = 'Changed'");
  await call(
    `select encryption_rollout.insert_canary('public.appointments', '${JSON.stringify(Target.parse({}).canary)}')`,
  );
  expect(await call("select health_status from encryption_rollout.health('public.appointments')")).toEqual([
    { health_status: 'HEALTHY' },
  ]);
  await call('select * from public.get_encryption_health_summary()');
  await call("select * from public.get_key_access_stats('1 hour')");
  await call("select encryption_rollout.sample_rows('public.appointments', 5)");
  await call("select encryption_rollout.audit_rows('public.appointments', null, 5)");
  await call("select encryption_rollout.new_rows('public.appointments', '2000-01-01')");
  await call("select encryption_rollout.forget_failed_rows('public.appointments')");
  expect(
    await call(
      'select pg_catalog.count(public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id))::pg_catalog.int4 as opened from public.appointments',
    ),
  ).toEqual([{ opened: 35 }]);
  await call('select encryption_rollout.uninstall()');
});

/** What a command of the command line does there, by its name: all that there are, as it says itself. */
const onDatabase: Record<string, () => Promise<void>> = {
  async init() {
    await open(bare);
    await run('init', '--yes', '--output', join(directory, 'rollout.json'));
  },
  async check() {
    await open(bare);
    await run('check', '--table', 'public.appointments', '--columns', 'email,e164,first_name');
    const config = join(directory, 'rollout.json');
    writeFileSync(config, JSON.stringify({ target: { canary: Target.parse({}).canary } }));
    await run('check', '--config', config);
  },
  async install() {
    await open(bare);
    const key = join(directory, 'new.json');
    await run('install', '--yes', '--generate-key', key);
    await run('install', '--yes', '--key-file', key);
  },
  async uninstall() {
    await open(installed);
    await run('uninstall', '--yes');
  },
  async verify() {
    await open(installed);
    await encrypted();
    await run('verify', '--json', join(directory, 'report.json'), '--snapshot', join(directory, 'rows'));
    await run('verify', '--key-file', keyFile, '--plaintext-before', join(directory, 'rows'));
  },
  async 'rotate-key'() {
    await open(installed);
    await encrypted();
    await run('rotate-key', '--yes', '--key-file', keyFile);
  },
  async follow() {
    await open(installed);
    await database.client.query('alter table public.appointments rename to visits');
    await run('follow', 'public.appointments', '--yes');
  },
  async 'add-column'() {
    await open(installed);
    await run('add-column', 'public.appointments', 'note', '--yes');
  },
  async 'remove-column'() {
    await open(installed);
    await encrypted();
    await run('remove-column', 'public.appointments', 'email', '--yes');
  },
  async 'remove-table'() {
    await open(installed);
    await run('remove-table', 'public.appointments', '--yes');
  },
};
/** Needs no database, as its help says: it has no option to name one. */
const elsewhere = ['ddl'];

async function run(...words: string[]): Promise<void> {
  const { code, stdout, stderr } = await rollout([...words, '--database-url', database.url]);
  expect({ words, code, stdout, stderr }).toMatchObject({ code: 0 });
}

async function encrypted(): Promise<void> {
  await database.client.query('select public.batch_encrypt_appointments()');
  await database.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
}

describe('none is called on a database by', () => {
  test.each(Object.entries(onDatabase))('%s', (_, command) => command());
});

describe('none is called by the handlers and the commands that have them called', () => {
  const execution = 'arn:aws:states:us-east-1:123456789012:execution:Rollout-EncryptionRollout:one';
  const machineOf = (name: string) => `arn:aws:states:us-east-1:123456789012:stateMachine:Rollout-${name}`;
  const cloud = new Cloud();
  beforeAll(() => cloud.start());
  afterAll(() => cloud.stop());

  let world: TestWorld;
  beforeEach(async () => {
    await open(installed);
    world = await testWorld(0, database);
    process.env.ROLLBACK_MACHINE_ARN = machineOf('Rollback');
    process.env.CLEAR_MACHINE_ARN = machineOf('ClearCiphertext');
    // The function's clients keep the AWS that they first spoke to, which is not that of the commands.
    await world.invoke('operate', { command: 'status' });
  });

  const json = (value: unknown) => ({ body: JSON.stringify(value) });

  test('in a whole rollout', async () => {
    await world.invoke('dry-run', { input: { dryRun: true }, onCall: { subscribers: 1 } });
    await rollOut(world, await world.prepare(execution));
    await world.invoke('monitor', {});
  });

  /** By command, in the order of a rollout that is stopped and cleared. */
  const onAws: Record<string, readonly string[]> = {
    start: ['start', '--yes'],
    status: ['status'],
    runbook: ['runbook', 'TriggerFailures'],
    pause: ['pause', '--yes'],
    resume: ['resume', '--yes'],
    tune: ['tune', '--batch-rows', '50', '--yes'],
    decide: ['decide', 'HOLD', 'go', '--yes'],
    abort: ['abort', '--yes'],
    report: ['report'],
    rollback: ['rollback', '--option', 'clear', '--yes', '--confirm', 'RUN'],
  };

  test('in a rollout that is operated, stopped and cleared', async () => {
    const running: string[] = [];
    let prepared: Awaited<ReturnType<TestWorld['prepare']>> | undefined;
    const stopped = () => ({ run: prepared, reason: 'test' });
    cloud.answers = {
      GetCallerIdentity: identity,
      DescribeStacks: stackOf({
        StateMachineArn: machineOf('EncryptionRollout'),
        OperateFunctionName: 'Rollout-Operate',
      }),
      Invoke: async (asked) => json(await world.invoke('operate', JSON.parse(asked))),
      ListExecutions: async () =>
        json({ executions: running.map((executionArn) => ({ executionArn, startDate: 0 })) }),
      StartExecution: async (asked) => {
        const { stateMachineArn, name } = JSON.parse(asked);
        // Whose clients spoke to nobody before.
        if (stateMachineArn !== machineOf('EncryptionRollout'))
          return json({ executionArn: `${stateMachineArn}:${name}`, startDate: 0 });
        running.push(execution);
        prepared = await world.prepare(execution);
        await world.invoke('preflight', { run: prepared, input: {}, onCall: { subscribers: 1 } });
        await world.encrypt(prepared, 1);
        return json({ executionArn: execution, startDate: 0 });
      },
      StopExecution: async () => {
        running.length = 0;
        world.running.delete(execution);
        await world.invoke('cancel-batches', stopped());
        await world.invoke('disable-trigger', stopped());
        await world.invoke('prove-plaintext', stopped());
        await world.invoke('gather-evidence', stopped());
        return json({ stopDate: 0 });
      },
      DescribeExecution: async (asked) => {
        const { executionArn } = JSON.parse(asked);
        if (String(executionArn).includes('Clear'))
          await world.invoke('clear-ciphertext', {
            run: prepared,
            confirm: prepared?.id,
            execution: executionArn,
            batch: 0,
          });
        return json({ executionArn, status: 'SUCCEEDED', startDate: 0, output: 'null' });
      },
    };
    const holdOf = async () => {
      world.aws.world.alarms.delete('api-5xx');
      const vitals = { run: prepared, phase: 1, target: 'public.appointments', during: 'batch' };
      const { gate } = await world.invoke('check-vitals', vitals);
      return (await world.invoke('ask-person', { run: prepared, gate, execution: 'hold' })).hold;
    };
    for (const words of Object.values(onAws)) {
      const hold = words.includes('HOLD') ? await holdOf() : '';
      const given = words.map((word) => (word === 'HOLD' ? hold : word === 'RUN' ? prepared?.id : word));
      const { code, stdout, stderr } = await cloud.rollout(given);
      expect({ words, code, stdout, stderr }).toMatchObject({ code: 0 });
    }
    const { rows } = await database.client.query(
      'select pg_catalog.count(pii_iv)::pg_catalog.int4 as sealed from public.appointments',
    );
    expect(rows).toEqual([{ sealed: 0 }]);
  });

  test('and these are all the commands that there are', () => {
    const named = (option: string) =>
      createProgram().commands.filter(({ options }) => options.some(({ long }) => long === option) === true);
    const names = (commands: ReturnType<typeof named>) => commands.map((command) => command.name()).sort();
    expect(names(named('--database-url'))).toEqual(Object.keys(onDatabase).sort());
    expect(names(named('--stack'))).toEqual(Object.keys(onAws).sort());
    expect(names([...createProgram().commands])).toEqual(
      [...Object.keys(onDatabase), ...Object.keys(onAws), ...elsewhere].sort(),
    );
  });
});
