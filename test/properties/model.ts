/**
 * A model of two encrypted tables, and a seeded interpreter of what can happen to them: each action is done to the real
 * table and to its model, then both must agree on every row of both: its plaintext, and whether it counts as encrypted.
 */
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import type pg from 'pg';
import { open, columnKey as verifierKey } from '../../verifier/format.ts';
import { appointments, testKey } from '../support/database.ts';
import { text } from './arbitraries.ts';

/** The second is like the first, and its rows have the same keys: no value of one may open in the other. */
export const tables = ['public.appointments', 'public.visits'] as const;
const columns = ['email', 'e164', 'first_name'] as const;

type Value = string | null;
type Values = readonly [Value, Value, Value];

/** Batches fail on rows whose first name is this, while the fault is on. */
const poison = 'poison';

const value = fc.oneof({ weight: 1, arbitrary: fc.constant(null) }, { weight: 4, arbitrary: text });
const firstName = fc.oneof({ weight: 1, arbitrary: fc.constant(poison) }, { weight: 3, arbitrary: value });
const values: fc.Arbitrary<Values> = fc.tuple(value, value, firstName);
/** Which row: modulo the number of rows. */
const row = fc.nat(20);
const limit = fc.integer({ min: 1, max: 6 });

const kinds = {
  insert: fc.record({ do: fc.constant('insert'), values }),
  edit: fc.record({ do: fc.constant('edit'), row, values }),
  editOne: fc.record({ do: fc.constant('editOne'), row, column: fc.nat(2), value }),
  touch: fc.record({ do: fc.constant('touch'), row }),
  writeSame: fc.record({ do: fc.constant('writeSame'), row }),
  changeKey: fc.record({ do: fc.constant('changeKey'), row }),
  remove: fc.record({ do: fc.constant('remove'), row }),
  editAndRollBack: fc.record({ do: fc.constant('editAndRollBack'), row, values }),
  batch: fc.record({ do: fc.constant('batch'), limit }),
  interruptedBatch: fc.record({ do: fc.constant('interruptedBatch'), limit }),
  batchDuringEdit: fc.record({
    do: fc.constant('batchDuringEdit'),
    row,
    values,
    limit,
    commit: fc.boolean(),
  }),
  editDuringBatch: fc.record({
    do: fc.constant('editDuringBatch'),
    row,
    values,
    limit,
    commit: fc.boolean(),
  }),
  trigger: fc.record({ do: fc.constant('trigger'), on: fc.boolean() }),
  poison: fc.record({ do: fc.constant('poison'), on: fc.boolean() }),
  resume: fc.record({ do: fc.constant('resume') }),
  rewrite: fc.record({ do: fc.constant('rewrite') }),
} as const;
export type Action = {
  [K in keyof typeof kinds]: (typeof kinds)[K] extends fc.Arbitrary<infer A> ? A : never;
}[keyof typeof kinds];

/** What happens, and to which of the tables. */
export type Step = Action & { readonly of?: number };

export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc
    .tuple(fc.oneof(...Object.values(kinds)) as fc.Arbitrary<Action>, fc.nat(tables.length - 1))
    .map(([action, of]) => ({ ...action, of })),
  { minLength: 1, maxLength: 30, size: 'max' },
);

interface ModelRow {
  values: Values;
  /** Whether it counts as encrypted. */
  sealed: boolean;
}

const holdsPii = ({ values }: ModelRow) => values.some((each) => each !== null);

/** Installs the fault into a database, switched off. */
export async function installPoison(client: pg.Client): Promise<void> {
  await client.query(`
    create table public.faults (poison boolean not null);
    insert into public.faults values (false);
    create function public.poison() returns trigger language plpgsql as $$
    begin
      if current_setting('application_name') = 'batches' and new.first_name = '${poison}'
        and (select f.poison from public.faults f)
      then raise exception 'no'; end if;
      return new;
    end $$`);
  for (const table of tables)
    await client.query(
      `create trigger poison before update on ${table} for each row execute function public.poison()`,
    );
}

/** Makes the second table, and registers it. */
export async function createVisits(client: pg.Client): Promise<void> {
  await client.query(
    `create table public.visits (
       id uuid primary key default gen_random_uuid(), organization_id uuid not null, start_at timestamptz not null,
       end_at timestamptz not null, email text, e164 text, first_name text, note text, updated_at timestamptz)`,
  );
  const { priority: _, createdAt: __, ...like } = appointments;
  await client.query('select encryption_rollout.register_target($1)', [
    { ...like, table: 'visits', trigger: 'encrypt_visit_pii' },
  ]);
}

export class World {
  readonly #table: string;
  readonly #rows = new Map<string, ModelRow>();
  /** Keys that a batch failed on, and so passes over until it is told to try again. */
  readonly #failed = new Set<string>();
  #trigger = false;
  #poison = false;
  #keys = 0;

  /** Three connections: the application's, the batches' and one that watches. */
  constructor(
    table: string,
    private readonly app: pg.Client,
    private readonly batches: pg.Client,
    private readonly watcher: pg.Client,
  ) {
    this.#table = table;
  }

  /** Empties the table and puts everything as after the installation. */
  async reset(): Promise<void> {
    await this.batches.query("set application_name = 'batches'");
    await this.app.query(`
      truncate ${this.#table}, encryption_rollout.errors, encryption_rollout.failed_rows, encryption_rollout.cursors;
      update public.faults set poison = false;
      select encryption_rollout.set_trigger('${this.#table}', false)`);
  }

  async apply(action: Action): Promise<void> {
    switch (action.do) {
      case 'insert': {
        const key = `00000000-0000-4000-8000-${String(++this.#keys).padStart(12, '0')}`;
        await this.app.query(
          `insert into ${this.#table} (id, organization_id, start_at, end_at, email, e164, first_name)
           values ($1, '00000000-0000-4000-8000-000000000000', now(), now(), $2, $3, $4)`,
          [key, ...action.values],
        );
        this.#rows.set(key, { values: action.values, sealed: false });
        this.#written(key);
        return;
      }
      case 'trigger':
        await this.app.query('select encryption_rollout.set_trigger($1, $2)', [this.#table, action.on]);
        this.#trigger = action.on;
        return;
      case 'poison':
        await this.app.query('update public.faults set poison = $1', [action.on]);
        this.#poison = action.on;
        return;
      case 'resume':
        await this.app.query('select encryption_rollout.forget_failed_rows($1)', [this.#table]);
        this.#failed.clear();
        return;
      case 'rewrite':
        await this.app.query(`vacuum full ${this.#table}`);
        return;
      case 'batch':
        await this.#batch(action.limit);
        return;
      case 'interruptedBatch':
        await this.batches.query('begin');
        await this.#callBatch(action.limit);
        await this.batches.query('rollback');
        return;
    }
    const key = [...this.#rows.keys()][action.row % Math.max(1, this.#rows.size)];
    if (key === undefined) return;
    const known = this.#rows.get(key) as ModelRow;
    switch (action.do) {
      case 'edit':
        await this.#edit(key, action.values);
        this.#changed(key, action.values);
        return;
      case 'editOne': {
        const values = known.values.with(action.column, action.value) as unknown as Values;
        await this.app.query(`update ${this.#table} set ${columns[action.column]} = $2 where id = $1`, [
          key,
          action.value,
        ]);
        this.#changed(key, values);
        return;
      }
      case 'touch':
        await this.app.query(`update ${this.#table} set note = 'touched', updated_at = now() where id = $1`, [
          key,
        ]);
        // Whatever is written of a row, the trigger looks at all of it.
        if (this.#trigger) this.#written(key);
        return;
      case 'writeSame':
        await this.#edit(key, known.values);
        this.#changed(key, known.values);
        return;
      case 'changeKey': {
        const other = `00000000-0000-4000-8000-${String(++this.#keys).padStart(12, '0')}`;
        await this.app.query(`update ${this.#table} set id = $2 where id = $1`, [key, other]);
        this.#rows.delete(key);
        this.#rows.set(other, { ...known, sealed: false });
        this.#written(other);
        return;
      }
      case 'remove':
        await this.app.query(`delete from ${this.#table} where id = $1`, [key]);
        this.#rows.delete(key);
        return;
      case 'editAndRollBack':
        await this.app.query('begin');
        await this.#edit(key, action.values);
        await this.app.query('rollback');
        return;
      case 'batchDuringEdit':
        await this.app.query('begin');
        await this.#edit(key, action.values);
        // It must not wait for the application, and leaves the row alone.
        await this.#batch(action.limit, key);
        await this.app.query(action.commit ? 'commit' : 'rollback');
        if (action.commit) this.#changed(key, action.values);
        return;
      case 'editDuringBatch': {
        await this.batches.query('begin');
        const before = await this.#sealedRows();
        const batch = await this.#callBatch(action.limit);
        const edit = this.#edit(key, action.values);
        await this.#blockedOrDone(edit);
        await this.batches.query(action.commit ? 'commit' : 'rollback');
        await edit;
        if (action.commit) await this.#batchDone(before, batch, undefined, key);
        this.#changed(key, action.values);
        return;
      }
    }
  }

  /** Everything must hold, after every action. Throws what does not. */
  async check(): Promise<void> {
    const found = await this.#stored();
    const plaintexts = (rows: [string, Values][]) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
    expectEqual(
      'plaintext',
      plaintexts(found.map(({ key, values }) => [key, values])),
      plaintexts([...this.#rows].map(([key, { values }]) => [key, values])),
    );
    const ivs = found.flatMap(({ iv }) => (iv ? [iv.toString('hex')] : []));
    expectEqual('number of different IVs', new Set(ivs).size, ivs.length);
    for (const { key, iv, values, sealed } of found) {
      const counts = this.#rows.get(key)?.sealed;
      expectEqual(
        `ciphertexts of row ${key}`,
        { iv: iv !== null, sealed: sealed.map((each) => each !== null) },
        { iv: counts, sealed: values.map((each) => counts && each !== null) },
      );
      for (const [n, ciphertext] of sealed.entries()) {
        if (ciphertext === null || iv === null) continue;
        const column = `${this.#table}.${columns[n]}`;
        const opened = open(ciphertext, iv, verifierKey(testKey.key, column), column, key)?.toString();
        expectEqual(`what ${column} of row ${key} opens to`, opened, values[n]);
      }
    }
    const { rows } = await this.watcher.query(
      'select encrypted_rows::integer as encrypted, rows_with_pii::integer as held from encryption_rollout.health($1)',
      [this.#table],
    );
    const held = [...this.#rows.values()].filter(holdsPii);
    expectEqual('health', rows[0], {
      encrypted: held.filter(({ sealed }) => sealed).length,
      held: held.length,
    });
  }

  /** Without the fault and told to try again, batches must reach every row, and must end. */
  async finish(): Promise<void> {
    await this.apply({ do: 'poison', on: false });
    await this.apply({ do: 'resume' });
    for (let calls = 0; !(await this.#batch(5)).exhausted; calls++)
      if (calls > 50) throw new Error('batches do not end');
    for (const [key, each] of this.#rows)
      if (holdsPii(each) && !each.sealed) throw new Error(`row ${key} is not encrypted at the end`);
    await this.check();
  }

  #edit(key: string, values: Values) {
    return this.app.query(`update ${this.#table} set email = $2, e164 = $3, first_name = $4 where id = $1`, [
      key,
      ...values,
    ]);
  }

  /** The application wrote these values to a row. */
  #changed(key: string, values: Values): void {
    const known = this.#rows.get(key) as ModelRow;
    const same = values.every((each, n) => each === known.values[n]);
    known.values = values;
    if (!same) known.sealed = false;
    if (!same || !known.sealed) this.#written(key);
  }

  /** The trigger encrypts what is written; without it a changed row counts as unencrypted. */
  #written(key: string): void {
    const known = this.#rows.get(key) as ModelRow;
    known.sealed = this.#trigger && holdsPii(known);
  }

  async #callBatch(rows: number): Promise<Batch> {
    const { rows: answers } = await this.batches.query(
      'select * from encryption_rollout.encrypt_batch($1, $2)',
      [this.#table, rows],
    );
    return answers[0];
  }

  async #batch(rows: number, locked?: string): Promise<Batch> {
    const before = await this.#sealedRows();
    const batch = await this.#callBatch(rows);
    if (batch.encrypted + batch.failed > rows) throw new Error(`batch of ${rows} did more`);
    await this.#batchDone(before, batch, locked);
    return batch;
  }

  /** Which rows a batch chose is its own affair; which it may choose, and that its numbers are true, is not. */
  async #batchDone(before: Set<string>, batch: Batch, locked?: string, edited?: string): Promise<void> {
    const failed = await this.watcher.query(
      'select row_key from encryption_rollout.failed_rows where target = $1',
      [this.#table],
    );
    const newlyFailed = failed.rows.map(({ row_key }) => row_key).filter((key) => !this.#failed.has(key));
    expectEqual('rows recorded as failed', newlyFailed.length, batch.failed);
    for (const key of newlyFailed) {
      if (!this.#poison || this.#rows.get(key)?.values[2] !== poison) throw new Error(`row ${key} failed`);
      this.#failed.add(key);
    }
    const after = await this.#sealedRows();
    let encrypted = 0;
    for (const key of after) {
      if (before.has(key) || key === edited) continue;
      encrypted += 1;
      const known = this.#rows.get(key) as ModelRow;
      if (key === locked || this.#failed.has(key) || !holdsPii(known) || known.sealed)
        throw new Error(`row ${key} was encrypted, but must not be`);
      known.sealed = true;
    }
    if (edited === undefined) expectEqual('rows encrypted', batch.encrypted, encrypted);
    if (!batch.exhausted) return;
    for (const [key, each] of this.#rows)
      if (key !== edited && holdsPii(each) && !each.sealed && !this.#failed.has(key))
        throw new Error(`exhausted, but row ${key} is not encrypted`);
  }

  async #stored() {
    const { rows } = await this.watcher.query<{
      key: string;
      iv: Buffer | null;
      values: Values;
      sealed: (Buffer | null)[];
    }>(
      `select id::text as key, pii_iv as iv, array[email, e164, first_name] as values,
         array[email_encrypted, e164_encrypted, first_name_encrypted] as sealed from ${this.#table}`,
    );
    return rows;
  }

  async #sealedRows(): Promise<Set<string>> {
    return new Set((await this.#stored()).filter(({ iv }) => iv !== null).map(({ key }) => key));
  }

  /** The edit waits for the batch when that has encrypted the row, and else does not. */
  async #blockedOrDone(edit: Promise<unknown>): Promise<void> {
    let done = false;
    edit.then(
      () => {
        done = true;
      },
      () => {
        done = true;
      },
    );
    const { processID } = this.app as unknown as { processID: number };
    while (!done) {
      const { rows } = await this.watcher.query('select cardinality(pg_blocking_pids($1)) > 0 as blocked', [
        processID,
      ]);
      if (rows[0].blocked) return;
      await pause(1);
    }
  }
}

interface Batch {
  readonly encrypted: number;
  readonly failed: number;
  readonly skipped: number;
  readonly exhausted: boolean;
}

function expectEqual(what: string, found: unknown, expected: unknown): void {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: ${left} found, ${right} expected`);
}
