/**
 * A model of two encrypted tables: each action is done to the real table and to its model, then both must agree on every
 * row of both: its plaintext, and whether it counts as encrypted.
 */
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { open, columnKey as verifierKey } from '../../verifier/format.ts';
import { testKey } from '../support/database.ts';
import { type Action, poison, type Value, type Values } from './actions.ts';
import type { Shape } from './shapes.ts';

const { escapeIdentifier: quoted, escapeLiteral } = pg;

interface ModelRow {
  /** Of the key's columns. */
  key: readonly string[];
  /** Of the columns that there are. */
  values: readonly Value[];
  /** How many of the columns its ciphertext is of; 0 = none. */
  sealed: number;
  /** It was edited where no trigger is: its ciphertext may be of what it held before, until a batch has looked at it. */
  isStale?: boolean;
}

/** A key as one text. */
const joined = (key: readonly string[]) =>
  key.length === 1 ? (key[0] as string) : key.map((each) => each.replaceAll(/[\\,]/g, '\\$&')).join(',');
/** A name as part of a longer one. */
const labelPart = (name: string) => (/[."]/.test(name) ? quoted(name) : name);

export class World {
  /** As it is registered. */
  #target: string;
  /** What it and its columns are called now. */
  #schema = 'app';
  #table: string;
  #key: string[];
  #columns = ['email', 'e164', 'first_name', 'remark'];
  #sealed = ['email_encrypted', 'e164_encrypted', 'first_name_encrypted', 'remark_encrypted'];
  #iv = 'pii_iv';
  readonly #labels: string[];
  /** Which of an action's values each of the columns gets. */
  readonly #places = [0, 1, 2, 3];
  /** How many of the columns are to be encrypted. */
  #width = 3;
  /** A column that the application has dropped, and nobody has taken out yet: of its values the ciphertext is all that there is. */
  #lost: Lost | undefined;
  /** A column has another type: sessions that had plans of a trigger's function fail in it, others do not, until that is followed. */
  #retyped = false;
  /** IVs without ciphertext are left of values that were lost. */
  #losses = 0;
  /** Whether a name is not the registered one; and whether one that the triggers' functions need. */
  #renamed = false;
  #broken = false;
  readonly #rows = new Map<string, ModelRow>();
  /** Rows of partitions that are detached, by the partition. */
  readonly #detached = new Map<number, [string, ModelRow][]>();
  /** Keys that a batch failed on, and so passes over until it is told to try again. */
  readonly #failed = new Set<string>();
  /** Whole rows, by their keys, as the application has read them once. */
  readonly #kept = new Map<string, Pick<StoredRow, 'iv' | 'sealed' | 'values'>>();
  #trigger = false;
  #poison = false;
  #names = 0;

  private readonly shape: Shape;
  private readonly app: pg.Client;
  private readonly batches: pg.Client;
  private readonly watcher: pg.Client;

  /** Three connections: the application's, the batches' and one that watches. */
  constructor(shape: Shape, app: pg.Client, batches: pg.Client, watcher: pg.Client) {
    this.shape = shape;
    this.app = app;
    this.batches = batches;
    this.watcher = watcher;
    this.#table = shape.table;
    this.#target = `app.${shape.table}`;
    this.#key = [...shape.key];
    this.#labels = this.#columns.map((column) => `${this.#target}.${column}`);
  }

  get target(): string {
    return this.#target;
  }

  async apply(action: Action): Promise<void> {
    switch (action.do) {
      case 'insert': {
        const key = this.#newKey(action.part);
        if (key === undefined) return;
        const values = this.#given(action.values);
        await this.app.query(
          `insert into ${this.#sql} (${this.#list(this.#key)}, ${this.#list(this.#columns)})
           values (${[...key, ...values].map((_, n) => `$${n + 1}`)})`,
          [...key, ...values],
        );
        this.#rows.set(joined(key), { key, values, sealed: 0 });
        this.#written(joined(key));
        return;
      }
      case 'trigger':
        await this.app.query('select encryption_rollout.set_trigger($1, $2)', [this.#target, action.on]);
        this.#trigger = action.on;
        return;
      case 'poison':
        await this.app.query('update app.faults set poison = $1', [action.on]);
        this.#poison = action.on;
        return;
      case 'resume':
        await this.app.query('select encryption_rollout.forget_failed_rows($1)', [this.#target]);
        this.#failed.clear();
        return;
      case 'rewrite':
        await this.app.query(`vacuum full ${this.#sql}`);
        return;
      case 'batch':
        await this.#batch(action.limit);
        return;
      case 'interruptedBatch':
        if (this.#lost !== undefined) return;
        await this.batches.query('begin');
        await this.#callBatch(action.limit);
        await this.batches.query('rollback');
        return;
      case 'detach':
        await this.#detach(action.part, action.concurrently);
        return;
      case 'attach':
        await this.#attach(action.part);
        return;
      case 'editApart':
        await this.#editApart(action.part, action.row, this.#given(action.values));
        return;
      case 'rename':
        await this.#rename(action.name);
        if (action.follow) await this.#follow();
        return;
      case 'follow':
        await this.#follow();
        return;
      case 'addColumn':
        await this.#addColumn();
        return;
      case 'retype':
        await this.#retype(action.column, action.type);
        return;
      case 'dropColumn':
        await this.#dropColumn(action.column);
        return;
      case 'takeOut':
        await this.#takeOut(action.column);
        return;
    }
    const key = [...this.#rows.keys()][action.row % Math.max(1, this.#rows.size)];
    if (key === undefined) return;
    const known = this.#rows.get(key) as ModelRow;
    switch (action.do) {
      case 'edit': {
        const values = this.#given(action.values);
        await this.#edit(known, values);
        this.#changed(key, values);
        return;
      }
      case 'editOne': {
        const n = this.#places.indexOf(action.column);
        if (n < 0) return;
        await this.app.query(
          `update ${this.#sql} set ${quoted(this.#columns[n] as string)} = $1 where ${this.#is(known, 1)}`,
          [action.value, ...known.key],
        );
        this.#changed(key, known.values.with(n, action.value));
        return;
      }
      case 'keep':
        this.#kept.set(key, await this.#storedRow(key));
        return;
      case 'save': {
        const kept = this.#kept.get(key) ?? (await this.#storedRow(key));
        await this.#save(key, {
          ...kept,
          values: action.values === null ? kept.values : this.#given(action.values),
        });
        return;
      }
      case 'paste': {
        // Who overwrites the IV of a value whose plaintext is gone has lost that as well.
        if (this.#lost !== undefined) return;
        const from = [...this.#rows.keys()][action.from % this.#rows.size] as string;
        const [own, other] = [await this.#storedRow(key), await this.#storedRow(from)];
        const isChosen = (n: number) => (action.columns & (1 << n)) !== 0;
        await this.#save(key, {
          values: own.values,
          sealed: own.sealed.map((each, n) => (isChosen(n) ? (other.sealed[n] as Buffer | null) : each)),
          iv: isChosen(4) ? other.iv : own.iv,
        });
        return;
      }
      case 'touch':
        await this.app.query(`update ${this.#sql} set note = 'touched' where ${this.#is(known)}`, [
          ...known.key,
        ]);
        this.#changed(key, known.values);
        return;
      case 'writeSame':
        await this.#edit(known, known.values);
        this.#changed(key, known.values);
        return;
      case 'changeKey':
        await this.#move(known, known.key.with(-1, this.#newId()), known.values);
        return;
      case 'move': {
        const other = this.#newKey(action.part);
        if (other === undefined || known.key.length === 1 || other[0] === known.key[0]) return;
        await this.#move(
          known,
          [other[0] as string, known.key[1] as string],
          action.values === null ? known.values : this.#given(action.values),
        );
        return;
      }
      case 'remove':
        await this.app.query(`delete from ${this.#sql} where ${this.#is(known)}`, [...known.key]);
        this.#rows.delete(key);
        return;
      case 'editAndRollBack':
        await this.app.query('begin');
        await this.#edit(known, this.#given(action.values));
        await this.app.query('rollback');
        return;
      case 'batchDuringEdit': {
        if (this.#lost !== undefined) return;
        const values = this.#given(action.values);
        await this.app.query('begin');
        await this.#edit(known, values);
        // It must not wait for the application, and leaves the row alone.
        await this.#batch(action.limit, key);
        await this.app.query(action.commit ? 'commit' : 'rollback');
        if (action.commit) this.#changed(key, values);
        return;
      }
      case 'editDuringBatch': {
        if (this.#lost !== undefined) return;
        const values = this.#given(action.values);
        await this.batches.query('begin');
        const before = await this.#sealedRows();
        const batch = await this.#callBatch(action.limit);
        const edit = this.#edit(known, values);
        await this.#blockedOrDone(edit);
        await this.batches.query(action.commit ? 'commit' : 'rollback');
        await edit;
        if (action.commit) await this.#batchDone(before, batch, undefined, key);
        this.#changed(key, values);
        return;
      }
    }
  }

  /** Everything must hold, after every action. Throws what does not. */
  async check(): Promise<void> {
    const found = await this.#stored();
    const plaintexts = (rows: [string, readonly Value[]][]) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
    expectEqual(
      'plaintext',
      plaintexts(found.map(({ key, values }) => [key, values])),
      plaintexts([...this.#rows].map(([key, { values }]) => [key, values])),
    );
    const ivs = found.flatMap(({ iv }) => (iv ? [iv.toString('hex')] : []));
    expectEqual('number of different IVs', new Set(ivs).size, ivs.length);
    if (this.#retyped && this.#lost === undefined) this.#lookAgain(found);
    this.#lookAgain(found.filter(({ key }) => this.#rows.get(key)?.isStale));
    for (const { key, iv, values, sealed } of found) {
      if (this.#rows.get(key)?.isStale) continue;
      const counts = this.#rows.get(key)?.sealed ?? 0;
      if (this.#lost === undefined)
        expectEqual(
          `ciphertexts of row ${key}`,
          { iv: iv !== null, sealed: sealed.map((each) => each !== null) },
          {
            iv: counts > 0 || (this.#losses > 0 && iv !== null),
            sealed: sealed.map((_, n) => n < counts && values[n] !== null),
          },
        );
      for (const [n, ciphertext] of sealed.entries()) {
        if (ciphertext === null || iv === null) continue;
        expectEqual(
          `what ${this.#labels[n]} of row ${key} opens to`,
          this.#opened(key, n, ciphertext, iv),
          values[n],
        );
      }
    }
    if (this.#lost !== undefined) {
      await this.#checkLost(this.#lost);
      return;
    }
    if ([...this.#rows.values()].some(({ isStale }) => isStale)) return;
    const { rows } = await this.watcher.query(
      'select encrypted_rows::integer as encrypted, rows_with_pii::integer as held from encryption_rollout.health($1)',
      [this.#target],
    );
    const held = [...this.#rows.values()].filter((row) => this.#holdsPii(row));
    expectEqual('health', rows[0], {
      encrypted: held.filter((row) => this.#isSealed(row)).length,
      held: held.length,
    });
  }

  /** Put together again, without the fault and told to try again, batches must reach every row, and must end. */
  async finish(): Promise<void> {
    for (const part of this.shape.parts.keys()) await this.#attach(part);
    if (this.#lost !== undefined) await this.#takeOut(0);
    await this.#follow();
    await this.apply({ do: 'poison', on: false });
    await this.apply({ do: 'resume' });
    for (let calls = 0; !(await this.#batch(5))?.exhausted; calls++)
      if (calls > 50) throw new Error('batches do not end');
    for (const [key, each] of this.#rows)
      if (!this.#isSealed(each)) throw new Error(`row ${key} is not encrypted at the end`);
    await this.check();
  }

  get #sql(): string {
    return `${quoted(this.#schema)}.${quoted(this.#table)}`;
  }

  #given(values: Values): readonly Value[] {
    return this.#places.map((place) => values[place] as Value);
  }

  #list(names: readonly string[]): string {
    return names.map((name) => quoted(name)).join(', ');
  }

  /** SQL that is true for this row; the parts of its key are parameters after so many others. */
  #is({ key }: ModelRow, after = 0): string {
    return key.map((_, n) => `${quoted(this.#key[n] as string)} = $${after + n + 1}`).join(' and ');
  }

  #holdsPii({ values }: ModelRow): boolean {
    return values.slice(0, this.#width).some((each) => each !== null);
  }

  #isSealed(row: ModelRow): boolean {
    return (
      !this.#holdsPii(row) ||
      (row.sealed > 0 && row.values.slice(row.sealed, this.#width).every((each) => each === null))
    );
  }

  #newId(): string {
    return `00000000-0000-4000-8000-${String(++this.#names).padStart(12, '0')}`;
  }

  /** Undefined where its partition is not there. */
  #newKey(part: number): string[] | undefined {
    const { parts } = this.shape;
    if (parts.length === 0) return [this.#newId()];
    const n = part % parts.length;
    return this.#detached.has(n) ? undefined : [parts[n] as string, this.#newId()];
  }

  #edit(row: ModelRow, values: readonly Value[]) {
    const set = this.#columns.map((column, n) => `${quoted(column)} = $${n + 1}`).join(', ');
    return this.app.query(`update ${this.#sql} set ${set} where ${this.#is(row, values.length)}`, [
      ...values,
      ...row.key,
    ]);
  }

  /** The row gets another key, and maybe into another partition. */
  async #move(row: ModelRow, key: readonly string[], values: readonly Value[]): Promise<void> {
    const names = [...this.#columns, ...this.#key];
    const set = names.map((name, n) => `${quoted(name)} = $${n + 1}`).join(', ');
    await this.app.query(`update ${this.#sql} set ${set} where ${this.#is(row, names.length)}`, [
      ...values,
      ...key,
      ...row.key,
    ]);
    this.#rows.delete(joined(row.key));
    this.#rows.set(joined(key), { key, values, sealed: 0 });
    this.#written(joined(key));
  }

  /** The application writes a row with everything in it, as far as this has been read. */
  async #save(key: string, row: Pick<StoredRow, 'iv' | 'sealed' | 'values'>): Promise<void> {
    const known = this.#rows.get(key) as ModelRow;
    const before = await this.#storedRow(key);
    const names = [...this.#columns, ...this.#sealed.slice(0, row.sealed.length), this.#iv];
    const set = names.map((name, n) => `${quoted(name)} = $${n + 1}`).join(', ');
    await this.app.query(`update ${this.#sql} set ${set} where ${this.#is(known, names.length)}`, [
      ...row.values,
      ...row.sealed,
      row.iv,
      ...known.key,
    ]);
    const bytes = (of: typeof row) =>
      [of.iv, ...of.sealed.slice(0, row.sealed.length)].map((each) => each?.toString('hex'));
    // Nobody's ciphertext is believed, whatever it is of.
    if (JSON.stringify(bytes(row)) !== JSON.stringify(bytes(before))) known.sealed = 0;
    this.#changed(key, row.values);
  }

  /** The application wrote these values to a row. */
  #changed(key: string, values: readonly Value[]): void {
    const known = this.#rows.get(key) as ModelRow;
    const same = values.slice(0, this.#width).every((each, n) => each === known.values[n]);
    known.values = values;
    if (!same) known.sealed = 0;
    this.#written(key);
  }

  /** Whatever is written of a row, the trigger encrypts what is not; without it a changed row counts as unencrypted. */
  #written(key: string): void {
    const known = this.#rows.get(key) as ModelRow;
    if (this.#trigger && !this.#broken && !known.isStale && this.#holdsPii(known) && !this.#isSealed(known))
      known.sealed = this.#width;
  }

  async #detach(part: number, concurrently: boolean): Promise<void> {
    const { parts } = this.shape;
    const n = part % parts.length;
    if (parts.length === 0 || this.#detached.has(n) || this.#lost !== undefined) return;
    await this.app.query(
      `alter table ${this.#sql} detach partition app.part_${n}${concurrently ? ' concurrently' : ''}`,
    );
    const rows = [...this.#rows].filter(([, row]) => row.key[0] === parts[n]);
    for (const [key] of rows) this.#rows.delete(key);
    this.#detached.set(n, rows);
  }

  /** Of a partition that is detached. Values are not taken away: their ciphertext would be for a person to decide about. */
  async #editApart(part: number, row: number, values: readonly Value[]): Promise<void> {
    const n = part % Math.max(1, this.shape.parts.length);
    const rows = this.#detached.get(n) ?? [];
    const known = rows[row % Math.max(1, rows.length)]?.[1];
    if (known === undefined) return;
    known.values = values.map((value, at) => value ?? (known.values[at] as Value));
    known.sealed = 0;
    known.isStale = true;
    const set = this.#columns.map((column, at) => `${quoted(column)} = $${at + 1}`).join(', ');
    await this.app.query(`update app.part_${n} set ${set} where ${this.#is(known, values.length)}`, [
      ...known.values,
      ...known.key,
    ]);
  }

  async #attach(part: number): Promise<void> {
    const { parts } = this.shape;
    const n = part % parts.length;
    const rows = this.#detached.get(n);
    if (rows === undefined) return;
    await this.app.query(
      `alter table ${this.#sql} attach partition app.part_${n} for values in (${escapeLiteral(parts[n] as string)})`,
    );
    for (const [key, row] of rows) this.#rows.set(key, row);
    this.#detached.delete(n);
  }

  /** Of the table, or of a column that it uses. A partition that is detached would have to be altered as well. */
  async #rename(which: number): Promise<void> {
    if (this.#detached.size > 0 || this.#lost !== undefined) return;
    const groups = [this.#key, this.#columns, this.#sealed.slice(0, this.#width), [this.#iv]];
    const names = groups.flat();
    const n = which % (names.length + 2);
    const name = `name.${++this.#names}`;
    const old = names[n];
    if (old === undefined) {
      this.#renamed = true;
      if (n > names.length) {
        const schema = this.#schema === 'app' ? 'app.2' : 'app';
        await this.app.query(`alter table ${this.#sql} set schema ${quoted(schema)}`);
        this.#schema = schema;
        return;
      }
      await this.app.query(`alter table ${this.#sql} rename to ${quoted(name)}`);
      this.#table = name;
      return;
    }
    await this.app.query(`alter table ${this.#sql} rename ${quoted(old)} to ${quoted(name)}`);
    for (const group of [this.#key, this.#columns, this.#sealed])
      if (group.includes(old)) group[group.indexOf(old)] = name;
    if (this.#iv === old) this.#iv = name;
    // The one column is not yet of the target's.
    if (this.#columns.indexOf(name) >= this.#width) return;
    this.#renamed = true;
    this.#broken = true;
  }

  /** Names of ciphertext change, which a partition that is detached keeps. */
  async #follow(): Promise<void> {
    if (this.#detached.size > 0) return;
    const follow = this.app.query('select encryption_rollout.follow($1) as name', [this.#target]);
    if (this.#lost !== undefined) {
      await expectRefused('following while a column is lost', follow);
      return;
    }
    const { rows } = await follow;
    this.#target = `${labelPart(this.#schema)}.${labelPart(this.#table)}`;
    expectEqual('name of the target', rows[0].name, this.#target);
    // Ciphertext is called after its column, wherever one of the two was renamed.
    this.#sealed = this.#columns.map((column) => `${column}_encrypted`);
    this.#renamed = false;
    this.#broken = false;
    this.#retyped = false;
  }

  async #addColumn(): Promise<void> {
    if (this.#width === this.#columns.length || this.#detached.size > 0) return;
    const name = this.#columns.at(-1) as string;
    const add = this.app.query('select encryption_rollout.add_target_columns($1, $2)', [
      this.#target,
      [name],
    ]);
    if (this.#renamed || this.#lost !== undefined) {
      await expectRefused('adding a column before a rename is followed, or while one is lost', add);
      return;
    }
    await add;
    this.#labels[this.#width] = `${this.#target}.${labelPart(name)}`;
    this.#sealed[this.#width] = `${name}_encrypted`;
    this.#width += 1;
  }

  /** To a type that writes the same texts. */
  async #retype(place: number, type: number): Promise<void> {
    const n = this.#places.indexOf(place);
    // A trigger of the application's depends on the one column.
    if (n < 0 || place === 2 || this.#detached.size > 0) return;
    await this.app.query(
      `alter table ${this.#sql} alter ${quoted(this.#columns[n] as string)} type ${['text', 'varchar', 'app.words'][type]}`,
    );
    this.#retyped = true;
  }

  async #dropColumn(place: number): Promise<void> {
    const n = this.#places.indexOf(place);
    if (n < 0 || place === 2 || this.#detached.size > 0 || this.#lost !== undefined) return;
    // What they are sealed of is not known.
    if ([...this.#rows.values()].some(({ isStale }) => isStale)) return;
    const stored = await this.#stored();
    await this.app.query(`alter table ${this.#sql} drop column ${quoted(this.#columns[n] as string)}`);
    if (n < this.#width) {
      this.#lost = {
        nth: n + 1,
        sealed: this.#sealed[n] as string,
        label: this.#labels[n] as string,
        values: new Map(
          stored.map(({ key, values, sealed }) => [key, sealed[n] ? (values[n] ?? null) : null]),
        ),
      };
    }
    this.#forget(n);
  }

  /** Takes out the column that is lost, or else one that is not. */
  async #takeOut(place: number): Promise<void> {
    const lost = this.#lost;
    const n = lost === undefined ? this.#places.indexOf(place) : lost.nth - 1;
    if (this.#detached.size > 0 || n < 0) return;
    if (lost === undefined && (place === 2 || n >= this.#width)) return;
    await this.app.query(
      `select encryption_rollout.remove_target_columns(name, columns[$2:$2]) from encryption_rollout.targets where name = $1`,
      [this.#target, n + 1],
    );
    if (lost === undefined) {
      this.#forget(n);
      return;
    }
    this.#lost = undefined;
    this.#losses += 1;
    this.#lookAgain(await this.#stored());
  }

  /** Which rows the triggers have sealed. */
  #lookAgain(found: readonly StoredRow[]): void {
    for (const stored of found) {
      const row = this.#rows.get(stored.key) as ModelRow;
      const isWhole = this.#isWhole(stored);
      if (isWhole) row.sealed = this.#width;
      else if (stored.sealed.every((each) => each === null)) row.sealed = 0;
      else continue;
      row.isStale = false;
    }
  }

  #opened(key: string, n: number, ciphertext: Buffer, iv: Buffer): string | undefined {
    const label = this.#labels[n] as string;
    return open(ciphertext, iv, verifierKey(testKey.key, label), label, key)?.toString();
  }

  /** Encrypted in all columns, with ciphertext of its own. */
  #isWhole({ key, iv, values, sealed }: StoredRow): boolean {
    return (
      iv !== null &&
      sealed.every((each, n) =>
        each === null ? values[n] === null : this.#opened(key, n, each, iv) === values[n],
      )
    );
  }

  #forget(n: number): void {
    for (const list of [this.#columns, this.#sealed, this.#labels, this.#places]) list.splice(n, 1);
    for (const row of this.#rows.values()) {
      row.values = row.values.toSpliced(n, 1);
      if (n < row.sealed) row.sealed -= 1;
    }
    if (n < this.#width) this.#width -= 1;
    this.#kept.clear();
  }

  /** What is left of the column's values opens to what they were. */
  async #checkLost({ sealed, label, values }: Lost): Promise<void> {
    const { rows } = await this.watcher.query(
      `select array[${this.#key.map((name) => `${quoted(name)}::text`)}] as key, ${quoted(this.#iv)} as iv, ${quoted(sealed)} as sealed
       from ${this.#sql}`,
    );
    for (const { key, iv, sealed: ciphertext } of rows) {
      const row = joined(key);
      const opened =
        ciphertext === null
          ? null
          : open(ciphertext, iv, verifierKey(testKey.key, label), label, row)?.toString();
      if (values.has(row))
        expectEqual(`what the lost ${label} of row ${row} opens to`, opened, values.get(row));
    }
  }

  async #callBatch(rows: number): Promise<Batch> {
    const { rows: answers } = await this.batches.query(
      'select * from encryption_rollout.encrypt_batch($1, $2)',
      [this.#target, rows],
    );
    return answers[0];
  }

  async #batch(rows: number, locked?: string): Promise<Batch | undefined> {
    if (this.#lost !== undefined) {
      await expectRefused('a batch while a column is lost', this.#callBatch(rows));
      return;
    }
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
      [this.#target],
    );
    const newlyFailed = failed.rows.map(({ row_key }) => row_key).filter((key) => !this.#failed.has(key));
    expectEqual('rows recorded as failed', newlyFailed.length, batch.failed);
    for (const key of newlyFailed) {
      if (!this.#poison || this.#rows.get(key)?.values[this.#places.indexOf(2)] !== poison)
        throw new Error(`row ${key} failed`);
      this.#failed.add(key);
    }
    const after = await this.#sealedRows();
    let encrypted = 0;
    for (const key of after) {
      if (before.has(key) || key === edited) continue;
      encrypted += 1;
      const known = this.#rows.get(key) as ModelRow;
      if (key === locked || this.#failed.has(key) || this.#isSealed(known))
        throw new Error(`row ${key} was encrypted, but must not be`);
      known.sealed = this.#width;
      known.isStale = false;
    }
    if (edited === undefined) expectEqual('rows encrypted', batch.encrypted, encrypted);
    if (!batch.exhausted) return;
    for (const [key, each] of this.#rows)
      if (key !== edited && !this.#isSealed(each) && !this.#failed.has(key))
        throw new Error(`exhausted, but row ${key} is not encrypted`);
  }

  async #storedRow(key: string): Promise<StoredRow> {
    const row = (await this.#stored()).find((each) => each.key === key);
    if (row === undefined) throw new Error(`row ${key} is gone`);
    return row;
  }

  async #stored(): Promise<StoredRow[]> {
    const { rows } = await this.watcher.query<Omit<StoredRow, 'key'> & { key: string[] }>(
      `select array[${this.#key.map((name) => `${quoted(name)}::text`)}] as key, ${quoted(this.#iv)} as iv,
         array[${this.#columns.map((name) => `${quoted(name)}::text`)}] as values, array[${this.#list(this.#sealed.slice(0, this.#width))}] as sealed
       from ${this.#sql}`,
    );
    return rows.map((row) => ({ ...row, key: joined(row.key) }));
  }

  async #sealedRows(): Promise<Set<string>> {
    return new Set((await this.#stored()).filter((row) => this.#isWhole(row)).map(({ key }) => key));
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

interface StoredRow {
  readonly key: string;
  readonly iv: Buffer | null;
  readonly values: readonly Value[];
  readonly sealed: readonly (Buffer | null)[];
}

interface Lost {
  /** Of the target's columns. */
  readonly nth: number;
  readonly sealed: string;
  readonly label: string;
  /** By row, what was sealed; null = nothing. */
  readonly values: ReadonlyMap<string, Value>;
}

interface Batch {
  readonly encrypted: number;
  readonly failed: number;
  readonly skipped: number;
  readonly exhausted: boolean;
}

async function expectRefused(what: string, work: Promise<unknown>): Promise<void> {
  const code = await work.then(
    () => 'nothing',
    (error) => error.code,
  );
  expectEqual(`what is said to ${what}`, code, 'ER013');
}

function expectEqual(what: string, found: unknown, expected: unknown): void {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: ${left} found, ${right} expected`);
}
