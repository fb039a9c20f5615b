/** Whatever breaks the boundary, by each kind, is mended or told, with the statement that ends it, in each place that looks. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { Criterion } from '../../lambdas/core/gates/judgement.ts';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { verify } from '../../verifier/verify.ts';
import { rollout } from '../cli/cloud.ts';
import { OwnServer } from '../faults/server.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';

let server: OwnServer;
let world: TestWorld;
let owner: pg.Client;
let run: PrepareDatabaseOutput;
let executions = 0;

/** Every place begins with a boundary that holds. */
const found = async () =>
  (
    await owner.query<{ finding: string; fix: string }>(
      `select finding, fix from encryption_rollout.breaches()
       union all select finding, fix from encryption_rollout.foreign_code('public.appointments')`,
    )
  ).rows;

beforeAll(async () => {
  // A server of its own: one that decodes its log.
  server = new OwnServer(['wal_level=logical']);
  await server.start();
  world = await testWorld(40, await server.database());
  owner = world.client;
  await owner.query(`create role stranger; grant create on schema public to stranger;
    create function public.helper(text) returns boolean immutable language plpgsql as $$ begin return true; end $$`);
});
afterAll(() => server.destroy());
afterEach(async () => {
  vi.restoreAllMocks();
  process.env.POWERTOOLS_LOG_LEVEL = 'SILENT';
  for (const { fix } of await found()) await owner.query(fix);
  // What those leave, since it does no harm any more.
  await owner.query(`
    drop publication if exists spy; drop table if exists public.spy; alter table public.appointments drop constraint if exists mine;
    select pg_drop_replication_slot(slot_name) from pg_replication_slots`);
});

async function begin() {
  executions += 1;
  world.running.clear();
  run = await world.prepare(`execution-${executions}`);
}
const failing = (criteria: readonly Criterion[]) =>
  criteria.filter(({ passed }) => !passed).map(({ measured, advice }) => `${measured}: ${advice}`);

interface Place {
  /** Before anything is broken. */
  begin?(): Promise<void>;
  /** What it says. */
  look(): Promise<readonly string[]>;
  /** It cannot write. */
  readonly onlyReads?: true;
}

const places: Readonly<Record<string, Place>> = {
  'an installation': {
    async look() {
      const { code, stdout } = await rollout(['install', '--yes', '--database-url', server.url.href]);
      expect(code).toBe(0);
      return stdout.replaceAll('\n', ' ').split(/(?=Preflight will refuse)/);
    },
  },
  preflight: {
    begin,
    async look() {
      const { verdict, criteria } = await world.invoke('preflight', {
        run,
        input: {},
        onCall: { subscribers: 1 },
      });
      const found = failing(criteria);
      expect(verdict).toBe(found.length === 0 ? 'GO' : 'NO_GO');
      return found;
    },
  },
  'a gate': {
    begin,
    look: async () => failing((await world.inTurn('gate', { run, phase: 1, stage: 'worked' })).criteria),
  },
  Monitor: {
    begin,
    async look() {
      const said: string[] = [];
      vi.stubEnv('POWERTOOLS_DEV', 'true');
      process.env.POWERTOOLS_LOG_LEVEL = 'WARN';
      for (const level of ['warn', 'error'] as const)
        vi.spyOn(console, level).mockImplementation((line) => void said.push(line));
      world.aws.metrics.length = 0;
      // A rule may be what it cannot write with. It has told of it by then.
      const outcome = await world.invoke('monitor', {}).catch((error) => error.message);
      const found = said
        .map((line) => JSON.parse(line))
        .filter(({ message }) => message === 'the boundary is broken');
      expect(world.aws.metrics).toContainEqual(
        expect.objectContaining({ name: 'Breaches', value: found.length }),
      );
      if (found.length === 0) expect(outcome).toEqual({ outcome: 'COUNTED' });
      return found.map(({ finding, fix }) => `${finding}: ${fix}`);
    },
  },
  verify: {
    onlyReads: true,
    async look() {
      const told: string[] = [];
      await verify(owner, { onViolation: (_, { detail }) => told.push(detail) });
      return told;
    },
  },
};

/** By the four matters: what breaks them, and what is found of it. */
const matters: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'rights to what is the engine’s': {
    'stranger has SELECT on table encryption_rollout.key_access':
      'grant select on encryption_rollout.key_access to stranger',
    'stranger has EXECUTE on function encryption_rollout.read_key(integer)':
      'grant execute on function encryption_rollout.read_key(integer) to stranger',
    'trigger spy of encryption_rollout.key_material is not ours': `create trigger spy before insert on encryption_rollout.key_material
       for each row execute function suppress_redundant_updates_trigger()`,
    'members of pg_write_all_data may write to encryption_rollout.targets':
      'alter table encryption_rollout.targets disable trigger refuse_strangers',
    'rule spy of encryption_rollout.key_access is not ours':
      'create rule spy as on insert to encryption_rollout.key_access do also select 1',
    'public.spy inherits from encryption_rollout.errors':
      'create table public.spy () inherits (encryption_rollout.errors)',
    'policy spy of encryption_rollout.key_material is not ours':
      'create policy spy on encryption_rollout.key_material using (true)',
    'statistics of the keys may be collected, which copies them into the catalogue and the write-ahead log':
      'alter table encryption_rollout.key_material alter column key set statistics 100; analyze encryption_rollout.key_material',
    'members of pg_read_all_data may read the keys':
      'alter table encryption_rollout.key_material disable row level security',
  },
  'streams that would carry the key': {
    'publication spy publishes the keys':
      'create publication spy for all tables; select encryption_rollout.keep_keys(true)',
    'logical slot spy streams the keys': "select pg_create_logical_replication_slot('spy', 'test_decoding')",
  },
  'code of others that the table runs': {
    'stranger may create triggers on public.appointments': 'grant trigger on public.appointments to stranger',
    'constraint mine of public.appointments calls public.helper(text), which belongs to stranger':
      'alter table public.appointments add constraint mine check (public.helper(note))',
  },
  'what others have made in our schema': Object.fromEntries(
    [
      ['view', 'leak', 'create view % as select * from encryption_rollout.key_material'],
      ['materialized view', 'kept', 'create materialized view % as select 1 as n'],
      ['table', 'mine', 'create table % (id integer)'],
      ['sequence', 'numbers', 'create sequence %'],
      ['type', 'number', 'create domain % as integer'],
      ['type', 'pair', 'create type % as (id integer)'],
      ['collation', 'sorted', 'create collation % from "C"'],
    ].map(([kind, name, create]) => [
      `${kind} encryption_rollout.${name} belongs to stranger`,
      `${create?.replace('%', `encryption_rollout.${name}`)}; alter ${kind} encryption_rollout.${name} owner to stranger`,
    ]),
  ),
  'look-alikes of our names': {
    'function encryption_rollout.read_key(bigint) belongs to stranger': `
      create function encryption_rollout.read_key(bigint) returns integer language sql as 'select 1';
      alter function encryption_rollout.read_key(bigint) owner to stranger`,
    'procedure encryption_rollout.read_key(boolean) belongs to stranger': `
      create procedure encryption_rollout.read_key(boolean) language sql as 'select 1';
      alter procedure encryption_rollout.read_key(boolean) owner to stranger`,
    'function public.get_key_access_stats(text) has a name of ours':
      "set role stranger; create function public.get_key_access_stats(text) returns int language sql as 'select 1'; reset role",
    'function public.get_key_access_stats(boolean) has a name of ours':
      "set role stranger; create procedure public.get_key_access_stats(boolean) language sql as 'select 1'; reset role",
    'function public.get_key_access_stats(integer) has a name of ours':
      'set role stranger; create aggregate public.get_key_access_stats(integer) (sfunc = int4pl, stype = integer); reset role',
  },
};
const all = Object.assign({}, ...Object.values(matters)) as Record<string, string>;
/** The engine ends them by itself, where it may write. */
const isMended = (finding: string) => finding.startsWith('stranger has ');

test.each(Object.entries(places))(
  '%s ends or tells each of them, with the statement that ends it',
  async (_, place) => {
    await place.begin?.();
    await owner.query('alter function public.helper(text) owner to stranger');
    for (const sql of Object.values(all)) await owner.query(sql);
    const before = await found();
    expect(before.map(({ finding }) => finding).sort()).toEqual(Object.keys(all).sort());
    const told = await place.look();
    const left = place.onlyReads ? before : before.filter(({ finding }) => !isMended(finding));
    for (const { finding, fix } of before)
      expect([
        finding,
        told.filter((text) => text.includes(finding) && text.includes(fix.slice(0, -1))).length,
      ]).toEqual([finding, left.some((each) => each.finding === finding) ? 1 : 0]);
    for (const { fix } of left) await owner.query(fix);
    expect(await found()).toEqual([]);
    world.running.clear();
    await place.begin?.();
    expect(
      (await place.look()).filter((text) => Object.keys(all).some((finding) => text.includes(finding))),
    ).toEqual([]);
  },
);
