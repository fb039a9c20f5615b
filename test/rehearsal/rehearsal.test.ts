import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createSampleTable } from '../../lambdas/adapters/postgres/migrations.ts';
import { defaultPlan } from '../../lambdas/core/plan/plan.ts';
import { samples } from '../../rehearsal/database/samples.ts';
import { takeLock } from '../../rehearsal/lock.ts';
import { freshDatabase, seedAppointments, type TestDatabase } from '../support/database.ts';
import { Bench } from './process.ts';

const timeout = 300_000;
/** With every look of the plan. */
const whole = new Bench();
/** Looks at quiet soaks are most of a rehearsal's work. */
const bench = new Bench();
beforeAll(async () => {
  await whole.prepare();
  await bench.prepare({ soakSliceMinutes: 30 });
});
afterAll(async () => {
  await whole.clear();
  await bench.clear();
});

describe('on a database of the user', () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await freshDatabase({ template: 'empty' });
  });
  afterEach(() => database.drop());
  const one = async (sql: string) => (await database.client.query(sql)).rows[0];

  it(
    'runs the whole rollout and reports what it proved',
    async () => {
      const rehearsal = whole.start('--rows', '1000', '--database-url', database.url, '--yes');
      expect(await rehearsal.exit(), rehearsal.output).toBe(0);
      const report = rehearsal.report();

      expect(report).toMatchObject({
        outcome: 'COMPLETED',
        reason: '',
        rollback: null,
        plaintextUnchanged: true,
        triggerEnabled: true,
        preflight: { verdict: 'GO' },
      });
      const { total, withPii, encrypted, verified, mismatched } = report.rows;
      // Live traffic inserts as often as it deletes.
      expect(Math.abs(total - 1000)).toBeLessThan(20);
      expect(withPii).toBeLessThan(total);
      expect({ encrypted, verified, mismatched }).toEqual({
        encrypted: withPii,
        verified: withPii,
        mismatched: 0,
      });
      const health = await one('select * from public.get_encryption_health_summary()');
      expect(health).toMatchObject({ encryption_percentage: '100.00', trigger_enabled: true });
      expect(Number(health.encrypted_appointments)).toBe(encrypted);

      expect(report.phases.map(({ name, verdict }) => [name, verdict])).toEqual(
        defaultPlan.phases.map(({ title }) => [title, 'GO']),
      );
      report.phases.forEach((phase, index) => {
        const { soakMinutes } = defaultPlan.phases[index] as (typeof defaultPlan.phases)[number];
        expect(phase.virtualSeconds).toBeGreaterThanOrEqual(soakMinutes * 60);
        expect(phase.wallSeconds).toBeLessThan(timeout / 1_000);
        expect(phase.criteria.length).toBeGreaterThan(8);
        for (const criterion of phase.criteria) {
          expect(criterion).toEqual({
            gate: expect.stringContaining(phase.name),
            ...(criterion.table === undefined ? {} : { table: 'public.appointments' }),
            name: expect.any(String),
            expected: expect.any(String),
            measured: expect.any(String),
            passed: true,
          });
        }
      });
      expect(report.phases[1]?.percentage).toBeGreaterThanOrEqual(20);
      expect(report.phases[1]?.percentage).toBeLessThanOrEqual(25);
      expect(report.phases[4]?.percentage).toBe(100);
      expect(report.phases.reduce((sum, phase) => sum + phase.rowsEncrypted, 0)).toBeGreaterThan(
        0.9 * withPii,
      );
      expect(report.liveTraffic.writes).toBeGreaterThan(5);
      expect(report.liveTraffic).toMatchObject({ failed: 0, slowestMs: expect.any(Number) });

      // The parent, the look at the backup, preflight, five phases, a stretch of batches in four, three soaks, one audit.
      expect(report.executions.map(({ machine }) => machine).sort()).toEqual(
        [
          'EncryptionRollout',
          'TakeBackup',
          'Preflight',
          ...Array(5).fill('Phase'),
          ...Array(4).fill('EncryptBatches'),
          ...Array(3).fill('Soak'),
          'FinalAudit',
        ].sort(),
      );
      for (const { events } of report.executions) expect(events).toBeLessThan(5_000);

      expect(rehearsal.output).toMatch(/✉ \S+: completed: public\.appointments/);
      expect(rehearsal.output).toMatch(
        /The report is in .*\.json\.\nTo open every row once more: npm run rollout -- verify --database-url …\nHow it gets to AWS: README\.md#deploy\. What comes after: docs\/after\.md\. How it stops: npm start -- --fault high-cpu\n/,
      );
      const { value: key } = await one(
        "select encode(key, 'hex') as value from encryption_rollout.key_material",
      );
      const log = readFileSync(path.join(whole.directory, '.rehearsal', 'functions.log'), 'utf8');
      const { password } = new URL(database.url);
      for (const text of [rehearsal.output, JSON.stringify(report), log]) {
        expect(text).not.toContain(key);
        expect(text).not.toContain(password);
        expect(text).not.toContain('guest17@');
      }
      const keys = path.join(whole.directory, '.rehearsal', 'keys');
      for (const file of readdirSync(keys)) expect(statSync(path.join(keys, file)).mode & 0o077).toBe(0);

      const again = whole.start('--database-url', database.url, '--yes');
      expect(await again.exit(), again.output).toBe(0);
      expect(again.report()).toMatchObject({ outcome: 'COMPLETED', rows: { mismatched: 0 } });
    },
    timeout,
  );

  it(
    'resumes after it was killed, and encrypts nothing twice',
    async () => {
      const killed = bench.start('--rows', '1000', '--database-url', database.url, '--yes');
      await killed.until('Phase 3 Bulk Migration');
      killed.child.kill('SIGKILL');
      await killed.exit();
      // The batch in flight, if any, ends with its session.
      await expect
        .poll(() =>
          one(`select count(*)::integer as n from pg_stat_activity
        where datname = current_database() and application_name ~ '^(encryption-rollout|rehearsal)'`),
        )
        .toEqual({ n: 0 });
      // Two, unless it was quicker than the kill.
      const { passed } = await one(
        'select count(passed_at)::integer as passed from encryption_rollout.phases',
      );
      expect(passed).toBeGreaterThanOrEqual(2);
      const ivs = `
      select id, pii_iv from public.appointments
      where pii_iv is not null and not (${samples[0]?.isLive}) order by id`;
      const before = await database.client.query(ivs);
      expect(before.rows.length).toBeGreaterThan(150);

      const resumed = bench.start('--database-url', database.url, '--yes');
      expect(await resumed.exit(), resumed.output).toBe(0);
      expect(resumed.output).toContain(`Its rollout is unfinished: ${passed} of 5 phases passed`);
      const after = new Map((await database.client.query(ivs)).rows.map(({ id, pii_iv }) => [id, pii_iv]));
      for (const { id, pii_iv } of before.rows) expect(after.get(id)).toEqual(pii_iv);
      const { rows, phases } = resumed.report();
      expect(rows).toMatchObject({ encrypted: rows.withPii, verified: rows.withPii });
      expect(phases.map(({ verdict }) => verdict)).toEqual(Array(5).fill('GO'));
      // A phase that an earlier process passed counts with its waits.
      expect(phases[1]?.virtualSeconds).toBeGreaterThanOrEqual(7_200);
      expect(
        await one('select count(*)::integer as runs, max(attempt) as attempts from encryption_rollout.runs'),
      ).toEqual({
        runs: 1,
        attempts: 2,
      });
    },
    timeout,
  );

  it(
    'refuses a second rehearsal while one is running',
    async () => {
      const first = whole.start('--rows', '1000', '--database-url', database.url, '--yes');
      await first.until('Phase 1 Initial Batch');
      const second = bench.start('--database-url', database.url, '--yes');
      expect(await second.exit()).toBe(1);
      expect(second.output).toMatch(/RunAlreadyActive: A rollout is active already: run .* Wait/);
      expect(await first.exit(), first.output).toBe(0);
    },
    timeout,
  );

  it(
    "leaves rows that are somebody's own to their owner",
    async () => {
      await createSampleTable(database.client);
      await seedAppointments(database.client, 300);
      const plaintext = `
      select md5(string_agg(row (id, email, e164, first_name, note, updated_at)::text, '' order by id)) as md5
      from public.appointments`;
      const before = await one(plaintext);
      const rehearsal = bench.start('--rows', '5000', '--database-url', database.url, '--yes');
      expect(await rehearsal.exit(), rehearsal.output).toBe(0);
      expect(rehearsal.output).toContain("not of the rehearsal's making, so live traffic is left out");
      expect(await one(plaintext)).toEqual(before);
      expect(rehearsal.report()).toMatchObject({
        rows: { total: 300, withPii: 285, encrypted: 285, verified: 285 },
        liveTraffic: { writes: 0 },
      });
    },
    timeout,
  );

  it.each([
    [
      'a target column whose text cannot be read back',
      'create table public.appointments (id uuid primary key, email money, e164 text, first_name text)',
      /UnusableTarget: column email of table public.appointments is of type money, whose text depends on the locale/,
    ],
    [
      'a missing column',
      'create table public.appointments (id uuid primary key, email text, e164 text)',
      /cannot be rehearsed on: column "first_name" does not exist .*\n.*Expected .*first_name/,
    ],
  ])(
    'says what is wrong with %s',
    async (_what, table, message) => {
      await database.client.query(
        `${table}; insert into public.appointments (id) values (gen_random_uuid())`,
      );
      const rehearsal = bench.start('--database-url', database.url, '--yes');
      expect(await rehearsal.exit()).toBe(1);
      expect(rehearsal.output).toMatch(message);
    },
    timeout,
  );

  it(
    'says what a login lacks',
    async () => {
      const role = `limited_${process.pid}`;
      await database.client.query(
        `create role ${role} login password 'seekrit'; revoke create on schema public from public`,
      );
      const url = new URL(database.url);
      url.username = role;
      url.password = 'seekrit';
      try {
        const rehearsal = bench.start('--database-url', url.href, '--yes');
        expect(await rehearsal.exit()).toBe(1);
        expect(rehearsal.output).toMatch(
          /permission denied for schema public.*\n.*Expected a role that may create/,
        );
        expect(rehearsal.output).not.toContain('seekrit');
      } finally {
        await database.client.query(`drop role ${role}`);
      }
    },
    timeout,
  );
});

it(
  'beside another rehearsal it works elsewhere, and does not promise that it can be resumed',
  async () => {
    const own = path.join(bench.directory, '.rehearsal');
    mkdirSync(own, { recursive: true });
    const unlock = await takeLock(path.join(own, 'lock'));
    const beside = bench.start('--rows', '100', '--fault', 'wrong-key');
    expect(await beside.exit(), beside.output).toBe(2);
    const interrupted = bench.start('--rows', '100');
    await interrupted.until('Synthesizing');
    interrupted.child.kill('SIGTERM');
    expect(await interrupted.exit(), interrupted.output).toBe(1);
    unlock?.();
    expect(interrupted.output).toContain('Stopped. This rehearsal was in a temporary directory');
    expect(interrupted.output).not.toContain('To resume');
    expect(beside.output).toContain('works in a temporary directory and cannot be resumed');
    expect(beside.output).not.toContain('To resume');
  },
  timeout,
);

it(
  'keeps the embedded database when it is stopped, resumes on it, and removes it when complete',
  async () => {
    const embedded = path.join(bench.directory, '.rehearsal', 'embedded');
    const stopped = bench.start('--rows', '500');
    await stopped.until('Phase 2 Expanded Batch: Gate');
    const pid = Number(
      readFileSync(path.join(embedded, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0],
    );
    stopped.child.kill('SIGTERM');
    expect(await stopped.exit()).toBe(1);
    // And nothing of functions that were ended by it.
    expect(stopped.output).toMatch(/Stopped\. To resume: npm start\n$/);
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);

    // As the hint has it: without --rows it is as many as before.
    const resumed = bench.start();
    expect(await resumed.exit(), resumed.output).toBe(0);
    expect(resumed.output.split('\n').slice(0, 6).join('\n')).toContain(
      'Resuming the rehearsal that was stopped',
    );
    expect(resumed.report()).toMatchObject({ outcome: 'COMPLETED', resumed: true });
    expect(resumed.output).toContain(
      'The database was made for this rehearsal, and is removed. The report is in',
    );
    expect(existsSync(embedded)).toBe(false);
  },
  timeout,
);

it(
  'survives the death of the embedded PostgreSQL',
  async () => {
    const embedded = path.join(bench.directory, '.rehearsal', 'embedded');
    const orphaned = bench.start('--rows', '400');
    await orphaned.until('Phase 1 Initial Batch: SoakGate');
    const pid = Number(
      readFileSync(path.join(embedded, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0],
    );
    process.kill(pid, 'SIGKILL');
    expect(await orphaned.exit()).toBe(1);
    expect(orphaned.output).toMatch(/The connection to PostgreSQL at .* was lost.*\n.*resume: npm start$/m);

    // As the hint has it: without --rows it is as many as before.
    const resumed = bench.start();
    expect(await resumed.exit(), resumed.output).toBe(0);
  },
  timeout,
);

it.each([
  [['--wat'], /unknown option '--wat'/],
  [['--database-ulr=postgresql://u:seekrit@db/x'], /unknown option '--database-ulr=postgresql:\/\/…'/],
  [['extra'], /too many arguments/],
  [
    ['--fault', 'gremlins'],
    /argument 'gremlins' is invalid. Allowed choices are decryption-failure, error-spike/,
  ],
  [['--rows', 'many'], /argument 'many' is invalid. Expected a whole number from 100/],
  [['--json', '/nowhere/report.json'], /Found no directory \/nowhere for the report.*Check --json/],
  [['--json', '/'], /Found a directory \/, expected the name of a file/],
  [['--rows', '7'], /argument '7' is invalid. Expected a whole number from 100/],
  [
    ['--database-url', 'mysql://root:seekrit@localhost/x'],
    /Found a --database-url .*mysql.*, expected postgresql:/,
  ],
  [
    ['--database-url', 'postgresql://u:seekrit@127.0.0.1:1/x', '--fresh'],
    /Found --fresh with --database-url/,
  ],
  [
    ['--database-url', 'postgresql://u:seekrit@127.0.0.1:1/x'],
    /no way into PostgreSQL at 127.0.0.1:1, database x, as u: .*ECONNREFUSED.*\nExpected .*Check --database-url/,
  ],
])('refuses %j with what was expected', async (options, message) => {
  const rehearsal = bench.start(...options);
  expect(await rehearsal.exit()).toBe(1);
  expect(rehearsal.output).toMatch(message);
  expect(rehearsal.output).not.toContain('seekrit');
});

it('explains itself', async () => {
  const help = bench.start('--help');
  expect(await help.exit()).toBe(0);
  for (const option of ['--rows', '--database-url', '--fault', '--json', 'wrong-key', 'Exit codes']) {
    expect(help.output).toContain(option);
  }
  const text = help.output.replaceAll(/\s+/g, ' ');
  expect(text).toContain(
    'together (default: 10,000, or as before when it resumes); with --load into each (default: 1,000)',
  );
  expect(text).toContain('A question waits 10 min for an answer');
});
