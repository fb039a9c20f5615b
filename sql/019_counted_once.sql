-- Errors are counted by the transactions that wrote them down, not by the clock: a batch, or a write of the application,
-- notes an error seconds or minutes before it commits, and whoever counts up to a moment meanwhile never sees it.

-- Null in rows of before this file, which went by their time. No default is added with the column: that would write every
-- row anew.
alter table public.encryption_errors add column recorded_in xid8;
alter table public.encryption_errors alter column recorded_in set default pg_current_xact_id();
create index encryption_errors_recorded_in on public.encryption_errors (recorded_in);

-- What had been committed when Monitor counted what it published last. Null: it went by the time.
alter table encryption_rollout.measurements add column counted_to pg_snapshot;
