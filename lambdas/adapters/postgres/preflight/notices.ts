/** Who will notice a rollout of a table, as far as catalogs and the sources of functions tell. Reads only, and needs no engine. */
import type pg from 'pg';
import { type Target, targetName } from '../../../core/plan/settings.ts';
import type { Notice } from '../../../core/preflight/notices.ts';
import { tableSql, treeSql } from '../encryption/engine.ts';
import { addedColumns, columnsDdl } from './additions.ts';

/** $1: the table; $2: the columns to encrypt; $3: those that are added, as DDL. */
const shared = `
  wanted as (
    select c.oid, c.relname, n.nspname, c.reltype, c.oid::regclass::text as name,
      array(select attnum from pg_attribute where attrelid = c.oid and attname = any ($2) and not attisdropped) as columns
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = to_regclass($1)
  ),
  -- And what is below it.
  parts as (
    select part.oid, c.relname, n.nspname, case when part.oid <> w.oid then ' of ' || part.oid::regclass else '' end as place
    from wanted as w
    cross join lateral (${treeSql('w.oid')}) as part
    join pg_class as c on c.oid = part.oid
    join pg_namespace as n on n.oid = c.relnamespace
  ),
  -- Of others than PostgreSQL, extensions and the engine; without comments.
  sources as (
    select p.oid, p.prorettype, p.proargtypes, p.proallargtypes,
      regexp_replace(regexp_replace(p.prosrc, '--[^\\n]*', '', 'g'), '/\\*.*?\\*/', '', 'g') as source
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname not in ('pg_catalog', 'information_schema', 'encryption_rollout')
      and not exists (
        select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
      )
  ),
  triggers as (
    select format('%I', t.tgname) || part.place as name, t.tgtype, t.tgattr, t.tgfoid::regprocedure::text as function, p.proname, s.source
    from parts as part
    join pg_trigger as t on t.tgrelid = part.oid and t.tgparentid = 0
    join pg_proc as p on p.oid = t.tgfoid
    left join sources as s on s.oid = p.oid
    where not t.tgisinternal and t.tgenabled <> 'D' and p.pronamespace <> coalesce(to_regnamespace('encryption_rollout'), 0)
  ),
  -- Each table that one of them writes to.
  writes as (
    select t.*, m[1] as written
    from triggers as t,
      regexp_matches(t.source, '(?:insert\\s+into|merge\\s+into|update)\\s+(?:only\\s+)?("?[a-z_][\\w$]*"?(?:\\."?[\\w$]+"?)?)', 'gi') as m
    where lower(m[1]) not in ('of', 'or', 'set', 'skip', 'nowait')
  )`;

/** A word of a function's source that is the table's name, as a regular expression. */
const tableWord = `'\\m' || regexp_replace(w.relname, '(\\W)', '\\\\\\1', 'g') || '\\M'`;
/** What a trigger takes for the time of a change. */
const timeOfChange =
  '(now\\s*\\(|current_timestamp|clock_timestamp|statement_timestamp|transaction_timestamp|localtimestamp)';

/** A row that is made one value, which takes whatever columns there are. */
const asOneValue = '(to_jsonb?|row_to_json|hstore)\\s*\\(\\s*(old|new)\\M|\\m(old|new)\\s*::\\s*text';

const queries: Readonly<Record<Notice['about'], string>> = {
  wholeRows: `
    select format('trigger %s calls %s, which copies whole rows (%s)', name, function,
        lower(coalesce(
          substring(source from '(?i)((?:old|new)\\s*\\.\\s*\\*)'), substring(source from '(?i)(\\w*\\(\\s*(?:old|new)\\s*\\))'),
          substring(source from '(?i)[(,]\\s*((?:old|new))\\M')))) as finding,
      case
        when source ~* '${asOneValue}' and source !~* '\\m(old|new)\\M\\s*\\.\\s*\\*' then 'What it writes holds the ciphertext, too, beside the plaintext.'
        else 'From the moment the columns are there, an insert of such a row into a table without them fails: give that table the same columns first, or name the columns in the function.'
      end as advice
    from triggers
    where regexp_replace(source, 'coalesce\\s*\\(\\s*(new|old)\\s*,\\s*(new|old)\\s*\\)', '', 'gi')
      ~* '\\m(old|new)\\M\\s*\\.\\s*\\*|[(,]\\s*(old|new)\\s*([),]|::)'
    union all
    select format('function %s reads "select *" of it', s.oid::regprocedure),
      'Name the columns that it needs, or see that its result may have more.'
    from sources as s, wanted as w
    where s.source ~* 'select\\s+(\\w+\\s*\\.\\s*)?\\*' and s.source ~* (${tableWord})
    union all
    select format('function %s takes or returns rows of it', s.oid::regprocedure),
      'Its callers meet the new columns.'
    from sources as s, wanted as w
    where w.reltype in (s.prorettype) or w.reltype = any (s.proargtypes) or w.reltype = any (s.proallargtypes)
      or s.source ~* (${tableWord} || '\\s*%\\s*rowtype')
    union all
    select format('view %s holds whole rows of it', v.oid::regclass), 'Its readers meet the new columns.'
    from pg_class as v, wanted as w
    where v.relkind in ('v', 'm') and v.oid in (
        select r.ev_class from pg_rewrite as r
        join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = w.oid
      )
      and pg_get_viewdef(v.oid) ~ '\\.\\*'
    union all
    select format('column %I of %s has its rows as values', a.attname, a.attrelid::regclass), 'Its readers meet the new columns.'
    from pg_attribute as a
    join pg_class as r on r.oid = a.attrelid and r.relkind in ('r', 'p')
    cross join wanted as w
    where w.reltype <> 0 and a.atttypid in (w.reltype, (select typarray from pg_type where oid = w.reltype)) and not a.attisdropped`,
  replication: `
    select format('publication %I sends it to %s', p.pubname, coalesce(
        (select string_agg(format('%I', slot_name), ', ' order by slot_name) from pg_replication_slots
         where slot_type = 'logical' and database = current_database() and plugin = 'pgoutput'), 'subscribers')) as finding,
      case
        -- A list of columns, which there is from PostgreSQL 15 on.
        when exists (
          select from pg_publication_rel as r
          join pg_publication as b on b.oid = r.prpubid
          where b.pubname = p.pubname and r.prrelid = part.oid and to_jsonb(r) ->> 'prattrs' is not null
        ) then 'It sends a list of columns, which the new ones are not in: nothing to do.'
        -- A subscriber looks for a table and its columns before it looks whether it has subscribed to that table.
        when exists (select from pg_publication where pubname = p.pubname and puballtables)
          then 'It sends all tables, the engine''s records too, and a subscriber stops at the first table or column that it does not have. On each of them first: npm run rollout -- install --database-url SUBSCRIBER --config FILE, which adds both. What it has not subscribed to it then passes over, so do not refresh its subscription before the rollout is over. Or publish the tables that it needs by their names.'
        else format('A subscriber without the new columns stops at the first batch. On each of them first: alter table %s %s;', w.name, $3::text)
      end as advice
    from pg_publication_tables as p
    join parts as part on p.schemaname = part.nspname and p.tablename = part.relname
    cross join wanted as w
    union all
    select format('slot %I (%s) decodes every change of the database', slot_name, plugin),
      'Its readers meet the new columns, and every row of the table once more.'
    from pg_replication_slots
    where slot_type = 'logical' and database = current_database() and plugin <> 'pgoutput' and exists (select from wanted)
    union all
    select format('subscription %I writes into it', s.subname),
      'Triggers do not fire for what it writes: those rows are sealed by batches alone, none of which run after the rollout. Encrypt at the publisher.'
    from pg_subscription_rel as r join parts as w on w.oid = r.srrelid
    join pg_subscription as s on s.oid = r.srsubid`,
  everyBatch: `
    select format('trigger %s sets %s in every row that a batch seals', name, coalesce(
        (select string_agg(distinct lower(m[1]), ', ') from regexp_matches(source, 'new\\s*\\.\\s*"?(\\w+)"?\\s*:?=\\s*${timeOfChange}', 'gi') as m),
        'a column')) as finding,
      'The times of last change become the rollout''s, and exports of what has changed since read every row again. Let it test current_setting(''encryption_rollout.batch'', true), or acknowledge it.' as advice
    from triggers
    where tgtype & 19 = 19 and (cardinality(tgattr::int2[]) = 0)
      and (source ~* 'new\\s*\\.\\s*"?\\w+"?\\s*:?=\\s*${timeOfChange}'
        or proname = 'moddatetime')
    union all
    select format('trigger %s writes to %s for every row that a batch seals', name, string_agg(distinct written, ', ')),
      'As many rows more there, which no forecast holds. Let it test current_setting(''encryption_rollout.batch'', true), or make room.'
    from writes
    where tgtype & 17 = 17 and cardinality(tgattr::int2[]) = 0
    group by name
    union all
    select format('column %I looks like a version that applications compare', attname),
      'Batches do not touch it; a trigger that counts it up is fired by them.'
    from pg_attribute as a join wanted as w on w.oid = a.attrelid
    where a.attnum > 0 and not a.attisdropped and a.attname ~* '^(lock_version|row_?version|version|xmin)$'`,
  copies: `
    select format('column %I is generated from %s', a.attname, c.attname) as finding,
      'It holds the plaintext: encrypt what it is made of only if it may stay, or drop it later.' as advice
    from wanted as w
    join pg_attrdef as d on d.adrelid = w.oid
    join pg_attribute as a on a.attrelid = w.oid and a.attnum = d.adnum and a.attgenerated <> ''
    join pg_depend as p on p.refclassid = 'pg_class'::regclass and p.refobjid = w.oid and p.refobjsubid = any (w.columns) and p.refobjsubid <> a.attnum
      and (p.classid = 'pg_attrdef'::regclass and p.objid = d.oid or p.classid = 'pg_class'::regclass and p.objid = w.oid and p.objsubid = a.attnum)
    join pg_attribute as c on c.attrelid = w.oid and c.attnum = p.refobjsubid
    union all
    select format('index %s holds %s', i.indexrelid::regclass, case when i.indexprs is null then 'the values' else 'what it computes of them' end),
      'As plaintext, like the column.'
    from wanted as w
    join pg_index as i on i.indrelid = w.oid
    where exists (
      select from pg_depend as d
      where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
        and d.refclassid = 'pg_class'::regclass and d.refobjid = w.oid and d.refobjsubid = any (w.columns)
    ) or i.indkey::int2[] && w.columns
    union all
    select format('%s %s reads %s', case v.relkind when 'm' then 'materialized view' else 'view' end, v.oid::regclass,
        string_agg(distinct a.attname, ', ')),
      case v.relkind when 'm' then 'It keeps the plaintext, until it is refreshed without.' else 'It reads plaintext, until it is changed to open values.' end
    from wanted as w
    join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid = w.oid and d.refobjsubid = any (w.columns)
    join pg_rewrite as r on r.oid = d.objid
    join pg_class as v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_attribute as a on a.attrelid = w.oid and a.attnum = d.refobjsubid
    group by v.oid, v.relkind
    union all
    select format('trigger %s calls %s, which writes to %s', name, function, string_agg(distinct written, ', ')),
      'What it writes there stays plaintext: make that table a target too, if it holds the values.'
    from writes
    group by name, function
    union all
    select format('%s refers to %s', k.conrelid::regclass, string_agg(a.attname, ', ')), 'It holds the same values, as plaintext.'
    from wanted as w
    join pg_constraint as k on k.contype = 'f' and k.confrelid = w.oid and k.confkey && w.columns
    join pg_attribute as a on a.attrelid = w.oid and a.attnum = any (k.confkey) and a.attnum = any (w.columns)
    group by k.oid, k.conrelid
    union all
    select format('the planner''s statistics hold samples of %s', string_agg(s.attname, ', ' order by s.attname)),
      'Whoever may read the column sees them in pg_stats, and whoever reads a dump of statistics.'
    from wanted as w
    join pg_stats as s on s.schemaname = w.nspname and s.tablename = w.relname and s.attname = any ($2)
    where s.most_common_vals is not null or s.histogram_bounds is not null
    having count(*) > 0`,
};

/** Everything found, of each kind in the order of the text. `most`: of a kind. */
export async function readNotices(
  client: pg.ClientBase,
  target: Target,
  most: number = Number.POSITIVE_INFINITY,
): Promise<Notice[]> {
  const table = targetName(target);
  const notices: Notice[] = [];
  for (const about of Object.keys(queries) as Notice['about'][]) {
    const { rows } = await client.query<Pick<Notice, 'finding' | 'advice'>>(
      `with ${shared} select distinct finding, advice from (${queries[about]}) as found
       -- Whether a kind has a use for it or not.
       where $3::text is not null order by finding`,
      [tableSql(target), target.columns, columnsDdl(addedColumns(target))],
    );
    notices.push(...rows.slice(0, most).map((row) => ({ table, about, ...row })));
    if (rows.length > most)
      notices.push({
        table,
        about,
        finding: `${rows.length - most} more of this kind`,
        advice: 'All of them: npm run rollout -- check --database-url URL --config FILE',
      });
  }
  return notices;
}
