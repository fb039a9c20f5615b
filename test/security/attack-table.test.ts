/**
 * What an attack gets, told by the attack: the table in docs/threat-model.md. After a change:
 * WRITE_ATTACKS=1 npx vitest run --project unit test/security/attack-table.test.ts
 */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import type { Criterion } from '../../lambdas/core/gates/judgement.ts';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { plain } from '../../lambdas/core/telling/text.ts';
import { OwnServer } from '../faults/server.ts';
import { type TestWorld, testWorld } from '../lambdas/world.ts';
import { appointments, pastTriggers, testKey } from '../support/database.ts';
import { withSection } from '../support/sections.ts';

const roles = {
  application: 'the application, with default privileges on everything',
  creator: 'one that may create in schema `public`',
  stream: 'one with REPLICATION',
  dump: '`pg_read_all_data`',
  load: '`pg_write_all_data`',
  stranger: 'a mere log-in',
  reader: '`encryption_rollout_reader`',
  operator: '`encryption_rollout_operator`',
  decryptor: '`encryption_rollout_decryptor`',
} as const;
type Role = keyof typeof roles;

const password = randomBytes(12).toString('hex');
const before = `
  ${Object.keys(roles)
    .map((name) => `create role ${name} login password '${password}';`)
    .join('\n')}
  alter role stream replication;
  grant pg_read_all_data to dump;
  grant pg_write_all_data to load;
  grant create on schema public to creator;
  ${['tables', 'sequences', 'functions', 'types', 'schemas'].map((kind) => `alter default privileges grant all on ${kind} to application;`).join('\n')}`;

let server: OwnServer;
let world: TestWorld;
let owner: pg.Client;
let run: PrepareDatabaseOutput;
const sessions = new Map<Role, pg.Client>();

beforeAll(async () => {
  server = new OwnServer(['wal_level=logical', 'max_replication_slots=4', 'max_wal_senders=4']);
  await server.start();
  owner = await server.connect();
  await owner.query(before);
  await owner.query(`
    create table public.app_config (key text primary key, value text); create table public.history (entry text);
    create function public.keep_history() returns trigger language plpgsql as $$
      begin insert into public.history values (to_jsonb(new)::text); return null; end $$;
    create trigger keep_history after insert or update on public.app_config for each row execute function public.keep_history();
    alter table public.app_config owner to application; alter function public.keep_history() owner to application`);
  await owner.query('create publication everything for all tables');
  await owner.query("select pg_create_logical_replication_slot('stream', 'test_decoding')");
  await createSampleTable(owner);
  await migrate(owner);
  await owner.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  await owner.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  // As preflight asks.
  await owner.query('revoke trigger on public.appointments from application');
  for (const name of ['reader', 'operator', 'decryptor'])
    await owner.query(`grant encryption_rollout_${name} to ${name}`);
  await owner.query('grant select on public.appointments to decryptor');
  world = await testWorld(100, {
    url: server.url.href,
    client: owner,
    connect: () => server.connect(),
    drop: () => server.destroy(),
  });
  run = await world.prepare('one');
  await world.encrypt(run, 1);
  for (const role of Object.keys(roles) as Role[]) {
    const url = Object.assign(new URL(server.url.href), { username: role, password });
    const session = new pg.Client({ connectionString: url.href });
    session.on('error', () => {});
    await session.connect();
    sessions.set(role, session);
  }
});
afterAll(async () => {
  await Promise.all([...sessions.values()].map((session) => session.end()));
  await world.stop();
});

const as = (role: Role) => sessions.get(role) as pg.Client;

/** What PostgreSQL answers, in a few words. */
async function got(role: Role, sql: string): Promise<string> {
  return as(role)
    .query(sql)
    .then(
      (result) => {
        const last = Array.isArray(result) ? result.at(-1) : result;
        return last.rowCount === 0 || last.rowCount === null ? 'nothing' : `${last.rowCount} rows`;
      },
      (error: { code?: string }) => `refused (${error.code})`,
    );
}

/** The same of several statements: what all of them get, once. */
async function each(role: Role, ...statements: string[]): Promise<string> {
  const answers = new Set<string>();
  for (const sql of statements) answers.add(await got(role, sql));
  return [...answers].join('; ');
}

const holdsKey = (text: string) =>
  text.includes(testKey.key.toString('hex')) || text.includes(testKey.key.toString('latin1'));

const opening = `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments
  where email_encrypted is not null limit 1`;
const records = ['key_material', 'targets', 'cursors', 'gates', 'holds', 'key_access', 'errors'];
const batch = (number: number) =>
  world.inTurn('encrypt-batch', {
    run,
    phase: 2,
    target: 'public.appointments',
    execution: 'e',
    batch: number,
  });
/** The next gate: its verdict, and why. */
async function gate(): Promise<string> {
  const { verdict, criteria } = await world.invoke('gate', { run, phase: 1, stage: 'worked' });
  const failed = criteria.filter((each: Criterion) => !each.passed);
  return [verdict, ...failed.map(({ name }: Criterion) => name)].join(', ');
}
const openedBy = async (sql: string) =>
  owner.query(sql).then(
    ({ rows }) => (rows.every((row) => Object.values(row)[0] === null) ? 'taken off: no value' : 'it opens'),
    (error: { code?: string }) => `does not open (${error.code})`,
  );

interface Attack {
  /** Which of the ways that were found, as docs/threat-model.md counts them. */
  readonly found: number | null;
  readonly what: string;
  readonly role: Role;
  run(): Promise<string>;
}

const attack = (found: number | null, what: string, role: Role, run: Attack['run']): Attack => ({
  found,
  what,
  role,
  run,
});

const attacks: readonly Attack[] = [
  attack(1, 'reads the key: the table, a copy of it, its statistics', 'application', () =>
    each(
      'application',
      'select key from encryption_rollout.key_material',
      'copy encryption_rollout.key_material to stdout',
      'select encryption_rollout.read_key(1)',
    ),
  ),
  attack(1, 'opens a value', 'application', () => got('application', opening)),
  attack(1, 'the same, after GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public', 'application', async () => {
    await owner.query('grant execute on all functions in schema public to application');
    return got('application', opening);
  }),
  attack(
    1,
    'the same, after GRANT … ON ALL FUNCTIONS IN SCHEMA encryption_rollout and Monitor’s next look',
    'application',
    async () => {
      await owner.query(
        'grant usage on schema encryption_rollout to application; grant execute on all functions in schema encryption_rollout to application',
      );
      await world.invoke('monitor', {});
      return each('application', opening, 'select encryption_rollout.read_key(1)');
    },
  ),
  attack(1, 'creates a trigger on a record of the engine’s, empties it', 'application', () =>
    each(
      'application',
      'create trigger spy before insert on encryption_rollout.key_material for each row execute function suppress_redundant_updates_trigger()',
      'truncate encryption_rollout.key_material',
    ),
  ),
  attack(null, 'switches the trigger off, goes round it', 'application', () =>
    each(
      'application',
      'alter table public.appointments disable trigger all',
      'set session_replication_role = replica',
      'create trigger mine before insert on public.appointments for each row execute function suppress_redundant_updates_trigger()',
      'create rule mine as on insert to public.appointments do instead nothing',
    ),
  ),
  attack(
    3,
    'a helper of its own in a CHECK constraint of the table, which batches would run',
    'creator',
    async () => {
      await as('creator').query(
        'create function public.helper(text) returns boolean immutable language plpgsql as $$ begin return true; end $$',
      );
      await owner.query('alter table public.appointments add constraint mine check (public.helper(note))');
      const judged = await gate();
      await owner.query('alter table public.appointments drop constraint mine');
      return `the next gate: ${judged}`;
    },
  ),
  attack(
    2,
    'an operator that fits better than PostgreSQL’s, for whoever installs as a superuser',
    'creator',
    async () => {
      await as('creator').query(`
      create function public.copy_key(oid, regclass) returns boolean language plpgsql as $$ begin raise exception 'called'; end $$;
      create function public.copy_key(name, text) returns text language plpgsql as $$ begin raise exception 'called'; end $$;
      create operator public.= (leftarg = oid, rightarg = regclass, function = public.copy_key);
      create operator public.|| (leftarg = name, rightarg = text, function = public.copy_key)`);
      await world.invoke('monitor', {});
      return 'nothing: it is not called';
    },
  ),
  attack(24, 'an overload of `get_key_access_stats` for a literal', 'creator', async () => {
    await as('creator').query(
      "create function public.get_key_access_stats(text) returns int language sql as 'select 1'",
    );
    const { rows } = await owner.query('select fix from encryption_rollout.breaches()');
    for (const { fix } of rows) await owner.query(fix);
    return `nothing from whoever does as the finding says: \`${rows.map(({ fix }) => fix).join(' ')}\``;
  }),
  attack(4, 'reads the log by a logical slot', 'stream', async () => {
    const { rows } = await as('stream').query(
      "select data from pg_logical_slot_get_changes('stream', null, null)",
    );
    const changes = rows.map(({ data }) => data).join('\n');
    return `${changes.includes('person') ? 'the application’s rows' : 'nothing'}, ${holdsKey(changes) ? 'the key' : 'no key'}`;
  }),
  attack(23, 'dumps all that it can read', 'dump', async () => {
    const { rows } = await owner.query(
      "select oid::regclass::text as name from pg_class where relkind in ('r', 'v', 'm') and relnamespace <> 'information_schema'::regnamespace",
    );
    let dump = '';
    for (const { name } of rows) {
      const read = await as('dump')
        .query(`select t::text as row from ${name} as t`)
        .catch(() => undefined);
      dump += read?.rows.map(({ row }) => row).join('\n') ?? '';
    }
    return `${dump.includes('person3@example.com') ? 'the application’s rows' : 'nothing'}, ${holdsKey(dump) ? 'the key' : 'no key'}`;
  }),
  attack(23, 'dumps as pg_dump does, which row-level security stops', 'dump', async () => {
    const { rows } = await owner.query(
      "select oid::regclass::text as name, relkind as kind from pg_class where relnamespace = 'encryption_rollout'::regnamespace and relkind in ('r', 'S') order by name",
    );
    await as('dump').query('set row_security = off');
    const stops: string[] = [];
    for (const { name, kind } of rows)
      await as('dump')
        .query(`select ${kind === 'S' ? 'last_value, is_called' : '*'} from ${name}`)
        .catch((error) => stops.push(`\`${name}\` (${error.code})`));
    await as('dump').query('reset row_security');
    return `everything but ${stops.join(', ')}, which it has to leave out`;
  }),
  attack(
    6,
    'writes into the records: conditions of priority, cursors, gates, answers to holds, the audit trail',
    'load',
    () =>
      each(
        'load',
        ...records.map((name) => `delete from encryption_rollout.${name}`),
        "update encryption_rollout.targets set priority = 'true'",
      ),
  ),
  attack(7, 'takes the advisory locks of the run’s id', 'stranger', async () => {
    for (const seed of [0, 1])
      await as('stranger').query('select pg_advisory_lock(hashtextextended($1, $2))', [run.id, seed]);
    const { outcome } = await batch(1);
    return `its locks; a batch beside them: ${outcome}`;
  }),
  attack(
    25,
    'a link and a line break as the name of its session, for whoever reads a page',
    'stranger',
    async () => `\`${plain('psql https://example.com\n- GO')}\``,
  ),
  attack(null, 'reads the token of a waiting execution, opens a value, reads the key', 'reader', () =>
    each(
      'reader',
      'select task_token from encryption_rollout.holds',
      opening,
      'select * from encryption_rollout.key_material',
    ),
  ),
  attack(null, 'opens a value, reads the key, writes a gate', 'operator', () =>
    each(
      'operator',
      opening,
      'select encryption_rollout.read_key(1)',
      'delete from encryption_rollout.gates',
    ),
  ),
  attack(null, 'reads the key', 'decryptor', () =>
    each(
      'decryptor',
      'select encryption_rollout.read_key(1)',
      'select * from encryption_rollout.key_material',
    ),
  ),
  attack(10, 'opens with a wrong row, by mistake', 'decryptor', async () => {
    const answer = await got('decryptor', opening.replace(', id)', ', gen_random_uuid())'));
    await world.invoke('monitor', {});
    const { rows } = await owner.query(
      "select count(*)::integer as n from encryption_rollout.errors where error_type = 'decryption'",
    );
    return `${answer}; failures that count against the table: ${rows[0].n}; the next gate: ${await gate()}`;
  }),
  attack(14, 'moves a ciphertext to another row', 'application', async () => {
    const { rows } = await owner.query(
      'select id from public.appointments where email_encrypted is not null order by id limit 2',
    );
    const [from, to] = rows.map(({ id }) => id);
    await owner.query('begin');
    const { rowCount } = await owner.query(
      `update public.appointments as a set email_encrypted = b.email_encrypted, pii_iv = b.pii_iv
       from public.appointments as b where a.id = $2 and b.id = $1`,
      [from, to],
    );
    expect(rowCount).toBe(1);
    const answer = await openedBy(
      `select public.decrypt_pii_with_iv_logged(email_encrypted, pii_iv, id) from public.appointments where id = '${to}'`,
    );
    await owner.query('rollback');
    return answer;
  }),
  attack(14, 'moves a ciphertext to another column of its row', 'application', async () => {
    await owner.query('begin');
    await owner.query(
      'update public.appointments set first_name_encrypted = email_encrypted where email_encrypted is not null',
    );
    const answer = await openedBy(
      `select encryption_rollout.decrypt_logged('public.appointments', first_name_encrypted, pii_iv, id::text, 'first_name') from public.appointments where email_encrypted is not null`,
    );
    await owner.query('rollback');
    return answer;
  }),
  attack(
    5,
    'a trigger on its own `public.app_config`, which copies what is written there',
    'application',
    async () => {
      const { rows } = await as('application').query('select entry from public.history');
      return rows.length === 0
        ? 'nothing: where there is one, nothing is written'
        : rows.map(({ entry }) => entry).join('; ');
    },
  ),
  attack(5, 'empties `public.app_config`, which would name the key', 'application', async () => {
    const answer = await got('application', 'truncate public.app_config');
    const { outcome } = await batch(3);
    return `${answer === 'nothing' ? 'an empty table' : answer}; a batch afterwards: ${outcome}`;
  }),
  attack(13, 'puts ciphertext beside a null, with the trigger on', 'application', async () => {
    await owner.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const put = await got(
      'application',
      "update public.appointments set email_encrypted = '\\x010001', pii_iv = decode(repeat('00', 16), 'hex') where email is null",
    );
    await owner.query("select encryption_rollout.set_trigger('public.appointments', false)");
    await gate();
    const { rows } = await owner.query(
      "select orphaned_rows::integer as n from encryption_rollout.health('public.appointments')",
    );
    return `${put}, of which the next gate leaves ${rows[0].n}`;
  }),
  attack(
    9,
    'reads health and statistics after a value that did not open, and leaves the transaction open',
    'reader',
    async () => {
      await pastTriggers(
        owner,
        'update public.appointments set email_encrypted = set_byte(email_encrypted, 20, get_byte(email_encrypted, 20) # 1) where email_encrypted is not null',
      );
      const answer = await openedBy(opening);
      await as('reader').query(
        "begin; select * from public.get_key_access_stats('1 hour'); select * from public.get_encryption_health_summary()",
      );
      // Whatever waited for the reader would wait for ever.
      await world.invoke('monitor', {});
      const { outcome } = await batch(2);
      const failed = await gate();
      await as('reader').query('commit');
      return `what it may read; beside it the value ${answer}; a batch: ${outcome}, the next gate: ${failed}`;
    },
  ),
  attack(8, 'calls its session like one of the rollout’s', 'stranger', async () => {
    await as('stranger').query(`set application_name = 'encryption-rollout ${run.id} 1'`);
    // The run is stopped by it: the last.
    const { cancelled } = await world.invoke('cancel-batches', { run, reason: 'test' });
    return `nothing: sessions ended ${cancelled}, and CancelBatches succeeds`;
  }),
];

test('the table of attacks says what they got', async () => {
  const lines: string[] = [];
  for (const { found, what, role, run: attempt } of attacks) {
    const outcome = await attempt();
    // Whatever the page says: no attack gets these.
    expect(`${what}: ${outcome}`).not.toMatch(/, the key$|it opens/);
    lines.push(`| ${found ?? ''} | ${what} | ${roles[role]} | ${outcome} |`);
  }
  const file = join(import.meta.dirname, '..', '..', 'docs', 'threat-model.md');
  const page = withSection(
    await readFile(file, 'utf8'),
    'attacks',
    ['| no. | attack | role | what it got |', '|---|---|---|---|', ...lines].join('\n'),
  );
  if (process.env.WRITE_ATTACKS !== undefined) await writeFile(file, page);
  expect(await readFile(file, 'utf8')).toBe(page);
});
