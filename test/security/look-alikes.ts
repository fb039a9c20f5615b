/** Functions, operators and types that PostgreSQL may mistake for its own, each of which leaves a trace that no rollback removes. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';

/** Which of them somebody has called with a superuser's rights, and what ends the watch. */
export interface Trap {
  called(): string[];
  forget(): void;
  remove(): void;
}

/**
 * In schema evil: every function and operator of PostgreSQL that can be had with the same arguments; of those that take any type,
 * or that are found by a conversion only (`oid = regclass`), one that fits better; and some types.
 */
export async function layTrap(client: pg.ClientBase): Promise<Trap> {
  const directory = mkdtempSync(join(tmpdir(), 'look-alikes-'));
  // PostgreSQL runs as another user where this is root.
  chmodSync(directory, 0o777);
  const trace = join(directory, 'called');
  await client.query(lookAlikes(trace));
  return {
    called: () => (existsSync(trace) ? readFileSync(trace, 'utf8').trim().split('\n') : []),
    forget: () => rmSync(trace, { force: true }),
    remove: () => rmSync(directory, { recursive: true }),
  };
}

/** First in everybody's search_path, from the next connection on. */
export async function leadIntoTrap(client: pg.ClientBase): Promise<void> {
  await client.query(
    `do $$ begin execute format('alter database %I set search_path = evil, pg_catalog, public', current_database()); end $$`,
  );
}

const types = [
  ...[
    'oid',
    'regclass',
    'regproc',
    'regtype',
    'regrole',
    'regnamespace',
    'name',
    'text',
    '"char"',
    'int2',
    'int4',
    'int8',
  ],
  ...[
    'numeric',
    'float8',
    'bool',
    'bytea',
    'uuid',
    'tid',
    'timestamptz',
    'interval',
    'jsonb',
    'text[]',
    'name[]',
    'oid[]',
  ],
  ...['int2[]', 'oidvector', 'int2vector'],
];
const comparing = ['=', '<>', '<', '>', '<=', '>=', '~', '!~', '@>', '&&'];
const computing = ['||', '+', '-', '*', '/', '->', '->>'];

const list = (names: readonly string[]) => `array[${names.map((name) => `'${name}'`).join(', ')}]`;

const lookAlikes = (trace: string) => `
  create schema evil;
  create function evil.called(text) returns void language plpgsql set search_path = pg_catalog as $$
    begin
      -- What it writes stays, whatever becomes of the transaction, and although that may be read-only.
      execute format('copy (select %L) to program %L', $1, 'cat >> ${trace}');
      raise exception 'hijacked by %', $1;
    end $$;
  do $do$
  declare
    v record;
  begin
    for v in
      select p.proname as name, array_to_string(array(select format_type(type, null) from unnest(p.proargtypes) as type), ', ') as arguments,
        format_type(p.prorettype, null) as result, p.proretset
      from pg_proc as p
      where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
        and not exists (select from pg_type t where t.oid = any (p.proargtypes::oid[] || p.prorettype) and t.typtype = 'p')
      union
      -- Of the polymorphic ones, for the types that the engine uses: an exact match is preferred to them.
      select p.proname, replace(array_to_string(array(
          select format_type(type, null) from unnest(p.proargtypes) as type), ', '), 'anyarray', element || '[]'),
        case format_type(p.prorettype, null) when 'anyelement' then element when 'anyarray' then element || '[]' else format_type(p.prorettype, null) end,
        p.proretset
      from pg_proc as p, unnest(array['text', 'bytea', 'tid', 'integer', 'oid', 'name']) as element
      where p.proname in ('cardinality', 'unnest', 'array_to_json', 'array_length', 'array_append', 'array_to_string', 'array_position', 'array_upper')
        and not exists (select from unnest(p.proargtypes) as type where format_type(type, null) ~ 'compatible|anyelement')
      union
      select name, type, 'text', false
      from unnest(array['quote_literal', 'quote_nullable', 'to_json', 'to_jsonb', 'concat', 'format_type', 'quote_ident', 'count', 'array_agg', 'json_agg', 'to_regclass', 'lower', 'length']) as name,
        unnest(${list(types)}) as type
      union
      select name, 'text, ' || type, 'text', false from unnest(array['format', 'concat', 'concat_ws', 'json_build_object', 'jsonb_build_object', 'string_agg']) as name, unnest(${list(types)}) as type
      union
      select 'format', array_to_string(array_fill('text'::text, array[n]), ', '), 'text', false from generate_series(2, 6) as n
    loop
      begin
        execute format(
          'create function evil.%I(%s) returns %s %s language plpgsql as %L',
          v.name, v.arguments, case when v.proretset then 'setof' end, v.result,
          format('begin perform evil.called(%L); end', v.name || '(' || v.arguments || ')')
        );
      -- The same arguments under two names of their types.
      exception when duplicate_function then null;
      end;
    end loop;
    for v in
      select row_number() over () as n, oprname as name, format_type(oprleft, null) as l, format_type(oprright, null) as r, format_type(oprresult, null) as result
      from pg_operator as o
      where oprnamespace = 'pg_catalog'::regnamespace and oprleft <> 0
        and not exists (select from pg_type t where t.oid in (oprleft, oprright, oprresult) and t.typtype = 'p')
      union all
      select 10000 + row_number() over (), o.name, l, r, o.result
      from unnest(${list(types)}) as l, unnest(${list(types)}) as r,
        (select name, 'boolean' as result from unnest(${list(comparing)}) as name union all select name, 'text' from unnest(${list(computing)}) as name) as o
      where not exists (
        select from pg_operator where oprnamespace = 'pg_catalog'::regnamespace and oprname = o.name and oprleft = l::regtype and oprright = r::regtype)
    loop
      execute format(
        'create function evil.hijack_%s(%s, %s) returns %s language plpgsql as %L',
        v.n, v.l, v.r, v.result, format('begin perform evil.called(%L); end', v.l || ' ' || v.name || ' ' || v.r)
      );
      execute format(
        'create operator evil.%s (leftarg = %s, rightarg = %s, function = evil.hijack_%s)', v.name, v.l, v.r, v.n);
    end loop;
    for v in select unnest(array['text', 'bytea', 'int8', 'tid', 'uuid', 'regclass', 'name', 'oid', 'regtype', 'regnamespace']) as name loop
      execute format('create domain evil.%I as integer check (value is null)', v.name);
    end loop;
  end
  $do$`;
