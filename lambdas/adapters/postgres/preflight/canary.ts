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
    const [first] = await refusals(client, target, canary);
    return first === undefined ? '' : `${pg.escapeIdentifier(first.name)} ${words[first.kind]}`;
  } catch (error) {
    return `its values are not those of the columns: SQLSTATE ${(error as { code?: string }).code}`;
  }
}

function sentence(beginning: string, names: readonly string[]): string[] {
  return names.length === 0 ? [] : [`${beginning} ${names.join(', ')}`];
}

/** A constraint, or a unique index, that would refuse a row. */
export interface Refusal {
  readonly name: string;
  readonly kind: 'check' | 'parent' | 'unique';
  readonly columns: readonly string[];
  /** As it is defined. */
  readonly definition: string;
  /** Of a foreign key: the table that it refers to, and the columns there in the order of `columns`; else null. */
  readonly parent: (Pick<Target, 'schema' | 'table'> & { readonly columns: readonly string[] }) | null;
}

const words: Readonly<Record<Refusal['kind'], string>> = {
  check: 'is against it',
  parent: 'finds no parent of it: insert one for the canary alone, once',
  unique:
    'has a row of its values: give it others, and of a parent that takes one child alone one of its own, inserted once',
};

/**
 * What would refuse the row, asked without inserting it. A constraint of columns that are not given, or null, is not asked: they
 * may have a default. Nor is one that calls other functions than PostgreSQL's own: nobody else's code is run to find out.
 * @throws when a value is none of its column's
 */
export async function refusals(
  client: pg.ClientBase,
  name: Pick<Target, 'schema' | 'table'>,
  row: Readonly<Record<string, unknown>>,
): Promise<Refusal[]> {
  const table = tableSql(name);
  const { rows } = await client.query<Refusal & { condition: string }>(
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
  const found: Refusal[] = [];
  for (const { condition, ...constraint } of rows) {
    const isGiven = (column: string) => (row[column] ?? null) !== null;
    if (!(constraint.kind === 'check' ? constraint.columns.some(isGiven) : constraint.columns.every(isGiven)))
      continue;
    const { rows: judged } = await client.query(
      `select ${condition} as fine from jsonb_populate_record(null::${table}, $1) as candidate`,
      [row],
    );
    if (judged[0].fine === false) found.push(constraint);
  }
  return found;
}
