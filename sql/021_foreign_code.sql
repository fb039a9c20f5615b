-- Whose code, besides the table's owner's, would run in a batch, a trigger or a canary, and so with the engine's rights; and what
-- else breaks the boundary around key, plaintext and records. Each finding with the statement that ends it.

-- Of these relations: triggers and who may create them, and the functions that constraints, indexes, defaults, generated columns,
-- partitioning, statistics, rules, policies, the columns' types and their casts call; and event triggers. What comes with an extension is the superuser's. Needs nothing of the
-- engine, so that a table can be judged before there is one.
create function encryption_rollout.foreign_code_of(p_relations oid[])
returns table (finding text, fix text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $foreign_code$
  with recursive
    relation as (
      select c.oid, c.relowner, c.relacl, c.relispartition, c.oid::regclass::text as name
      from pg_class as c
      where c.oid = any ($1::oid[])
    ),
    -- The types of columns, and what these consist of.
    type (relation, oid) as (
      select r.oid, a.atttypid
      from relation as r
      join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      union
      select t.relation, part.oid
      from type as t
      join pg_type as y on y.oid = t.oid
      cross join lateral (
        select y.typbasetype
        union all
        select y.typelem
        union all
        select a.atttypid from pg_attribute as a where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped
        union all
        select g.rngsubtype from pg_range as g where g.rngtypid = y.oid
      ) as part (oid)
      where part.oid <> 0
    ),
    -- `is_shared`: the database's own, and so called for all tables.
    place (relation, class, object, name, is_shared) as (
      select t.tgrelid, 'pg_trigger'::regclass, t.oid, format('trigger %I', t.tgname), false
      from relation as r
      join pg_trigger as t on t.tgrelid = r.oid
      -- Not again in every partition.
      where not t.tgisinternal and t.tgparentid = 0
      union all
      select r.oid, 'pg_attrdef', d.oid, format('default of column %I', a.attname), false
      from relation as r
      join pg_attrdef as d on d.adrelid = r.oid
      join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
      union all
      select r.oid, 'pg_constraint', o.oid, format('constraint %I', o.conname), false
      from relation as r
      join pg_constraint as o on o.conrelid = r.oid
      union all
      select r.oid, 'pg_class', i.indexrelid, format('index %s', i.indexrelid::regclass), false
      from relation as r
      join pg_index as i on i.indrelid = r.oid
      union all
      select r.oid, 'pg_class', r.oid, 'partitioning', false
      from relation as r
      union all
      select r.oid, 'pg_rewrite', w.oid, format('rule %I', w.rulename), false
      from relation as r
      join pg_rewrite as w on w.ev_class = r.oid
      union all
      select r.oid, 'pg_policy', p.oid, format('policy %I', p.polname), false
      from relation as r
      join pg_policy as p on p.polrelid = r.oid
      union all
      select r.oid, 'pg_statistic_ext', s.oid, format('statistics %I', s.stxname), false
      from relation as r
      join pg_statistic_ext as s on s.stxrelid = r.oid
      union all
      -- Of the database, and told of once.
      select r.oid, 'pg_event_trigger', e.oid, format('event trigger %I, at DDL', e.evtname), true
      from relation as r
      cross join pg_event_trigger as e
      where not r.relispartition and e.evtenabled <> 'D'
      union all
      -- Whoever owns a type says how it becomes text and is made of it. Types of PostgreSQL's have casts of its own.
      select t.relation, 'pg_cast', c.oid, format('cast from %s to %s', c.castsource::regtype, c.casttarget::regtype), false
      from type as t
      join pg_type as y on y.oid = t.oid and y.typnamespace <> 'pg_catalog'::regnamespace
      join pg_cast as c on t.oid in (c.castsource, c.casttarget)
      union all
      select t.relation, 'pg_type', t.oid, format('type %s', t.oid::regtype), false
      from type as t
      union all
      select t.relation, 'pg_constraint', o.oid, format('constraint %I of type %s', o.conname, t.oid::regtype), false
      from type as t
      join pg_constraint as o on o.contypid = t.oid
    ),
    code (relation, name, is_shared, function) as (
      select p.relation, p.name, p.is_shared, f.oid
      from place as p
      join pg_depend as d on d.classid = p.class and d.objid = p.object
      left join pg_operator as o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
      join pg_proc as f on f.oid = case when d.refclassid = 'pg_proc'::regclass then d.refobjid else o.oprcode end
      union
      -- What a function with a body that was parsed when it was made calls itself.
      select c.relation, c.name, c.is_shared, d.refobjid
      from code as c
      join pg_depend as d on d.classid = 'pg_proc'::regclass and d.objid = c.function and d.refclassid = 'pg_proc'::regclass
    ),
    trusted (relation, role) as (
      select r.oid, o.oid
      from relation as r
      join pg_roles as o
        on o.rolsuper or o.rolname = current_user or pg_has_role(o.oid, r.relowner, 'member')
          or o.oid in (select nspowner from pg_namespace where nspname = 'encryption_rollout')
    )
  select format('%s may create triggers on %s', grantee.name, r.name), format('revoke trigger on %s from %s;', r.name, grantee.name)
  from relation as r
  cross join aclexplode(r.relacl) as g
  cross join lateral (select case g.grantee when 0 then 'public' else g.grantee::regrole::text end) as grantee (name)
  where g.privilege_type = 'TRIGGER'
    and (r.oid, g.grantee) not in (select t.relation, t.role from trusted as t)
  union all
  select distinct
    format('%s of %s calls %s, which belongs to %s', c.name, r.name, f.oid::regprocedure, f.proowner::regrole),
    format(
      'alter routine %s owner to %s;', f.oid::regprocedure,
      -- Whom all trust, where it is called for all of them.
      case
        when c.is_shared
          then coalesce((select nspowner::regrole::text from pg_namespace where nspname = 'encryption_rollout'), quote_ident(current_user))
        else r.relowner::regrole::text
      end
    )
  from code as c
  join relation as r on r.oid = c.relation
  join pg_proc as f on f.oid = c.function
  where (r.oid, f.proowner) not in (select t.relation, t.role from trusted as t)
$foreign_code$;

create function encryption_rollout.foreign_code(p_target text)
returns table (finding text, fix text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select f.finding, f.fix
  from encryption_rollout.foreign_code_of(array(
    select relation from encryption_rollout.partition_tree(encryption_rollout.require_target(p_target))
  )) as f
$$;

-- Whatever lets somebody else reach key, plaintext or records, or has it carried out; besides foreign code on the targets.
create function encryption_rollout.breaches()
returns table (finding text, fix text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with
    strange as materialized (select * from encryption_rollout.foreign_objects),
    ours as (
      select c.oid, c.relowner, c.relpersistence, c.relrowsecurity, c.oid::regclass::text as name
      from pg_class as c
      where c.relkind = 'r' and c.relnamespace = 'encryption_rollout'::regnamespace
        and c.oid not in (select f.object from strange as f where f.class = 'pg_class'::regclass)
    )
  select w.finding, w.fix from encryption_rollout.wrong_grants() as w
  union all
  select
    format('%s %s belongs to %s', o.kind, o.name, o.owner::regrole),
    format('alter %s %s owner to %s;', o.kind, o.name, n.nspowner::regrole)
  from encryption_rollout.own_objects as o
  join pg_namespace as n on n.nspname = 'encryption_rollout'
  where o.kind <> 'column'
    and not pg_has_role(o.owner, n.nspowner, 'member')
  union all
  select format('trigger %I of %s is not ours', t.tgname, o.name), format('drop trigger %I on %s;', t.tgname, o.name)
  from ours as o
  join pg_trigger as t on t.tgrelid = o.oid
  where not t.tgisinternal and t.tgfoid <> 'encryption_rollout.refuse_strangers()'::regprocedure
  union all
  select
    format('members of pg_write_all_data may write to %s', o.name),
    format(
      'create or replace trigger refuse_strangers before insert or update or delete or truncate on %1$s execute function encryption_rollout.refuse_strangers(); alter table %1$s enable trigger refuse_strangers;',
      o.name
    )
  from ours as o
  where not exists (
    select from pg_trigger where tgrelid = o.oid and tgname = 'refuse_strangers' and tgenabled in ('O', 'A')
  )
  union all
  select format('rule %I of %s is not ours', w.rulename, w.ev_class::regclass), format('drop rule %I on %s;', w.rulename, w.ev_class::regclass)
  from pg_rewrite as w
  join pg_class as c on c.oid = w.ev_class
  where c.relnamespace = 'encryption_rollout'::regnamespace and w.rulename <> '_RETURN'
    and c.oid not in (select f.object from strange as f where f.class = 'pg_class'::regclass)
  union all
  select f.finding, f.fix from strange as f
  union all
  select
    format('%s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass),
    format('alter table %s no inherit %s;', i.inhrelid::regclass, i.inhparent::regclass)
  from pg_inherits as i
  where exists (select from ours as o where o.oid in (i.inhrelid, i.inhparent))
  union all
  select format('policy %I of %s is not ours', p.polname, o.name), format('drop policy %I on %s;', p.polname, o.name)
  from ours as o
  join pg_policy as p on p.polrelid = o.oid
  union all
  select 'members of pg_read_all_data may read the keys', 'alter table encryption_rollout.key_material enable row level security;'
  from ours as o
  where o.name = 'encryption_rollout.key_material' and not o.relrowsecurity
  union all
  -- The second command takes away what ANALYZE has copied.
  select
    'statistics of the keys may be collected, which copies them into the catalogue and the write-ahead log',
    'alter table encryption_rollout.key_material alter column key set statistics 0, alter column key type bytea;'
  from ours as o
  join pg_attribute as a on a.attrelid = o.oid and a.attname = 'key'
  where o.name = 'encryption_rollout.key_material'
    and (
      a.attstattarget is distinct from 0
      or exists (select from pg_stats where (schemaname, tablename, attname) = ('encryption_rollout', 'key_material', 'key'))
    )
  union all
  select format('publication %I publishes the keys', p.pubname), 'select encryption_rollout.keep_keys(false);'
  from pg_publication_tables as p
  where (p.schemaname, p.tablename) = ('encryption_rollout', 'key_material')
  union all
  select format('logical slot %I streams the keys', s.slot_name), 'select encryption_rollout.keep_keys(false);'
  from pg_replication_slots as s
  join ours as o on o.name = 'encryption_rollout.key_material' and o.relpersistence = 'p'
  where s.slot_type = 'logical' and s.database = current_database()
  union all
  -- Whoever passes a literal of no type, or leaves out an argument, may reach it in place of ours.
  select format('function %s has a name of ours', p.oid::regprocedure), format('drop routine %s;', p.oid::regprocedure)
  from pg_proc as p
  join pg_proc as ours on ours.proname = p.proname and ours.pronamespace = p.pronamespace
  join encryption_rollout.created_functions as f on f.function = ours.oid
  where p.oid not in (select c.function from encryption_rollout.created_functions as c)
    and not pg_has_role(p.proowner, ours.proowner, 'member')
$$;
