/** Fictitious rows for tables that nobody has described: they satisfy constraints as far as the catalogs tell what these ask. */
import pg from 'pg';
import { tableSql } from '../lambdas/adapters/postgres/encryption/engine.ts';
import {
  type Constraints,
  type Refusal,
  readConstraints,
  refusals,
} from '../lambdas/adapters/postgres/preflight/canary.ts';
import { type Kind, personalColumns } from './personal.ts';
import type { TableName } from './proposals.ts';

export type Row = Record<string, unknown>;

interface Column {
  readonly name: string;
  readonly type: string;
  /** Of a domain, the type below it. */
  readonly base: string;
  readonly isArray: boolean;
  readonly length: number | null;
  /** Not null, and nothing but the row gives it a value. */
  readonly required: boolean;
  /** Generated, or an identity: nobody gives it a value. */
  readonly computed: boolean;
  readonly hasDefault: boolean;
  readonly labels: readonly string[];
  /** Constraints of the domain that it is of; empty when it is of none, or of one without. */
  readonly domain: string;
  readonly comment: string | null;
}

/** A row, and what keeps it from being accepted as far as that is known. */
export interface Fiction {
  readonly row: Row;
  readonly problems: readonly string[];
}

/** Plainly nobody's: reserved domains (RFC 2606), telephone numbers 555-0100 to 555-0199, documentation addresses (RFC 5737). */
const personal: Readonly<Record<Kind, (n: number) => string>> = {
  email: (n) => `Nobody${n}@Example.com`,
  phone: (n) => `+1202555${String(100 + (n % 100)).padStart(4, '0')}`,
  name: (n) => `Nobody ${n}`,
  birth: (n) => `19${String(10 + (n % 80))}-01-0${1 + (n % 9)}`,
  identity: (n) => `000-00-${String(n % 10_000).padStart(4, '0')}`,
  bank: (n) => `XX00TEST${String(n).padStart(10, '0')}`,
  address: (n) => `${n} Nowhere Street`,
  ip: (n) => `192.0.2.${1 + (n % 250)}`,
  trait: (n) => `trait ${n}`,
};

const inThePast = (n: number) => new Date(Date.UTC(2024, 0, 1) + n * 60_000).toISOString();

/** By the type's name as format_type writes it; undefined = nothing is known of the type. */
function ofType({ base, labels, isArray }: Column, n: number): unknown {
  if (isArray) return [];
  if (labels.length > 0) return labels[n % labels.length];
  switch (base) {
    case 'text':
    case 'character varying':
    case 'citext':
    case 'name':
      return `text ${n}`;
    case 'character':
      // Cut to its length from the left.
      return `x${n}`;
    case 'smallint':
      return n % 30_000;
    case 'integer':
    case 'bigint':
    case 'numeric':
    case 'real':
    case 'double precision':
    case 'money':
      return n;
    case 'boolean':
      return false;
    case 'date':
      return inThePast(n).slice(0, 10);
    case 'timestamp with time zone':
    case 'timestamp without time zone':
      return inThePast(n);
    case 'time with time zone':
    case 'time without time zone':
      return '12:00';
    case 'interval':
      return '1 day';
    case 'uuid':
      return `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
    case 'json':
    case 'jsonb':
      return {};
    case 'inet':
    case 'cidr':
      return `192.0.2.${1 + (n % 250)}`;
    case 'macaddr':
      return '00:00:5e:00:53:01';
    case 'bytea':
      return '\\x00';
    case 'xml':
      return '<nothing/>';
    default:
      return undefined;
  }
}

const texts = /^(text|character varying|citext|character)$/;

/** Makes rows for a table, in a session that may write or not: constraints are asked, nothing is inserted. */
export class Fictions {
  /** What was found out for one row is not looked for again: values that a domain takes or not, keys of parents, what mended. */
  private readonly judged = new Map<string, boolean>();
  private readonly keys = new Map<string, unknown[][]>();
  private readonly mended = new Map<string, number>();
  private readonly client: pg.ClientBase;
  readonly name: TableName;
  private readonly columns: readonly Column[];
  private readonly kinds: ReadonlyMap<string, Kind>;
  private readonly constraints: Constraints;

  private constructor(
    client: pg.ClientBase,
    name: TableName,
    columns: readonly Column[],
    kinds: ReadonlyMap<string, Kind>,
    constraints: Constraints,
  ) {
    this.client = client;
    this.name = name;
    this.columns = columns;
    this.kinds = kinds;
    this.constraints = constraints;
  }

  /** @param encrypted columns that hold personal data, besides those that look so */
  static async of(client: pg.ClientBase, name: TableName, encrypted: readonly string[]): Promise<Fictions> {
    const columns = await readColumns(client, name);
    const kinds = new Map(personalColumns(columns).map((column) => [column.name, column.kind]));
    for (const column of encrypted) if (!kinds.has(column)) kinds.set(column, 'trait');
    return new Fictions(client, name, columns, kinds, await readConstraints(client, name));
  }

  /**
   * The n-th row: personal data, and what the table asks for.
   * @param wanted columns that are to have a value in any case
   * @param parents whether rows of parents may be looked up, for their keys
   * @param given values that the row has in any case
   */
  async row(n: number, wanted: readonly string[], parents: boolean, given: Row = {}): Promise<Fiction> {
    const row: Row = { ...given };
    const problems: string[] = [];
    for (const column of this.columns) {
      if (column.name in given || column.computed || !(column.required || wanted.includes(column.name)))
        continue;
      const value = await this.allowed(column, n);
      if (value === undefined)
        problems.push(`column ${column.name}: no value was found of type ${column.type}`);
      else row[column.name] = value;
    }
    const refused = () =>
      refusals(this.client, this.constraints, row).catch((error: { code?: string }) => {
        problems.push(`a value is none of its column's (SQLSTATE ${error.code})`);
        return [];
      });
    if (parents)
      for (const constraint of this.constraints.constraints)
        if (this.keys.has(constraint.name)) await this.mend(row, constraint, [], n, parents, given);
    let open: readonly Refusal[] = await refused();
    // Each round mends one constraint; one that cannot be mended is told.
    const told = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const next = open.find(({ name }) => !told.has(name));
      if (next === undefined) break;
      const left = await this.mend(row, next, open, n, parents, given);
      if (left === undefined) {
        told.add(next.name);
        problems.push(inWords(next, parents));
      } else open = left === 'unknown' ? await refused() : left;
    }
    return { row, problems };
  }

  private valueOf(column: Column, n: number): unknown {
    const kind = this.kinds.get(column.name);
    // Of some types there is one kind of personal data, whatever the name.
    const ofBase = ({ date: 'birth', inet: 'ip' } as const)[column.base];
    const value =
      kind !== undefined && (ofBase !== undefined || texts.test(column.base))
        ? personal[ofBase ?? kind](n)
        : ofType(column, n);
    return typeof value === 'string' && column.length !== null ? fitted(value, column.length, n) : value;
  }

  /** A value that the column's domain allows. */
  private async allowed(column: Column, n: number): Promise<unknown> {
    const value = this.valueOf(column, n);
    if (column.domain === '') return value;
    const refusal = {
      name: '',
      kind: 'check',
      columns: [],
      definition: column.domain,
      parent: null,
      partitions: [],
    } as const;
    for (const candidate of [value, ...candidates(column, refusal, n)])
      if (candidate !== null && (await this.isTaken(column.type, candidate))) return candidate;
    return undefined;
  }

  private async isTaken(type: string, value: unknown): Promise<boolean> {
    const asked = `${type} ${value}`;
    const taken =
      this.judged.get(asked) ??
      (await this.client.query(`select $1::text::${type}`, [value]).then(
        () => true,
        () => false,
      ));
    this.judged.set(asked, taken);
    return taken;
  }

  /**
   * Changes the row until this constraint accepts it, without another that it did accept refusing it.
   * @param open what refuses it now
   * @returns what does after it; undefined when nothing helps
   */
  private async mend(
    row: Row,
    refusal: Refusal,
    open: readonly Refusal[],
    n: number,
    parents: boolean,
    given: Row,
  ): Promise<readonly Refusal[] | 'unknown' | undefined> {
    const columns = this.columns.filter(({ name }) => refusal.columns.includes(name) && !(name in given));
    if (refusal.kind === 'parent') {
      if (!parents || columns.length < refusal.columns.length) return undefined;
      const key = await this.parentOf(refusal, n);
      if (key === undefined) return undefined;
      Object.assign(row, key);
      return 'unknown';
    }
    const changes = [
      ...(refusal.kind === 'partition'
        ? keysOf(columns, refusal, row, n)
        : columns
            .filter(({ name }) => name in row)
            .flatMap((column) =>
              [...candidates(column, refusal, n)].map((value) => ({ [column.name]: value })),
            )),
    ];
    // Of rows of one table the same usually helps.
    const before = this.mended.get(refusal.name) ?? 0;
    for (const at of [before, ...changes.keys()]) {
      const change = changes[at] ?? {};
      const after = await refusals(this.client, this.constraints, { ...row, ...change }).catch(
        () => undefined,
      );
      if (
        after === undefined ||
        after.length >= open.length ||
        after.some(({ name }) => name === refusal.name)
      )
        continue;
      this.mended.set(refusal.name, at);
      Object.assign(row, change);
      return after;
    }
    return undefined;
  }

  /** The key of one of the parent's rows, under the names of the columns that refer to it. */
  private async parentOf({ name, parent, columns }: Refusal, n: number): Promise<Row | undefined> {
    if (parent === null) return undefined;
    let known = this.keys.get(name);
    if (known === undefined) {
      const keys = parent.columns.map((key) => pg.escapeIdentifier(key));
      const { rows } = await this.client.query<{ key: string[] }>(
        `select array[${keys.map((key) => `${key}::text`).join(', ')}] as key
         from ${tableSql(parent)} order by ${keys.join(', ')} limit 1000`,
      );
      known = rows.map(({ key }) =>
        columns.map((own, at) =>
          asWritten(
            this.columns.find((each) => each.name === own),
            key[at],
          ),
        ),
      );
    }
    const key = known[n % known.length];
    if (key === undefined) return undefined;
    this.keys.set(name, known);
    return Object.fromEntries(columns.map((column, at) => [column, key[at]]));
  }
}

/** A whole number as people write it, where it keeps all of its digits. */
function asWritten(column: Column | undefined, value: unknown): unknown {
  const isWhole = /^(smallint|integer|bigint)$/.test(column?.base ?? '') && /^-?\d+$/.test(String(value));
  return isWhole && Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** Cut to its length, the part that tells rows apart kept. */
function fitted(value: string, length: number, n: number): string {
  if (value.length <= length) return value;
  const end = String(n).slice(-length);
  return value.slice(0, length - end.length) + end;
}

/** Of so many values of each column, and so many keys, one is taken by a partition, or none is looked for any more. */
const tries = { values: 12, keys: 2_000 };

/** What may be the key of one of the partitions: what their bounds name; where these go by a hash, one number after another. */
function* keysOf(columns: readonly Column[], refusal: Refusal, row: Row, n: number): Generator<Row> {
  for (const { condition } of refusal.partitions) {
    let keys: Row[] = [{}];
    for (const column of columns) {
      const own = row[column.name];
      const named = first(tries.values, candidates(column, { ...refusal, definition: condition }, n));
      const values = own === undefined ? named : [own, ...named];
      keys = keys.flatMap((key) => values.map((value) => ({ ...key, [column.name]: value })));
      keys = keys.slice(0, tries.keys);
    }
    yield* keys;
  }
  if (refusal.definition.includes('modulus'))
    for (let more = 0; more < tries.keys; more++)
      yield Object.fromEntries(columns.map((column) => [column.name, ofType(column, n + more)]));
}

function first<T>(count: number, values: Generator<T>): T[] {
  return Array.from({ length: count }, () => values.next()).flatMap(({ done, value }) =>
    done ? [] : [value],
  );
}

/** Texts that tell rows apart, of the letters and digits that codes are made of. */
function* numbered({ length }: Column, n: number): Generator<string> {
  const digits = String(n);
  const wide = length ?? 12;
  for (const text of [
    `X${digits}`,
    `x${digits}`,
    digits.padStart(wide, '0'),
    `X${digits.padStart(wide - 1, '0')}`,
  ])
    yield fitted(text, wide, n);
}

/** Values for the column, each as it is written. */
function* candidates(column: Column, refusal: Refusal, n: number): Generator<unknown> {
  // Nothing is none for a column that must have a value.
  for (const value of guesses(column, refusal, n))
    if (value !== null || !column.required) yield asWritten(column, value);
}

/** What the constraint itself names, then what constraints of its kind usually want. */
function* guesses(column: Column, { definition, kind }: Refusal, n: number): Generator<unknown> {
  if (kind === 'unique') {
    if (texts.test(column.base)) yield* numbered(column, n);
    for (let more = 1; more <= 3; more++) {
      const value = ofType(column, n + more * 1_000_003);
      if (value !== undefined)
        yield typeof value === 'string' && column.length !== null ? fitted(value, column.length, n) : value;
    }
    return;
  }
  const literals = [...definition.matchAll(/'((?:[^']|'')*)'/g)].map(([, text = '']) =>
    text.replaceAll("''", "'"),
  );
  yield* literals;
  if (texts.test(column.base)) yield* numbered(column, n);
  if (/^(date|timestamp)/.test(column.base)) {
    // Below a bound, and in a year.
    for (const literal of literals) {
      const at = Date.parse(literal);
      if (!Number.isNaN(at)) yield new Date(at - 86_400_000).toISOString();
    }
    for (const [year] of definition.matchAll(/\b[12]\d{3}\b/g)) yield `${year}-01-01`;
  }
  for (const [literal] of definition.matchAll(/-?\d+(\.\d+)?/g))
    for (const value of [Number(literal), Number(literal) + 1, Number(literal) - 1])
      yield texts.test(column.base) ? 'x'.repeat(Math.max(0, Math.min(1_000, value))) : value;
  if (texts.test(column.base)) {
    // Of a pattern or a length: what usually has one.
    for (const text of [
      'x',
      'XX',
      'xxx',
      'nobody',
      'Nobody',
      'NOBODY',
      '0',
      '00000',
      '+12025550100',
      'nobody@example.com',
      'https://example.com',
      'a-b-c',
    ])
      yield text;
    for (const length of [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 36, 64]) yield '0'.repeat(length);
  } else if (/^(date|timestamp)/.test(column.base)) {
    for (const year of [2000, 2030, 1990, 2050]) yield `${year}-01-01`;
  } else for (const value of [1, 0, 2, 10, 50, 100, 0.5, -1, 1_000]) yield value;
  yield true;
  yield null;
}

function inWords({ name, kind, columns, definition }: Refusal, parents: boolean): string {
  const which = `${name} (${columns.join(', ')})`;
  if (kind === 'parent')
    return parents
      ? `${which}: the table that it refers to has no row`
      : `${which}: a row of the table that it refers to is needed`;
  const wanted = kind === 'partition' ? 'one of its partitions takes' : 'it accepts';
  return `${which}: no value was found that ${wanted}: ${definition}`;
}

async function readColumns(client: pg.ClientBase, name: TableName): Promise<Column[]> {
  const { rows } = await client.query(
    `with recursive types as (
       select a.attnum, a.attname, a.atttypid as oid, a.atttypmod as typmod
       from pg_attribute as a where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
       union all
       select b.attnum, b.attname, t.typbasetype, t.typtypmod
       from types as b join pg_type as t on t.oid = b.oid and t.typtype = 'd'
     )
     select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
       regexp_replace(format_type(b.oid, null), '^.*\\.', '') as base,
       t.typcategory = 'A' as "isArray",
       case when b.oid in ('varchar'::regtype, 'bpchar'::regtype) and b.typmod > 4 then b.typmod - 4 end as length,
       a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '' as required,
       a.attgenerated <> '' or a.attidentity <> '' as computed,
       a.atthasdef as "hasDefault",
       array(select enumlabel::text from pg_enum where enumtypid = b.oid order by enumsortorder) as labels,
       coalesce((
         select string_agg(pg_get_constraintdef(k.oid), ' ') from types as d join pg_constraint as k on k.contypid = d.oid
         where d.attnum = a.attnum
       ), '') as domain,
       col_description(a.attrelid, a.attnum) as comment
     from pg_attribute as a
     join types as b on b.attnum = a.attnum
     join pg_type as t on t.oid = b.oid and t.typtype <> 'd'
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
     order by a.attnum`,
    [tableSql(name)],
  );
  return rows;
}
