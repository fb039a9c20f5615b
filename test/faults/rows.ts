/** What the application does to its rows meanwhile, and rows that cannot be encrypted. */
import { expect } from 'vitest';
import { expectCompleted, expectStopped, type Fault, isBatch, once, whileBatchStands } from './fault.ts';
import type { Scene } from './scene.ts';

/** A trigger of somebody else's that refuses the rows for which the condition on `old` is true, quoting them. */
async function refuseRows(scene: Scene, condition: string): Promise<void> {
  await scene.app.client.query(`
    create function public.refuse() returns trigger language plpgsql as $$
    begin
      if ${condition} then raise exception 'row with % refused', old.email; end if;
      return new;
    end $$;
    create trigger refuse before update of pii_iv on public.appointments
      for each row execute function public.refuse()`);
  scene.repair(() => scene.app.client.query('drop function public.refuse() cascade'));
}

const failedRows = (scene: Scene) =>
  scene.count("select count(distinct row_key) from public.encryption_errors where error_type = 'encryption'");

async function expectNoLeak(scene: Scene): Promise<void> {
  const { rows } = await scene.app.client.query('select e::text as text from public.encryption_errors e');
  expect(JSON.stringify(rows)).not.toMatch(/example\.com|\+1555|Name\d/);
}

const last = (count: number) =>
  `id in (select id from appointments where email is not null order by start_at desc limit ${count})`;

export const rows: readonly Fault[] = [
  {
    name: 'Rows that a check constraint refuses',
    done: 'A constraint, added NOT VALID, is violated by three old rows: no update of them is possible.',
    holds: 'All other rows are encrypted; the rollout is not called complete.',
    async run(scene) {
      await scene.app.write(`update appointments set note = 'forbidden' where ${last(3)}`);
      await scene.app.client.query(
        "alter table public.appointments add constraint no_such_note check (note <> 'forbidden') not valid",
      );
      scene.repair(() =>
        scene.app.client.query('alter table public.appointments drop constraint no_such_note'),
      );
      const ending = await scene.rollout();
      expectStopped(ending, /Phase 5.*(Encryption errors|Unencrypted rows)|Error rate/);
      const encrypted = await scene.count(
        'select count(*) from public.appointments where pii_iv is not null',
      );
      expect(await failedRows(scene)).toBe(3);
      expect(encrypted).toBe(377);
      return `${encrypted} of 380 encrypted, 3 recorded by key; stopped by the gate of phase 5`;
    },
  },
  {
    name: 'A foreign trigger that raises for every row',
    done: 'From phase 3 on a trigger of somebody else’s refuses every row that is encrypted.',
    holds: 'The rollout stops at the error rate, long before it has tried every row.',
    rows: 1_000,
    async run(scene) {
      const ending = await scene.rollout({ before: once(isBatch(3), () => refuseRows(scene, 'true')) });
      expectStopped(ending, /Error rate/);
      const failed = await failedRows(scene);
      expect(failed).toBeLessThan(250);
      await expectNoLeak(scene);
      return `stopped after ${failed} failed rows of 717 to do; no row is quoted in the records`;
    },
  },
  {
    name: 'One poison row',
    done: 'One row, among the last, cannot be updated: a foreign trigger raises and quotes it.',
    holds: 'It is isolated, recorded by its key alone and passed over; every other row is encrypted.',
    bounded: true,
    async run(scene) {
      await refuseRows(scene, "old.email = 'person399@example.com'");
      const ending = await scene.rollout();
      expectStopped(ending, /Phase 5/);
      expect(await failedRows(scene)).toBe(1);
      expect(await scene.count('select count(*) from public.appointments where pii_iv is not null')).toBe(
        379,
      );
      await expectNoLeak(scene);
      return '379 of 380 encrypted, 1 recorded by key; stopped by the gate of phase 5';
    },
  },
  {
    name: 'Poison rows: 2 %',
    done: 'One row in fifty cannot be updated.',
    holds: 'Phase 1, which tolerates none, stops; nothing is retried for ever.',
    rows: 2_000,
    async run(scene) {
      await refuseRows(scene, 'extract(epoch from old.start_at)::bigint / 60 % 50 = 0');
      const ending = await scene.rollout();
      expectStopped(ending, /Encryption errors|Error rate/);
      await expectNoLeak(scene);
      return `stopped in phase 1 with ${await failedRows(scene)} failed rows`;
    },
  },
  {
    name: 'Extreme values',
    done: 'Empty strings, 1 MB of text, characters of every Unicode plane, newlines, every control character but NUL; NUL itself is tried.',
    holds: 'Each comes back byte for byte. NUL is refused by PostgreSQL, before us.',
    bounded: true,
    async prepare(client) {
      const planes = Array.from({ length: 17 }, (_, plane) =>
        String.fromCodePoint(plane * 0x10000 + 0xfff),
      ).join('');
      const controls = Array.from({ length: 31 }, (_, code) => String.fromCharCode(code + 1)).join('');
      const values = [
        '',
        'x'.repeat(1024 * 1024),
        planes,
        controls,
        '\r\n\n\t \u2028',
        `'"\\;--$$`,
        '\u202e\u0301e\u0301',
        '\u{10ffff}',
      ];
      await client.query(
        `insert into public.appointments (organization_id, start_at, end_at, email, e164, first_name)
         select '00000000-0000-4000-8000-000000000001', now(), now(), value, null, value from unnest($1::text[]) as value`,
        [values],
      );
      return undefined;
    },
    async run(scene) {
      await expect(
        scene.app.client.query('update public.appointments set first_name = $1', ['a\0b']),
      ).rejects.toMatchObject({ code: '22021' });
      expectCompleted(await scene.rollout());
      return 'completed; 8 rows of extreme values open to what they were; NUL refused with SQLSTATE 22021';
    },
  },
  {
    name: 'Rows deleted under the cursor',
    done: 'While a batch stands in its middle the application deletes 40 rows that it has looked up but not reached.',
    holds: 'They are gone and nothing else is.',
    async run(scene) {
      const ending = await scene.rollout({
        instead: await whileBatchStands(scene, 3, () =>
          scene.app.write(`delete from appointments where ${last(40)}`),
        ),
      });
      expectCompleted(ending);
      return `completed; ${await scene.count('select count(*) from public.appointments')} of 400 rows are left, as the application wants it`;
    },
  },
  {
    name: 'Rows inserted around the cursor',
    done: 'Rows are inserted before phase 3, in the middle of its batch, before phase 5, and by a bulk load once the trigger is on.',
    holds: 'Every one is encrypted at the end.',
    async run(scene) {
      let n = 0;
      const insert = (rows: number) =>
        scene.app.write(
          `insert into appointments (id, organization_id, start_at, end_at, email, first_name)
           select md5('new ${++n}' || i)::uuid, '00000000-0000-4000-8000-000000000001', '2031-01-01', '2031-01-02', 'new' || i || '@example.com', null
           from generate_series(1, ${rows}) i`,
        );
      const ending = await scene.rollout({
        before: once(
          (call) => call.name === 'Gate' && call.phase === 4,
          () => insert(100),
        ),
        instead: await whileBatchStands(
          scene,
          3,
          () => insert(5),
          () => insert(5),
        ),
      });
      expectCompleted(ending);
      return `completed; 110 rows more, ${await scene.count('select count(*) from public.appointments where pii_iv is not null')} of 490 encrypted`;
    },
  },
  {
    name: 'Primary keys updated',
    done: 'The keys of 20 rows are changed between batches, of 20 others in the middle of one, and of 20 with the trigger on.',
    holds: 'No ciphertext stays that was sealed for another key.',
    async run(scene) {
      const change = (order: string, only = 'true') =>
        scene.app.write(
          `update appointments set id = md5('moved' || id)::uuid where id in (select id from appointments where email is not null and ${only} order by start_at ${order} limit 20)`,
        );
      const ending = await scene.rollout({
        before: once(
          (call) => call.name === 'Gate' && call.phase === 4,
          () => change('asc offset 100'),
        ),
        instead: await whileBatchStands(
          scene,
          3,
          () => change('desc'),
          () => change('asc'),
        ),
      });
      expectCompleted(ending);
      return 'completed; 60 keys changed, every row opens under its new one';
    },
  },
  {
    name: 'PII edited between batches',
    done: 'Before phase 3 and again before the trigger is on, the application edits PII of 30 encrypted rows.',
    holds: 'Stale ciphertext is cleared at once and made anew.',
    bounded: true,
    oneWriter: true,
    async run(scene) {
      let offset = 0;
      const edit = async () => {
        offset += 40;
        await scene.app.write(
          `update appointments set first_name = coalesce(first_name, '') || ' II', email = null where id in (select id from appointments where e164 is not null order by start_at offset ${offset} limit 30)`,
        );
      };
      let cleared = 0;
      const ending = await scene.rollout({
        async before(call) {
          if (offset === 0 ? !isBatch(3)(call) : offset > 40 || call.name !== 'EnableTrigger') return;
          const before = await scene.count(
            'select count(*) from public.appointments where pii_iv is not null',
          );
          await edit();
          cleared +=
            before - (await scene.count('select count(*) from public.appointments where pii_iv is not null'));
        },
      });
      expect(cleared).toBeGreaterThanOrEqual(60);
      // The edits cost phase 4 its 90 %, which its batches bring back before its gate judges.
      expectCompleted(ending);
      return `completed; ${cleared} stale ciphertexts cleared at once`;
    },
  },
  {
    name: 'PII edited in the middle of a batch',
    done: 'The application edits 30 rows that a standing batch has looked up, commits, and rolls back edits of 30 others.',
    holds: 'What is sealed is what is stored.',
    async run(scene) {
      const ending = await scene.rollout({
        instead: await whileBatchStands(scene, 3, async () => {
          await scene.app.write(
            `update appointments set email = 'edited@example.com', first_name = '' where ${last(30)}`,
          );
          const other = await scene.session();
          await other.client.query(
            "begin; update public.appointments set email = 'never@example.com' where id in (select id from public.appointments where pii_iv is null order by start_at desc offset 60 limit 30); rollback",
          );
        }),
      });
      expectCompleted(ending);
      return 'completed; 30 edits sealed as edited, 30 rolled back without a trace';
    },
  },
];
