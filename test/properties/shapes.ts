/** The two tables of the model, made anew for every run. */
import type pg from 'pg';
import { poison } from './actions.ts';

export interface Shape {
  readonly table: string;
  readonly key: readonly string[];
  /** First part of the key, by which rows lie in partitions; none = one table, and a key of one column. */
  readonly parts: readonly string[];
}

/** The second is partitioned, on two levels. Its rows' keys have two columns, and texts that want care when they are joined. */
export const shapes: readonly Shape[] = [
  { table: 'appointments', key: ['id'], parts: [] },
  { table: 'visits', key: ['region', 'id'], parts: ['north', 'so,uth', 'e\\st'] },
];

const columns = 'id uuid not null, email text, e164 text, first_name text, remark text, note text';

/** Takes out whatever an earlier run has left, and makes and registers the tables; the fault is off. */
export async function createTables(client: pg.ClientBase): Promise<void> {
  await client.query(
    `select encryption_rollout.remove_target(name) from encryption_rollout.targets;
     truncate encryption_rollout.errors;
     drop schema if exists app, "app.2" cascade;
     create schema app;
     create schema "app.2";
     create domain app.words as text;
     create table app.appointments (${columns}, is_vip boolean not null default false, primary key (id));
     create table app.visits (region text not null, ${columns}, primary key (region, id)) partition by list (region);
     create table app.part_0 partition of app.visits for values in ('north');
     create table app.part_1 partition of app.visits for values in ('so,uth');
     create table app.part_2 partition of app.visits for values in (E'e\\\\st') partition by hash (id);
     create table app.part_2a partition of app.part_2 for values with (modulus 2, remainder 0);
     create table app.part_2b partition of app.part_2 for values with (modulus 2, remainder 1);
     create table app.faults (poison boolean not null);
     insert into app.faults values (false);
     create function app.poison() returns trigger language plpgsql as $$
     begin
       if current_setting('application_name') = 'batches' and (select f.poison from app.faults f) then
         raise exception 'no';
       end if;
       return new;
     end $$`,
  );
  for (const { table, key, parts } of shapes) {
    await client.query(
      `create trigger poison before update on app.${table} for each row
       when (new.first_name = '${poison}') execute function app.poison()`,
    );
    await client.query('select encryption_rollout.register_target($1)', [
      {
        schema: 'app',
        table,
        key,
        columns: ['email', 'e164', 'first_name'],
        trigger: `encrypt_${table}`,
        ...(parts.length === 0 && { priority: 'is_vip' }),
      },
    ]);
  }
}
