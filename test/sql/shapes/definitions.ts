/** Shapes of tables: keys, columns with personal data, and kinds of table that fit, and some that do not. */

/** Types of the shapes, in a schema that is on nobody's search path. */
export const types = `
  create schema kinds;
  create extension citext schema kinds;
  create extension hstore schema kinds;
  create type kinds.mood as enum ('calm', 'sad, "very"', ${Array.from({ length: 38 }, (_, n) => `'mood ${38 - n}'`)});
  create domain kinds.code as text check (value <> '');
  create domain kinds.late as timestamptz;
  create domain kinds.later as kinds.late not null check (value > '1000-01-01 BC');
  create collation kinds.careless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  create type kinds.address as (street text, city text);`;

export interface Column {
  readonly type: string;
  /** SQL of values; the n-th row has one of them. Null is among them by itself. */
  readonly values: readonly string[];
}

/** Of each type, values whose text is hard: ends of the range, signs, quotation marks, blanks, the empty value. */
export const columns: readonly Column[] = [
  { type: 'text', values: [`E'a "b" \\\\ {c},\\t'`, `''`, `'NULL'`] },
  { type: 'character varying(40)', values: [`'x '`, `'y'`] },
  { type: 'character(6)', values: [`'ab'`, `' ab '`, `''`] },
  { type: 'name', values: [`'n'`, `'N'`] },
  { type: 'kinds.citext', values: [`'Ab'`, `'aB'`] },
  { type: 'kinds.code', values: [`'domain'`, `' '`] },
  { type: 'kinds.late', values: [`'2024-02-29 12:34:56.789012+05'`, `'infinity'`] },
  { type: 'json', values: [`'{"b": 1,  "a": [1e2]}'`, `'null'`] },
  { type: 'jsonb', values: [`'{"b": 1,  "a": [1e2]}'`, `'null'`] },
  { type: 'date', values: [`'2024-02-29'`, `'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'0044-03-15'`] },
  { type: 'timestamp', values: [`'2024-02-29 12:34:56.789012'`, `'infinity'`, `'0044-03-15 00:00 BC'`] },
  {
    type: 'timestamp with time zone',
    values: [`'2024-03-31 01:30+00'`, `'-infinity'`, `'0044-03-15 00:00+00 BC'`],
  },
  { type: 'time', values: [`'23:59:59.999999'`, `'24:00'`] },
  { type: 'time with time zone', values: [`'12:00+05:30'`] },
  { type: 'interval', values: [`'1 year -2 months 3 days -04:05:06.789'`, `'-1 day 02:00'`] },
  { type: 'smallint', values: ['-32768', '0'] },
  { type: 'integer', values: ['-1', '2147483647'] },
  { type: 'bigint', values: ['-9223372036854775808', '9007199254740993'] },
  { type: 'numeric', values: ['1.10', '-0.005', `'NaN'`, `'Infinity'`] },
  { type: 'real', values: ['0.1', '1e-40', `'-Infinity'`] },
  { type: 'double precision', values: [`0.1::float8 + 0.2`, `'-0'`, `'NaN'`, '5e-324'] },
  { type: 'boolean', values: ['true', 'false'] },
  { type: 'uuid', values: [`'00000000-0000-4000-8000-00000000000A'`] },
  { type: 'inet', values: [`'10.0.0.1'`, `'2001:db8::1/64'`] },
  { type: 'cidr', values: [`'10.0.0.0/8'`] },
  { type: 'macaddr', values: [`'08:00:2b:01:02:03'`] },
  { type: 'kinds.mood', values: [`'calm'`, `'sad, "very"'`] },
  { type: 'bytea', values: [`decode('00ff5c27', 'hex')`, `decode('', 'hex')`] },
  { type: 'text[]', values: [`array['a,b', '"', null, 'NULL', '']`, `'{}'`, `'[2:3]={x,y}'`] },
  { type: 'timestamptz[]', values: [`array['2024-03-31 01:30+00'::timestamptz, 'infinity']`] },
  { type: 'double precision[]', values: [`array[[0.1, 0.2], [1e-300, 'NaN']]::float8[]`] },
  { type: 'bytea[]', values: [`array[decode('00ff', 'hex')]`] },
  { type: 'kinds.late[]', values: [`array['2024-03-31 01:30+00'::kinds.late]`] },
  { type: 'int4range', values: [`'[1,5)'`, `'empty'`] },
  { type: 'tstzrange', values: [`'[2024-03-31 01:30+00,)'`] },
  { type: 'datemultirange', values: [`'{[2024-01-01,2024-02-01), [2024-03-01,infinity)}'`] },
  { type: 'bit varying', values: [`B'0101'`] },
  { type: 'point', values: [`point(0.1, -1e-10)`] },
  { type: 'tsvector', values: [`'''fat'':1A cat:2'`] },
  { type: 'kinds.hstore', values: [`'a=>"1, 2", b=>NULL'`] },
];

/** The name of the n-th of them. */
export const columnName = (index: number) => `c${index}`;

export interface Key {
  readonly name: string;
  readonly columns: Readonly<Record<string, string>>;
  /** SQL of each column's value in the n-th row, of which there may be 40. */
  readonly values: readonly string[];
  /** Instead of a primary key. */
  readonly constraint?: string;
  /** Those that are registered, when it is not all of them in their order. */
  readonly key?: readonly string[];
}

const one = (type: string, value: string): Key => ({ name: type, columns: { id: type }, values: [value] });
const ends = (type: string, finite: string, zone = ''): Key => ({
  name: `${type}, its ends and years BC among them`,
  columns: { id: type },
  values: [
    `case n when 1 then '-infinity' when 2 then 'infinity' when 3 then '0044-03-15${zone} BC' when 4 then '0044-03-15${zone}' else ${finite} end`,
  ],
});

export const keys: readonly Key[] = [
  one('bigint', '9007199254740993 - n * 3'),
  one('uuid', `('00000000-0000-4000-8000-' || lpad(to_hex(n * 7 % 41), 12, '0'))::uuid`),
  one(
    'text',
    `(array['b', 'A', 'a', 'B', '', ',', E'\\\\', ' '])[n % 8 + 1] || case when n > 7 then n::text else '' end`,
  ),
  one('text collate kinds.careless', `'K' || n`),
  one('character varying(10)', `'k' || n`),
  one('character(8)', `'k' || n`),
  one('name', `'m' || n`),
  one(
    'kinds.citext',
    `(array['b', 'A', 'C', 'a b', 'Z', 'y', 'X', 'w'])[n % 8 + 1] || case when n > 7 then n::text else '' end`,
  ),
  one('kinds.code', `'k' || n`),
  one('kinds.later', `'2026-03-29 00:30:00+00'::timestamptz + n * interval '20 minutes'`),
  one('kinds.mood', `(enum_range(null::kinds.mood))[n]`),
  one('bytea', `decode(lpad(to_hex(n * 37), 4, '0'), 'hex')`),
  ends('date', `date '9999-12-30' + n`),
  ends('timestamp', `timestamp '2026-01-01 00:00:00.000001' + n * interval '1 second'`),
  ends('timestamptz', `timestamptz '2026-03-29 00:30:00+00' + n * interval '20 minutes'`, ' 00:00+00'),
  one('interval', `n * interval '1 mon -2 days 03:04:05.678'`),
  one('numeric', `case n when 3 then 'NaN' when 4 then 'Infinity' else n / 8.0 end`),
  one('double precision', `case n when 3 then 'NaN' else 0.1::float8 + n * 1e-16 end`),
  one('inet', `inet '10.0.0.0' + n * 7 % 41`),
  one('macaddr', `('08:00:2b:01:02:' || lpad(to_hex(n), 2, '0'))::macaddr`),
  one('text[]', `array['a' || n, ',']`),
  one(
    'tstzrange',
    `tstzrange('2026-01-01 00:00+00', '2026-01-02 00:00+00'::timestamptz + n * interval '1 hour')`,
  ),
  {
    name: 'bigint, text (primary key in another order)',
    columns: { org: 'bigint', part: 'text' },
    values: ['n % 3', `(array['a,b', 'a', E'b\\\\', ''])[n % 4 + 1] || n / 12`],
    constraint: 'primary key (part, org)',
    key: ['org', 'part'],
  },
  {
    name: 'kinds.citext, bigint, date',
    columns: { mail: 'kinds.citext', org: 'bigint', day: 'date' },
    values: [`(array['a', 'B', 'A,', ','])[n % 4 + 1]`, 'n % 2', `date '2026-01-01' + n`],
  },
  {
    name: 'integer, unique and not null, without a primary key',
    columns: { id: 'integer' },
    values: ['-n'],
    constraint: 'unique (id), alter column id set not null',
  },
  {
    name: 'two columns, unique with another one included',
    columns: { a: 'integer', b: 'uuid', more: 'text' },
    values: ['n / 5', `('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid`, `'x'`],
    constraint: 'unique (a, b) include (more), alter column a set not null, alter column b set not null',
    key: ['a', 'b'],
  },
];

/** Names of the key's columns. */
export const keyColumns = ({ columns, key }: Key) => key ?? Object.keys(columns);

export interface Kind {
  readonly name: string;
  /** SQL that makes `table` of the columns and the key that are given. */
  create(table: string, columns: string, key: string): string;
  /** Of the table, as SQL has it. */
  table(name: string): string;
}

const kind = (name: string, create: Kind['create'], table = (given: string) => `public.${given}`): Kind => ({
  name,
  create,
  table,
});
const plain: Kind['create'] = (table, columns, key) => `create table ${table} (${columns}); ${key}`;

/** Names of the columns, of the statement that adds the key. */
const keyOf = (key: string) => key.slice(key.indexOf('(') + 1, key.indexOf(')')).split(', ');
const hashParts = (table: string, further = '') =>
  [0, 1]
    .map(
      (n) =>
        `create table ${table}_${n} partition of ${table} for values with (modulus 2, remainder ${n}) ${further}`,
    )
    .join('; ');

/** Of the first every key is tried, of the others one of one column and one of several. */
export const tableKinds: readonly Kind[] = [
  kind('an ordinary table', plain),
  kind('an unlogged table', (table, columns, key) => `create unlogged table ${table} (${columns}); ${key}`),
  kind(
    'a table with quotation marks, dots and dollar signs in its name',
    plain,
    (name) => `"kinds"."${name}.$body$ ""%s"`,
  ),
  kind(
    'a table with identity and generated columns',
    (table, columns, key) =>
      `create table ${table} (serial bigint generated always as identity, ${columns}, twice integer generated always as (n * 2) stored); ${key}`,
  ),
  kind(
    'a table with row-level security',
    (table, columns, key) =>
      `create table ${table} (${columns}); ${key}; alter table ${table} enable row level security; create policy none on ${table} using (false)`,
  ),
  kind(
    'a table that inherits from another',
    (table, columns, key) =>
      `create table if not exists public.ancestor (n integer); create table ${table} (${columns}) inherits (public.ancestor); ${key}`,
  ),
  kind('a partitioned table', (table, columns, key) => {
    const [by] = keyOf(key);
    return `create table ${table} (${columns}) partition by hash (${by}); ${key}; ${hashParts(table)}`;
  }),
  kind('a table whose partitions are partitioned', (table, columns, key) => {
    const [by, then = by] = keyOf(key);
    return `create table ${table} (${columns}) partition by hash (${by}); ${key};
      ${hashParts(table, `partition by hash (${then})`)}; ${hashParts(`${table}_0`)}; ${hashParts(`${table}_1`)}`;
  }),
];

export interface Refusal {
  readonly name: string;
  readonly create: string;
  readonly registration?: object;
}

const of = (name: string, type: string): Refusal => ({
  name,
  create: `create table public.refused (id bigint primary key, email ${type})`,
});

export const refusals: readonly Refusal[] = [
  of('a column of a composite type, also in arrays and domains', 'kinds.address[]'),
  of('a column of money', 'money'),
  of('a column of xml', 'xml'),
  of('a column of regclass, regrole, …', 'regclass'),
  of('a generated column', `text generated always as ('x') stored`),
  {
    name: 'a column of the key',
    create: 'create table public.refused (id bigint, email text, primary key (id, email))',
    registration: { key: ['id', 'email'] },
  },
  {
    name: 'a key that is unique, but nullable',
    create: 'create table public.refused (id bigint unique, email text)',
  },
  {
    name: 'a key that is unique, of which a column is nullable',
    create: 'create table public.refused (id bigint not null, part text, email text, unique (id, part))',
    registration: { key: ['id', 'part'] },
  },
  {
    name: 'a key that is not null, but not unique',
    create: 'create table public.refused (id bigint not null, email text)',
  },
  {
    name: 'a key whose index is partial',
    create:
      'create table public.refused (id bigint not null, email text); create unique index by_id on public.refused (id) where id > 0',
  },
  {
    name: 'a key whose constraint is deferrable',
    create: 'create table public.refused (id bigint not null, email text, unique (id) deferrable)',
  },
  {
    name: 'some columns of a primary key',
    create: 'create table public.refused (id bigint, part text, email text, primary key (id, part))',
  },
  {
    name: 'a generated key',
    create:
      'create table public.refused (n bigint, id bigint generated always as (n) stored unique not null, email text)',
  },
  {
    name: 'a typed table',
    create:
      'create type public.refused_row as (id bigint, email text); create table public.refused of public.refused_row (primary key (id))',
  },
  {
    name: 'a table that others inherit from',
    create:
      'create table public.refused (id bigint primary key, email text); create table public.heir () inherits (public.refused)',
  },
  {
    name: 'a partition',
    create: `create table public.root (id bigint primary key, email text) partition by range (id);
      create table public.refused partition of public.root default`,
  },
  { name: 'a view', create: `create view public.refused as select 1::bigint as id, ''::text as email` },
  {
    name: 'a materialized view',
    create: `create materialized view public.refused as select 1::bigint as id, ''::text as email`,
  },
];
