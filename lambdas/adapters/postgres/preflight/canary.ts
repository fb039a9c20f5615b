/** What catalogs tell about a canary without inserting it. Reads only, and needs no engine. */
import pg from 'pg';
import type { Target } from '../../../core/plan/settings.ts';
import { tableSql } from '../encryption/engine.ts';

/**
 * Why the table would refuse its canary: columns, constraints, parents, rows of the same unique values. Never a value.
 * @returns empty when nothing is known against it; triggers, and what else runs at an insert, may still refuse it
 */
export async function canaryProblem(client: pg.ClientBase, target: Target): Promise<string> {
  const columns = await client.query<{ name: string; computed: boolean; required: boolean }>(
    `select attname::text as name, attgenerated <> '' or attidentity = 'a' as computed,
       attnotnull and not atthasdef and attidentity = '' and attgenerated = '' as required
     from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum`,
    [tableSql(target)],
  );
  const canary: Readonly<Record<string, unknown>> = target.canary;
  const given = new Set(Object.keys(canary).filter((name) => canary[name] !== null));
  const known = new Map(columns.rows.map((column) => [column.name, column]));
  const problems = [
    ...sentence(
      'the table has no column',
      Object.keys(canary).filter((name) => !known.has(name)),
    ),
    ...sentence(
      'the table computes column',
      [...given].filter((name) => known.get(name)?.computed),
    ),
    ...sentence(
      'nothing is given for column',
      columns.rows.filter(({ name, required }) => required && !given.has(name)).map(({ name }) => name),
    ),
  ];
  if (problems.length > 0) return problems.join('; ');
  try {
    const [first] = await refusals(client, await readConstraints(client, target), canary);
    return first === undefined ? '' : inWords(first);
  } catch (error) {
    return `its values are not those of the columns: SQLSTATE ${(error as { code?: string }).code}`;
  }
}

function sentence(beginning: string, names: readonly string[]): string[] {
  return names.length === 0 ? [] : [`${beginning} ${names.join(', ')}`];
}

/** A constraint, a unique index, or the lack of a partition, that would refuse a row. */
export interface Refusal {
  /** Of a partitioned table itself where no partition takes the row. */
  readonly name: string;
  readonly kind: 'check' | 'parent' | 'unique' | 'partition';
  readonly columns: readonly string[];
  /** As it is defined. */
  readonly definition: string;
  /** Of a foreign key: the table that it refers to, and the columns there in the order of `columns`; else null. */
  readonly parent: (Pick<Target, 'schema' | 'table'> & { readonly columns: readonly string[] }) | null;
  /** What would take the row instead, the youngest first. */
  readonly partitions: readonly {
    readonly name: string;
    readonly bounds: string;
    /** Its condition, those of what it is a part of included. */
    readonly condition: string;
  }[];
}

/** What may refuse rows of a table, read once and asked of many rows. */
export interface Constraints {
  /** As SQL. */
  readonly table: string;
  readonly constraints: readonly Constraint[];
}

interface Constraint extends Refusal {
  /** Of the row `candidate`; $1 is that row as JSON. */
  readonly condition: string;
  /** Not asked unless the row gives each of them: nobody knows beforehand what the table would make up. */
  readonly needed: readonly string[];
}

function inWords({ name, kind, columns, partitions: [partition] }: Refusal): string {
  switch (kind) {
    case 'check':
      return `${pg.escapeIdentifier(name)} is against it`;
    case 'parent':
      return `${pg.escapeIdentifier(name)} finds no parent of it: insert one for the canary alone, once`;
    case 'unique':
      return `${pg.escapeIdentifier(name)} has a row of its values: give it others, and of a parent that takes one child alone one of its own, inserted once`;
    case 'partition':
      return `no partition takes its ${columns.join(', ')}: ${partition === undefined ? `there is none; create table … partition of ${name} makes one` : `give the canary one that ${partition.name} takes (${partition.bounds})`}`;
  }
}

/**
 * What would refuse the row, asked without inserting it. A constraint of columns that are not given, or null, is not asked: they
 * may have a default. Nor is one that calls other functions than PostgreSQL's own: nobody else's code is run to find out.
 * @throws when a value is none of its column's
 */
export async function refusals(
  client: pg.ClientBase,
  { table, constraints }: Constraints,
  row: Readonly<Record<string, unknown>>,
): Promise<Refusal[]> {
  const isGiven = (column: string) => (row[column] ?? null) !== null;
  const asked = constraints.filter(
    ({ kind, columns, needed }) => needed.every(isGiven) && (kind !== 'check' || columns.some(isGiven)),
  );
  const { rows } = await client.query<{ fine: boolean[] }>(
    `select array[${asked.map(({ condition }) => `(${condition})`).join(', ')}]::boolean[] as fine
     from jsonb_populate_record(null::${table}, $1) as candidate`,
    [row],
  );
  return asked.filter((_, at) => rows[0]?.fine[at] === false);
}

/** From catalogs alone. */
export async function readConstraints(
  client: pg.ClientBase,
  name: Pick<Target, 'schema' | 'table'>,
): Promise<Constraints> {
  const table = tableSql(name);
  const { rows } = await client.query<Omit<Constraint, 'partitions' | 'needed'>>(
    `select conname::text as name, case contype when 'c' then 'check' else 'parent' end as kind,
       pg_get_constraintdef(c.oid) as definition,
       array(select attname::text from unnest(conkey) with ordinality as k (attnum, n)
         join pg_attribute as a on a.attrelid = conrelid and a.attnum = k.attnum order by k.n) as columns,
       case contype
         when 'c' then format('(%s) is not false', pg_get_expr(conbin, conrelid))
         else format('exists (select from %s as parent where %s)', confrelid::regclass, (
           select string_agg(format('parent.%I = candidate.%I', p.attname, a.attname), ' and ')
           from unnest(conkey, confkey) as k (attnum, parent)
           join pg_attribute as a on a.attrelid = conrelid and a.attnum = k.attnum
           join pg_attribute as p on p.attrelid = confrelid and p.attnum = k.parent
         ))
       end as condition,
       case contype when 'f' then (
         select json_build_object('schema', n.nspname, 'table', p.relname, 'columns', array(
           select attname from unnest(confkey) with ordinality as k (attnum, n)
           join pg_attribute as a on a.attrelid = confrelid and a.attnum = k.attnum order by k.n
         ))
         from pg_class as p join pg_namespace as n on n.oid = p.relnamespace where p.oid = confrelid
       ) end as parent
     from pg_constraint as c
     where conrelid = to_regclass($1) and contype in ('c', 'f')
       and not exists (
         select from pg_depend as d
         where d.classid = 'pg_constraint'::regclass and d.objid = c.oid and d.refclassid = 'pg_proc'::regclass
       )
     union all
     select i.indexrelid::regclass::text, 'unique', pg_get_indexdef(i.indexrelid), array_agg(a.attname::text),
       format('not exists (select from %s as other where %s)', i.indrelid::regclass,
         string_agg(format('other.%1$I = candidate.%1$I', a.attname), ' and ')),
       null
     from pg_index as i
     join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
     where i.indrelid = to_regclass($1) and i.indisunique and i.indpred is null and i.indexprs is null
     group by i.indexrelid, i.indrelid
     order by 2, 1`,
    [table],
  );
  const constraints = rows.map((row) => ({
    ...row,
    partitions: [],
    needed: row.kind === 'check' ? [] : row.columns,
  }));
  return { table, constraints: [...constraints, ...(await readPartitioning(client, table))] };
}

/** That one of the partitions takes the row: each has a condition, which takes those above it in. */
async function readPartitioning(client: pg.ClientBase, table: string): Promise<Constraint[]> {
  const { rows: columns } = await client.query<{ name: string; type: string; otherwise: string | null }>(
    // The columns that a relation is partitioned by are a part of it, in an expression, too. A default is known beforehand
    // unless it calls a function that is another's or volatile; one that is not there is null.
    `select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
       case
         when a.attidentity <> '' then null
         when d.oid is null then 'null'
         when not exists (
           select from regexp_matches(d.adbin::text, ':(?:op)?funcid (\\d+)', 'g') as called
           join pg_proc as f on f.oid = called[1]::oid where f.oid >= 16384 or f.provolatile = 'v'
         ) then pg_get_expr(d.adbin, d.adrelid)
       end as otherwise
     from pg_attribute as a left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attname in (
       select by.attname from pg_partition_tree(to_regclass($1)) as tree
       join pg_depend as k on k.classid = 'pg_class'::regclass and k.objid = tree.relid and k.objsubid > 0
         and k.refclassid = 'pg_class'::regclass and k.refobjid = tree.relid and k.refobjsubid = 0 and k.deptype = 'i'
       join pg_attribute as by on by.attrelid = tree.relid and by.attnum = k.objsubid
       where not tree.isleaf
     )
     order by a.attnum`,
    [table],
  );
  const { rows: found } = await client.query<{ mine: boolean; partitions: Refusal['partitions'] | null }>(
    `select
       not exists (
         select from pg_depend as k where k.classid = 'pg_class'::regclass and k.objid = any (array_agg(tree.relid))
           and k.refclassid = 'pg_proc'::regclass
       ) as mine,
       json_agg(json_build_object(
         'name', tree.relid::regclass::text, 'bounds', pg_get_expr(c.relpartbound, c.oid),
         'condition', coalesce(pg_get_partition_constraintdef(tree.relid), 'true')
       ) order by tree.relid desc) filter (where tree.isleaf) as partitions
     from pg_partition_tree(to_regclass($1)) as tree join pg_class as c on c.oid = tree.relid
     having bool_or(not tree.isleaf)`,
    [table],
  );
  const [whole] = found;
  if (whole === undefined || !whole.mine) return [];
  const partitions = whole.partitions ?? [];
  const values = columns.map(({ name, type, otherwise }) => {
    const column = pg.escapeIdentifier(name);
    const given = `candidate.${column}`;
    const value =
      otherwise === null
        ? given
        : `case when $1::jsonb ? ${pg.escapeLiteral(name)} then ${given} else cast(${otherwise} as ${type}) end`;
    return `${value} as ${column}`;
  });
  const taken = partitions.map(({ condition }) => `(${condition})`).join(' or ') || 'false';
  return [
    {
      name: table,
      kind: 'partition',
      columns: columns.map(({ name }) => name),
      needed: columns.filter(({ otherwise }) => otherwise === null).map(({ name }) => name),
      definition: partitions.map(({ bounds }) => bounds).join(', '),
      condition: `select (${taken}) is true from (select ${values.join(', ')}) as candidate`,
      parent: null,
      partitions,
    },
  ];
}
