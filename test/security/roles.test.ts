/** Who may do what, on a server of its own: roles are the whole server's. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createSampleTable, migrate } from '../../lambdas/adapters/postgres/migrations.ts';
import { type PostgresServer, startPostgres } from '../../rehearsal/database/embedded-postgres.ts';
import { appointments, seedAppointments, testKey } from '../support/database.ts';

const directory = join(tmpdir(), `encryption-rollout-roles-${randomUUID()}`);
let server: PostgresServer;
let root: pg.Client;
const clients: pg.Client[] = [];

beforeAll(async () => {
  server = await startPostgres({ directory, settings: ['fsync=off'] });
  root = await connect('postgres');
  for (const login of ['installer', 'creator', 'customer', 'nobody', 'colleague'])
    await root.query(`create role ${login} login password 'test'`);
  await root.query('alter role creator createrole');
});
afterEach(async () => {
  for (const client of clients.splice(1)) await client.end();
});
afterAll(async () => {
  await root.end();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

async function connect(database: string, login?: string): Promise<pg.Client> {
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  if (login !== undefined) {
    url.username = login;
    url.password = 'test';
  }
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  clients.push(client);
  return client;
}

/** A database of the installer's with everything in place, 40 rows, half of them encrypted, and the trigger on. */
async function installed(database: string, installer: string): Promise<pg.Client> {
  await root.query(`create database ${database} owner ${installer}`);
  const client = await connect(database, installer);
  await migrate(client);
  await createSampleTable(client);
  await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
  await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
  await seedAppointments(client, 40);
  await client.query('grant select, insert, update, delete on public.appointments to customer');
  await client.query('select public.batch_encrypt_appointments(20)');
  await client.query("select encryption_rollout.set_trigger('public.appointments', true)");
  return client;
}

const outcome = (client: pg.Client, sql: string) =>
  client.query(sql).then(
    () => 'done',
    (error: pg.DatabaseError) => error.code,
  );

const ownersOf = async (client: pg.Client) =>
  Object.fromEntries(
    (
      await client.query(`
        select 'schema' as what, nspowner::regrole::text as owner from pg_namespace where nspname = 'encryption_rollout'
        union all select relname, relowner::regrole::text from pg_class where relname in ('key_material', 'runs')
        union all select proname, proowner::regrole::text from pg_proc where proname in ('encrypt_row_1', 'health')`)
    ).rows.map(({ what, owner }) => [what, owner]),
  );

const rolesOfOurs = async () =>
  (
    await root.query("select rolname from pg_roles where rolname like 'encryption\\_rollout\\_%' order by 1")
  ).rows.map(({ rolname }) => rolname);

/** What a role may read of the engine's tables, and the columns of these that it may not. */
const readableBy = async (database: string, role: string) => {
  const { rows } = await (await connect(database)).query(
    `select relname as table, has_column_privilege($1, c.oid, attnum, 'select') as readable, attname as column
     from pg_class as c
     join pg_attribute as a on a.attrelid = c.oid and attnum > 0 and not attisdropped
     where relkind in ('r', 'v')
       and (relnamespace = 'encryption_rollout'::regnamespace or relname in ('app_config', 'encryption_errors'))
       and has_any_column_privilege($1, c.oid, 'select')
     order by 1, 3`,
    [role],
  );
  return {
    tables: [...new Set(rows.map(({ table }) => table))],
    except: rows.filter(({ readable }) => !readable).map(({ table, column }) => `${table}.${column}`),
  };
};

const forReaders = {
  tables: [
    'audits',
    'batches',
    'clearings',
    'encryption_errors',
    'errors',
    'events',
    'gates',
    'holds',
    'paces',
    'phases',
    'polls',
    'run_targets',
    'runs',
  ],
  // It answers for anybody.
  except: ['holds.task_token'],
};

const insertAsCustomer = async (database: string) => {
  const customer = await connect(database, 'customer');
  const { rows } = await customer.query(
    `insert into public.appointments (organization_id, start_at, end_at, email)
     values (gen_random_uuid(), now(), now(), 'new@example.com') returning email_encrypted is not null as encrypted`,
  );
  return rows[0].encrypted;
};

describe('an installer who may not create roles', () => {
  test('owns the engine alone, and everything works', async () => {
    const client = await installed('plain', 'installer');
    expect(await rolesOfOurs()).toEqual([]);
    expect(Object.values(await ownersOf(client))).toEqual(Array(5).fill('installer'));
    expect(await insertAsCustomer('plain')).toBe(true);
    expect(await migrate(client)).toEqual([]);
  });

  test('hands the engine over once there are roles', async () => {
    const client = await connect('plain', 'installer');
    await root.query('create role encryption_rollout_owner; grant encryption_rollout_owner to installer');
    await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    expect(await ownersOf(client)).toMatchObject({
      key_material: 'encryption_rollout_owner',
      health: 'installer',
    });
    expect(await insertAsCustomer('plain')).toBe(true);
    await client.query('select public.batch_encrypt_appointments()');
    await client.query('select encryption_rollout.uninstall()');
    // It was not ours to drop.
    expect(await rolesOfOurs()).toEqual(['encryption_rollout_owner']);
    await root.query('drop role encryption_rollout_owner');
  });

  test('lets readers see the records of runs, and no more, who came after the engine', async () => {
    const client = await installed('late', 'installer');
    const roles = ['reader', 'operator', 'owner'].map((name) => `encryption_rollout_${name}`);
    for (const role of roles) await root.query(`create role ${role}`);
    await root.query('grant encryption_rollout_owner to installer');
    await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    for (const role of roles.slice(0, 2)) expect(await readableBy('late', role)).toEqual(forReaders);
    await client.query('select encryption_rollout.uninstall()');
    for (const role of roles) await root.query(`drop role ${role}`);
  });

  test('is refused when the owner role is one that logs in', async () => {
    await root.query('create role encryption_rollout_owner login');
    await root.query('create database trap owner creator');
    await expect(migrate(await connect('trap', 'creator'))).rejects.toMatchObject({ code: 'ER001' });
    await root.query('drop role encryption_rollout_owner');
  });
});

describe('an installer who may create roles', () => {
  test('gives the engine, the key and the audit trail to an owner without a login', async () => {
    const client = await installed('one', 'creator');
    expect(await rolesOfOurs()).toHaveLength(4);
    const { rows } = await root.query(
      "select from pg_roles where rolname like 'encryption\\_rollout\\_%' and (rolcanlogin or rolsuper or rolcreaterole or rolbypassrls)",
    );
    expect(rows).toEqual([]);
    const owner = 'encryption_rollout_owner';
    expect(await ownersOf(client)).toEqual({
      schema: owner,
      key_material: owner,
      runs: owner,
      encrypt_row_1: owner,
      health: 'creator',
    });
    expect(await insertAsCustomer('one')).toBe(true);
    expect(await migrate(client)).toEqual([]);
    for (const role of ['encryption_rollout_reader', 'encryption_rollout_operator'])
      expect(await readableBy('one', role)).toEqual(forReaders);
  });

  /** What each role may do, by what PostgreSQL answers; everything else is 42501, insufficient_privilege. */
  const sealed =
    'email_encrypted, pii_iv, id) from public.appointments where email_encrypted is not null limit 1';
  const acts = {
    batch: 'select public.batch_encrypt_appointments(5)',
    switch: "select encryption_rollout.set_trigger('public.appointments', true)",
    retry: "select encryption_rollout.forget_failed_rows('public.appointments')",
    health: 'select * from public.get_encryption_health_summary()',
    statistics: "select * from public.get_key_access_stats('1 hour')",
    errors: 'select * from public.encryption_errors',
    records: 'select * from encryption_rollout.gates',
    clearings: 'select * from encryption_rollout.clearings',
    holds: 'select id, gate, reason, decision, decided_by from encryption_rollout.holds',
    token: 'select task_token from encryption_rollout.holds',
    decide: "update encryption_rollout.holds set decision = 'go'",
    decrypt: `select public.decrypt_pii_with_iv_logged(${sealed}`,
    key: 'select key from encryption_rollout.key_material',
    readKey: 'select encryption_rollout.read_key()',
    installKey: "select encryption_rollout.install_key(2, '\\x00')",
    register: "select encryption_rollout.register_target('{}')",
    cover: 'delete from encryption_rollout.key_access',
    forge: "update encryption_rollout.gates set verdict = 'GO'",
    rows: "select encryption_rollout.audit_rows('public.appointments', null, 1)",
    uninstall: 'select encryption_rollout.uninstall()',
  };
  const reader = ['health', 'statistics', 'errors', 'records', 'clearings', 'holds'];
  const matrix: Record<string, string[]> = {
    encryption_rollout_reader: reader,
    encryption_rollout_operator: [...reader, 'batch', 'switch', 'retry'],
    encryption_rollout_decryptor: ['decrypt'],
    // A token is of use only to whoever may also call Step Functions for this account.
    pg_read_all_data: ['errors', 'records', 'clearings', 'holds', 'token'],
    nothing: [],
  };
  test.each(Object.entries(matrix))(
    'a login with %s may do that, and nothing else',
    async (role, allowed) => {
      // To decrypt, one needs to get hold of ciphertext first.
      if (role === 'encryption_rollout_decryptor') {
        await (await connect('one', 'creator')).query('grant select on public.appointments to nobody');
      }
      if (role !== 'nothing') await root.query(`grant ${role} to nobody`);
      const client = await connect('one', 'nobody');
      const done: string[] = [];
      for (const [act, sql] of Object.entries(acts)) {
        const answer = await outcome(client, sql);
        // Row-level security shows a reader of everything no row of the keys'.
        const empty = act === 'key' && answer === 'done' && (await client.query(sql)).rowCount === 0;
        if (answer === 'done' && !empty) done.push(act);
        else expect([act, empty ? '42501' : answer]).toEqual([act, '42501']);
      }
      expect(done.sort()).toEqual([...allowed].sort());
      if (role !== 'nothing') await root.query(`revoke ${role} from nobody`);
    },
  );

  test('every decryption is audited under the name of the login', async () => {
    const { rows } = await (await connect('one', 'creator')).query(
      "select distinct accessed_by from encryption_rollout.key_access where purpose = 'decrypt'",
    );
    expect(rows).toEqual([{ accessed_by: 'nobody' }]);
  });

  test('who is a member of the roles is told, through others and with the right to grant as well', async () => {
    const client = await connect('one', 'creator');
    const version = Number((await root.query('show server_version_num')).rows[0].server_version_num);
    const members = async () => {
      const { rows } = await client.query('select role, members from encryption_rollout.role_members()');
      return Object.fromEntries(rows.map((row) => [row.role, row.members]));
    };
    const before = await members();
    expect(Object.keys(before)).toEqual(['owner', 'operator', 'decryptor', 'reader']);
    // Who creates a role may grant it, from PostgreSQL 16 on, and is otherwise no member of it.
    const creator = version >= 160_000 ? ['creator (may grant it, also to itself)'] : [];
    expect(before).toMatchObject({ decryptor: creator, reader: creator });
    expect(before.owner).toContain(version >= 160_000 ? 'creator (may grant it)' : 'creator');
    const superuser = (await root.query('select current_user as name')).rows[0].name;
    expect(JSON.stringify(before), 'one that nobody has granted anything').not.toContain(superuser);

    await root.query(`
      create role staff; create role night; create role "Odd; decryptor: x" login;
      grant encryption_rollout_decryptor to staff;
      grant staff to night;
      grant night, encryption_rollout_reader to customer;
      grant encryption_rollout_decryptor to "Odd; decryptor: x";
      grant encryption_rollout_reader to ${superuser};
      grant encryption_rollout_operator to nobody with admin option`);
    expect(await members()).toEqual({
      ...before,
      operator: [...creator, 'nobody (may grant it)'].sort(),
      decryptor: [
        '"Odd; decryptor: x"',
        ...creator,
        'staff',
        'customer (through night)',
        'night (through staff)',
      ],
      reader: [...creator, 'customer', superuser].sort(),
    });
    if (version >= 160_000) {
      // Neither inherited nor to be assumed: a membership that is worth nothing. And what is inherited must not have to be assumed.
      await root.query(`
        revoke encryption_rollout_decryptor from "Odd; decryptor: x";
        grant encryption_rollout_decryptor to colleague with inherit false, set false;
        grant encryption_rollout_decryptor to staff with inherit false`);
      expect((await members()).decryptor).toEqual([
        ...creator,
        'staff',
        'customer (through night)',
        'night (through staff)',
      ]);
      await root.query('grant staff to night with set false');
      expect((await members()).decryptor).toEqual([...creator, 'staff']);
      const { rows } = await root.query(
        `select role, pg_has_role(role, $1, 'usage') or pg_has_role(role, $1, 'set') as has
         from unnest(array['night', 'customer', 'staff', 'colleague']::name[]) as role`,
        ['encryption_rollout_decryptor'],
      );
      expect(
        Object.fromEntries(rows.map(({ role, has }) => [role, has])),
        'PostgreSQL says the same',
      ).toEqual({
        night: false,
        customer: false,
        staff: true,
        colleague: false,
      });
    }
    await root.query(`drop role staff, night, "Odd; decryptor: x"`);
    await root.query(
      `revoke encryption_rollout_reader from ${superuser}; revoke encryption_rollout_operator from nobody`,
    );
    await root.query(
      'revoke encryption_rollout_reader from customer; revoke encryption_rollout_decryptor from colleague',
    );
  });

  test('who may grant a role only by what it would have to become, and cannot, is not told', async ({
    skip,
  }) => {
    const version = Number((await root.query('show server_version_num')).rows[0].server_version_num);
    skip(version < 160_000, 'a role inherits all that it is granted, and may become all of it');
    await root.query(`
      create role head; create role deputy; create role clerk; create role aide; create role page;
      grant encryption_rollout_decryptor to head with admin option;
      grant head to deputy with inherit false, set true;
      grant deputy to clerk with inherit true, set false;
      grant deputy to page with inherit false, set true;
      grant head to aide with inherit true, set false`);
    const client = await connect('one', 'creator');
    const { rows } = await client.query(
      "select array_to_string(members, '; ') as told from encryption_rollout.role_members() where role = 'decryptor'",
    );
    const roles = ['head', 'deputy', 'clerk', 'aide', 'page'];
    const told = roles.filter((role) => new RegExp(`\\b${role} \\([^)]*may grant it`).test(rows[0].told));
    // What each can do with PostgreSQL, as itself or as whatever it may become.
    const can: string[] = [];
    for (const role of roles) {
      await root.query(`set session authorization ${role}`);
      for (const as of roles) {
        await root.query('begin');
        const granted = await outcome(
          root,
          `set local role ${as}; grant encryption_rollout_decryptor to nobody`,
        );
        await root.query('rollback');
        if (granted === 'done' && !can.includes(role)) can.push(role);
      }
      await root.query('reset session authorization');
    }
    expect(told).toEqual(can);
    expect(told).toEqual(['head', 'deputy', 'aide', 'page']);
    await root.query('drop role head, deputy, clerk, aide, page');
  });

  test('what others have made in our schema is not adopted, and does not keep ours from its owner', async () => {
    const client = await connect('one', 'creator');
    const superuser = await connect('one');
    await superuser.query(`
      create view encryption_rollout.leak as select * from encryption_rollout.key_material;
      alter view encryption_rollout.leak owner to nobody;
      alter function encryption_rollout.encrypt_row_1() owner to creator`);
    const notices: (string | undefined)[] = [];
    client.on('notice', ({ message }) => notices.push(message));
    await client.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    expect(notices.filter((notice) => notice?.startsWith('the engine belongs to'))).toEqual([]);
    expect((await ownersOf(client)).encrypt_row_1).toBe('encryption_rollout_owner');
    await superuser.query('select encryption_rollout.assign_rights()');
    const { rows } = await client.query(
      "select finding, fix from encryption_rollout.breaches() where finding like '%leak%'",
    );
    expect(rows).toEqual([
      {
        finding: 'view encryption_rollout.leak belongs to nobody',
        fix: 'drop view encryption_rollout.leak;',
      },
    ]);
    await superuser.query(rows[0].fix);
  });

  test('a colleague of the installer, in the owner role, runs rollouts as well', async () => {
    const client = await connect('one', 'creator');
    await client.query('grant encryption_rollout_owner to colleague');
    // Whose functions registering creates anew.
    await root.query('grant creator to colleague');
    const colleague = await connect('one', 'colleague');
    await colleague.query('select encryption_rollout.register_target($1)', [JSON.stringify(appointments)]);
    expect(
      await outcome(colleague, "select encryption_rollout.encrypt_batch('public.appointments', 5)"),
    ).toBe('done');
    expect(await outcome(colleague, "select encryption_rollout.health('public.appointments')")).toBe('done');
  });

  test('uninstall drops the roles when the last database lets go of them', async () => {
    const other = await installed('two', 'creator');
    await (await connect('one', 'creator')).query('select encryption_rollout.uninstall()');
    expect(await rolesOfOurs()).toHaveLength(4);
    expect(await insertAsCustomer('two')).toBe(true);
    await other.query('select encryption_rollout.uninstall()');
    expect(await rolesOfOurs()).toEqual([]);
  });
});
