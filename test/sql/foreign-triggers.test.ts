/** Triggers, rules and constraints of the application that have a say in what becomes of a batch's update. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  freshDatabase,
  pastTriggers,
  seedAppointments,
  type TestDatabase,
  testKey,
} from '../support/database.ts';

let database: TestDatabase;
let client: pg.Client;
beforeEach(async () => {
  database = await freshDatabase({ template: 'appointments' });
  client = database.client;
  await seedAppointments(client, 100);
});
afterEach(() => database.drop());

interface Batch {
  encrypted: number;
  failed: number;
  skipped: number;
  exhausted: boolean;
}

/** Until nothing more can be encrypted; fails instead of going on for ever. */
async function batches(): Promise<Pick<Batch, 'encrypted' | 'failed'>> {
  const sum = { encrypted: 0, failed: 0 };
  for (let lap = 0; lap < 20; lap++) {
    const { rows } = await client.query<Batch>(
      "select * from encryption_rollout.encrypt_batch('public.appointments', 40)",
    );
    const [done] = rows as [Batch];
    sum.encrypted += done.encrypted;
    sum.failed += done.failed;
    if (done.exhausted) return sum;
  }
  throw new Error(`not exhausted: ${JSON.stringify(sum)}`);
}

const encrypted = async () =>
  (await client.query('select count(*)::integer as n from public.appointments where pii_iv is not null'))
    .rows[0].n;

/** Of every error: the row's first name, the SQLSTATE and what raised it. */
const errors = async () =>
  (
    await client.query(
      `select first_name as name, sqlstate, raised_by as by
       from public.encryption_errors left join public.appointments as a on a.id::text = row_key order by first_name`,
    )
  ).rows;

const trigger = (name: string, body: string, when = 'before update') =>
  client.query(`
    create function public.${name}() returns trigger language plpgsql as $$ begin ${body} end $$;
    create trigger ${name} ${when} on public.appointments for each row execute function public.${name}()`);

const archived = "old.first_name in ('Name7', 'Name44')";
const bothRows = (by: string | null) => ['Name44', 'Name7'].map((name) => ({ name, sqlstate: 'ER012', by }));

describe('an update that does not take place', () => {
  test.each([
    ['null', `if ${archived} then return null; end if; return new;`],
    ['the old row', `if ${archived} then return old; end if; return new;`],
    ['the new row without its ciphertext', `if ${archived} then new.pii_iv := null; end if; return new;`],
  ])('because a trigger returns %s: is counted as failed, the row named and passed over', async (_, body) => {
    await trigger('archive', body);
    expect(await batches()).toEqual({ encrypted: 93, failed: 2 });
    expect(await encrypted()).toBe(93);
    expect(await errors()).toEqual(bothRows('public.archive'));
    const { rows } = await client.query(
      "select failed_rows::integer as failed from encryption_rollout.health('public.appointments')",
    );
    expect(rows).toEqual([{ failed: 2 }]);
  });

  test('of every row: the walk ends, and says so of each', async () => {
    await trigger('refuse', 'return old;');
    expect(await batches()).toEqual({ encrypted: 0, failed: 95 });
    expect(await errors()).toHaveLength(95);
  });

  test.each([
    ['nothing', 'do instead nothing'],
    ['something else', 'do instead update public.appointments set note = new.note where false'],
  ])(
    'because of a rule that does %s instead: the walk ends, nothing is counted as encrypted',
    async (_, rule) => {
      await client.query(
        `create rule instead as on update to public.appointments where old.first_name = 'Name7' ${rule}`,
      );
      const { encrypted: counted, failed } = await batches();
      expect(counted).toBe(await encrypted());
      expect(counted + failed).toBe(95);
    },
  );

  test('by hand: returns, with the number of rows that are encrypted', async () => {
    await trigger('archive', `if ${archived} then return old; end if; return new;`);
    const { rows } = await client.query('select public.batch_encrypt_appointments() as encrypted');
    expect(rows).toEqual([{ encrypted: 93 }]);
  });

  test('because an AFTER trigger takes the ciphertext off again: by hand it returns', async () => {
    await trigger(
      'strip',
      `if new.first_name = 'Name7' and new.pii_iv is not null then
         update public.appointments set pii_iv = null, email_encrypted = null where id = new.id;
       end if; return null;`,
      'after update',
    );
    const { rows } = await client.query('select public.batch_encrypt_appointments() >= 94 as returned');
    expect(rows).toEqual([{ returned: true }]);
    expect(await encrypted()).toBe(94);
  });

  test('a clearing is counted the same way', async () => {
    await batches();
    await trigger('archive', `if ${archived} then return old; end if; return new;`);
    const { rows } = await client.query(
      "select c.* from encryption_rollout.clear_batch('public.appointments', 1000) as c",
    );
    expect(rows[0]).toMatchObject({ failed: 2 });
    expect(await encrypted()).toBe(2);
  });
});

describe('another value than the batch has sealed', () => {
  beforeEach(() => client.query('update public.appointments set email = upper(email)'));

  /** Rows whose ciphertext is not of what stands beside it. */
  const stale = async () => {
    const { rows } = await client.query(
      "select encryption_rollout.stale_sql(encryption_rollout.require_fitting_target('public.appointments')) as sql",
    );
    return (await client.query(`select count(*)::integer as n from public.appointments where ${rows[0].sql}`))
      .rows[0].n;
  };

  const lowers = 'new.email := lower(new.email); return new;';
  const isOn = [
    ['off', false],
    ['on', true],
  ] as const;
  describe.each(isOn)('where the main trigger is %s', (_, on) => {
    beforeEach(() => client.query("select encryption_rollout.set_trigger('public.appointments', $1)", [on]));
    afterEach(async () => expect(await stale()).toBe(0));

    test('from a trigger before ours: is sealed in the end', async () => {
      await trigger('a_lower', lowers);
      expect(await batches()).toEqual({ encrypted: 95, failed: 0 });
      expect(await encrypted()).toBe(95);
      expect(await errors()).toEqual([]);
    });

    test.each([
      [
        'writes the row again',
        'update public.appointments set email = lower(email) where id = new.id and email <> lower(email);',
      ],
      [
        'touches a row that another has changed',
        "update public.appointments set note = 'touched' where id = new.id and note is distinct from 'touched';",
      ],
    ])('from a trigger before ours, with one that %s afterwards: as well', async (_, body) => {
      await trigger('a_lower', lowers);
      await trigger('afterwards', `${body} return null;`, 'after update');
      expect(await batches()).toMatchObject({ failed: 0 });
      expect(await encrypted()).toBe(95);
      expect(await errors()).toEqual([]);
    });

    test('in rows that a trigger takes away afterwards: nobody fails', async () => {
      await trigger('a_lower', lowers);
      await trigger(
        'away',
        'delete from public.appointments where id = new.id; return null;',
        'after update',
      );
      expect(await batches()).toMatchObject({ failed: 0 });
    });

    test('from a trigger that also spoils the ciphertext: the row is named, and keeps none', async () => {
      await trigger(
        'a_odd',
        `if ${archived} then new.email := new.email || 'x'; new.e164_encrypted := null; end if; return new;`,
      );
      const { failed } = await batches();
      expect(failed).toBe(on ? 0 : 2);
    });

    test('from a trigger after ours: the rows are as they were, and are named', async () => {
      await trigger('zzz_lower', `if ${archived} then new.email := lower(new.email); end if; return new;`);
      expect(await batches()).toEqual({ encrypted: 93, failed: 2 });
      expect(await encrypted()).toBe(93);
      expect(await errors()).toEqual(
        bothRows('public.zzz_lower').map((row) => ({ ...row, sqlstate: 'ER014' })),
      );
    });
  });

  test("from whoever says that his update is a batch's: the guard sees to it", async () => {
    await batches();
    const app = `app_${randomUUID().replaceAll('-', '')}`;
    await client.query(
      `create role ${app}; grant select, update on public.appointments to ${app}; set role ${app}`,
    );
    await client.query(
      `select set_config('encryption_rollout.batch', 'on', false),
         set_config('encryption_rollout.batch_of', 'public.appointments'::regclass::oid::text, false)`,
    );
    await client.query(
      "update public.appointments set email = 'other@example.com' where first_name = 'Name7'",
    );
    await client.query('reset role');
    expect(await stale()).toBe(0);
    expect(await encrypted()).toBe(94);
    await client.query(`drop owned by ${app}; drop role ${app}`);
  });
});

test('an error that no function of the application has raised is recorded without one', async () => {
  await client.query(`
    alter table public.appointments add checked integer
      generated always as (1 / case when first_name = 'Name7' and pii_iv is not null then 0 else 1 end) stored`);
  expect(await batches()).toEqual({ encrypted: 94, failed: 1 });
  expect(await errors()).toEqual([{ name: 'Name7', sqlstate: '22012', by: null }]);
});

describe('plans', () => {
  // Each as PostgreSQL has it by default, but for two that are as nobody would have them by mistake.
  const settings = [
    ['enable_seqscan', 'on'],
    ['enable_indexscan', 'on'],
    ['enable_bitmapscan', 'on'],
    ['enable_tidscan', 'off'],
    ['enable_nestloop', 'off'],
    ['enable_hashjoin', 'on'],
    ['enable_mergejoin', 'on'],
    ['max_parallel_workers_per_gather', '2'],
    ['jit', 'on'],
  ] as const;

  const untilAllIsSealed = async (pastTheTriggers: string) => {
    await batches();
    await pastTriggers(client, pastTheTriggers);
  };
  test.each([
    ['encrypts', 'encrypt_batch', async () => {}],
    [
      'looks again',
      'look_again',
      () =>
        untilAllIsSealed(
          "delete from encryption_rollout.leaves; update public.appointments set email = upper(email) where first_name = 'Name7'",
        ),
    ],
    ['clears', 'clear_batch', () => untilAllIsSealed('select')],
    [
      'clears orphans',
      'clear_orphans',
      () =>
        untilAllIsSealed(
          "update public.appointments set (email, email_encrypted) = (null, first_name_encrypted) where first_name = 'Name7'",
        ),
    ],
    [
      'seals missed writes',
      'seal_missed_writes',
      async () => {
        await client.query(`
          select encryption_rollout.set_trigger('public.appointments', true);
          delete from encryption_rollout.key_material;
          insert into public.appointments (organization_id, start_at, end_at, first_name) values (gen_random_uuid(), now(), now(), 'New')`);
        await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
      },
    ],
  ])('of the application, when a call %s, are made as the session has it', async (_, called, before) => {
    await before();
    await client.query(`
      create table public.seen (fired text, settings text[]);
      create function public.see() returns trigger language plpgsql as $$
      begin
        insert into public.seen
        values (tg_when || tg_level, array(select current_setting(name) from unnest(tg_argv[0]::text[]) with ordinality as s (name, n) order by n));
        return new;
      end $$`);
    const names = `{${settings.map(([name]) => name)}}`;
    for (const when of ['before', 'after'])
      for (const level of ['row', 'statement'])
        await client.query(
          `create trigger see_${when}_${level} ${when} update on public.appointments for each ${level} execute function public.see('${names}')`,
        );
    await client.query(settings.map(([name, value]) => `set ${name} = '${value}'`).join('; '));
    await client.query(`select encryption_rollout.${called}('public.appointments', 100)`);
    const { rows } = await client.query('select distinct fired, settings from public.seen order by fired');
    expect(rows).toEqual(
      ['AFTERROW', 'AFTERSTATEMENT', 'BEFOREROW', 'BEFORESTATEMENT'].map((fired) => ({
        fired,
        settings: settings.map(([, value]) => value),
      })),
    );
  });
});

describe('what is checked when a transaction commits', () => {
  const check = (body: string) =>
    client.query(`
      create function public.check_later() returns trigger language plpgsql as $$ begin ${body} return null; end $$;
      create constraint trigger check_later after update on public.appointments
        deferrable initially deferred for each row execute function public.check_later()`);

  test('finds the row at fault, which is named and passed over', async () => {
    await check("if new.first_name = 'Name7' then raise exception 'not %', new.email; end if;");
    expect(await batches()).toEqual({ encrypted: 94, failed: 1 });
    expect(await errors()).toEqual([{ name: 'Name7', sqlstate: 'P0001', by: 'check_later' }]);
  });

  test('is raised as it is when it is about what the caller has written before', async () => {
    await client.query(`
      create table public.notes (appointment uuid references public.appointments deferrable initially deferred);
      begin;
      insert into public.notes values (gen_random_uuid())`);
    await expect(client.query('select public.batch_encrypt_appointments(10)')).rejects.toMatchObject({
      code: '23503',
    });
    await client.query('rollback');
    expect(await errors()).toEqual([]);
  });

  test('names the row at fault among those that were written while the key was away, and the others are sealed', async () => {
    await client.query(`
      select encryption_rollout.set_trigger('public.appointments', true);
      delete from encryption_rollout.key_material;
      insert into public.appointments (organization_id, start_at, end_at, first_name)
      select gen_random_uuid(), now(), now(), 'New' || n from generate_series(1, 3) as n`);
    await client.query('select encryption_rollout.install_key($1, $2)', [testKey.number, testKey.key]);
    await check("if new.first_name = 'New2' then raise exception 'not %', new.first_name; end if;");
    const { rows } = await client.query(
      "select encryption_rollout.seal_missed_writes('public.appointments', 100) as settled",
    );
    expect(rows).toEqual([{ settled: 3 }]);
    const sealed = await client.query(
      "select first_name from public.appointments where first_name like 'New%' and pii_iv is not null order by 1",
    );
    expect(sealed.rows.map(({ first_name }) => first_name)).toEqual(['New1', 'New3']);
  });

  test('names the row at fault among those whose orphaned ciphertext is cleared', async () => {
    await batches();
    await client.query(
      `set encryption_rollout.batch = on;
       update public.appointments set email_encrypted = '\\x010001', pii_iv = decode(repeat('00', 16), 'hex'), note = 'orphan'
       where num_nonnulls(email, e164, first_name) = 0;
       reset encryption_rollout.batch`,
    );
    await check("if new.note = 'orphan' then raise exception 'not this one'; end if;");
    const { rows } = await client.query(
      "select cleared, failed from encryption_rollout.clear_orphans('public.appointments', 100)",
    );
    expect(rows).toEqual([{ cleared: 0, failed: 5 }]);
  });

  test('a deferred foreign key of the table itself is no obstacle', async () => {
    await client.query(`
      alter table public.appointments add follows uuid references public.appointments (id) deferrable initially deferred;
      update public.appointments as a set follows = (select id from public.appointments as b where b.id <> a.id limit 1)`);
    expect(await batches()).toEqual({ encrypted: 95, failed: 0 });
  });
});

describe('encryption_rollout.batch', () => {
  /** As docs/database.md shows it. */
  const [example] = /create or replace function public\.set_updated_at[\s\S]*?\$\$;$/m.exec(
    readFileSync('docs/database.md', 'utf8'),
  ) as [string];

  test('tells a trigger that keeps the time of the last change which change is a batch’s', async () => {
    await client.query("update public.appointments set updated_at = '2001-01-01'");
    await client.query(example);
    await client.query(
      'create trigger set_updated_at before update on public.appointments for each row execute function public.set_updated_at()',
    );
    const changed = async () =>
      (
        await client.query(
          "select count(*)::integer as n from public.appointments where updated_at > '2001-01-01'",
        )
      ).rows[0].n;
    await client.query('begin');
    await batches();
    expect(await changed()).toBe(0);
    // The same transaction, after the batch.
    await client.query("update public.appointments set note = 'changed' where first_name = 'Name7'");
    expect(await changed()).toBe(1);
    await client.query('commit');
    await client.query("select encryption_rollout.clear_batch('public.appointments', 1000)");
    expect(await changed()).toBe(1);
  });
});
