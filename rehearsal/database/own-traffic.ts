/** Live traffic on a table of the user's own: its writes have the shape that the table asks for. */
import pg from 'pg';
import { Fictions, type Row } from '../../inspection/fiction.ts';
import { tableSql } from '../../lambdas/adapters/postgres/encryption/engine.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import type { Writes } from './traffic.ts';

/** Of the first inserted row: no other has this number. */
const firstNumber = 5_000_000;
/** In a database of the rehearsal's own: the keys of the rows that no traffic writes to. */
const schema = 'rehearsal_traffic';

/**
 * What live traffic may do to the table, tried and rolled back. Some of its rows are its own from now on.
 * @param rows how many of those that there are
 * @returns the writes, or why there can be none
 */
export async function ownWrites(client: pg.Client, target: Target, rows: number): Promise<Writes | string> {
  const table = tableSql(target);
  const keys = target.key.map((column) => pg.escapeIdentifier(column));
  const key = `array[${keys.map((column) => `${column}::text`).join(', ')}]`;
  const still = `${schema}.${pg.escapeIdentifier(`${target.schema}.${target.table}`.slice(-60))}`;
  await client.query(`create schema if not exists ${schema}`);
  await client.query(
    `create table ${still} as select ${key} as still_key from ${table} order by ${keys.join(', ')} offset $1`,
    [rows],
  );
  await client.query(`create index on ${still} (still_key)`);

  const inserted: string[] = [];
  const set = (row: Row) => {
    const columns = target.columns.filter((column) => column in row).map((each) => pg.escapeIdentifier(each));
    return columns.map((column) => `${column} = fiction.${column}`).join(', ');
  };
  const fictions = new WeakMap<pg.ClientBase, Promise<Fictions>>();
  const fiction = async (session: pg.ClientBase, n: number) => {
    const made = fictions.get(session) ?? Fictions.of(session, target, target.columns);
    fictions.set(session, made);
    return (await (await made).row(firstNumber + n, target.columns, true)).row;
  };
  const writes: Writes = {
    isLive: `not exists (select from ${still} where still_key = ${key})`,
    key: `array_to_json(${key})::text`,
    async insert(session, n) {
      const row = await fiction(session, n);
      const columns = Object.keys(row)
        .map((column) => pg.escapeIdentifier(column))
        .join(', ');
      const { rows: found } = await session.query<{ key: string[] }>(
        `insert into ${table} (${columns}) select ${columns} from jsonb_populate_record(null::${table}, $1)
         returning ${key} as key`,
        [row],
      );
      const made = JSON.stringify(found[0]?.key);
      inserted.push(made);
      return made;
    },
    async edit(session, of, n) {
      const row = await fiction(session, n);
      await session.query(
        `update ${table} as edited set ${set(row)} from jsonb_populate_record(null::${table}, $2) as fiction
         where array[${keys.map((column) => `edited.${column}::text`).join(', ')}] = $1::text[]`,
        [JSON.parse(of), row],
      );
    },
    /** Of rows of its own alone: others may be referred to. */
    async remove(session, of, n) {
      if (!inserted.includes(of)) return writes.edit(session, of, n);
      await session.query(`delete from ${table} where ${key} = $1::text[]`, [JSON.parse(of)]);
    },
  };
  const own = await refusalsOf(client, writes);
  if (typeof own === 'string') return own;
  return {
    ...writes,
    insert: tolerant(writes.insert, own),
    edit: tolerant(writes.edit, own),
    remove: tolerant(writes.remove, own),
  };

  /**
   * Tries writes as they will be, before a rollout has begun, and rolls them back.
   * @returns how the table refuses some of them by itself; a text when it refuses all
   */
  async function refusalsOf(session: pg.Client, tried: Writes): Promise<ReadonlySet<string> | string> {
    const refused = new Set<string>();
    let taken = 0;
    const attempt = async (write: () => Promise<unknown>) => {
      await session.query('savepoint attempt');
      try {
        await write();
        // What is deferred would come with the commit.
        await session.query('set constraints all immediate');
        taken += 1;
      } catch (error) {
        await session.query('rollback to attempt');
        refused.add(refusalOf(error));
      }
      await session.query('set constraints all deferred');
    };
    await session.query('begin');
    try {
      const { rows: live } = await session.query<{ key: string }>(
        `select ${tried.key} as key from ${table} where ${tried.isLive} order by random() limit $1`,
        [attempts],
      );
      for (let n = 0; n < attempts; n++) {
        let made: string | undefined;
        await attempt(async () => {
          made = await tried.insert(session, n);
        });
        const key = made ?? live[n]?.key;
        if (key === undefined) continue;
        await attempt(() => tried.edit(session, key, n));
        await attempt(() => tried.edit(session, live[n]?.key ?? key, n));
        await attempt(() => tried.remove(session, key, n));
      }
    } finally {
      inserted.length = 0;
      await session.query('rollback');
    }
    return taken === 0 ? ([...refused][0] ?? 'no row to write to') : refused;
  }
}

/** What live traffic writes first is tried before: rows of the same numbers. */
const attempts = 24;

/** Of a refused write: the SQLSTATE, and the constraint, or the function and line that raised it. */
function refusalOf(error: unknown): string {
  const { code, constraint, column, where } = error as Partial<pg.DatabaseError>;
  return `SQLSTATE ${code} ${constraint ?? column ?? where?.split('\n')[0] ?? ''}`.trim();
}

/**
 * A constraint of the table's refuses what we make up now and then, and its own triggers what they refused before: of the
 * rollout that says nothing, which adds no constraint, and whose errors are raised elsewhere.
 */
function tolerant<Args extends unknown[], Result>(
  write: (...args: Args) => Promise<Result>,
  own: ReadonlySet<string>,
): (...args: Args) => Promise<Result | undefined> {
  return (...args) =>
    write(...args).catch((error: { code?: string }) => {
      if (error.code?.startsWith('23') || own.has(refusalOf(error))) return undefined;
      throw error;
    });
}
