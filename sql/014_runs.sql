-- What happened, as evidence: runs, their tables, phases, batches, gates, audits, questions and events. Rows here commit
-- together with the work that they describe, so a new execution resumes from them alone. They hold ids, counts and verdicts,
-- never personal data.

create table encryption_rollout.runs (
  id uuid primary key default gen_random_uuid(),
  status text not null default 'ACTIVE' check (status in ('ACTIVE', 'STOPPING', 'STOPPED', 'COMPLETED')),
  -- Fences: only the handlers of the latest attempt may write.
  attempt integer not null default 1,
  execution text not null,
  attestations jsonb not null default '{}',
  started_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  stop_reason text,
  -- What people do to a run while it is under way: pause, tune, decide. Committed here first, so that every call of every
  -- handler finds it, and the report tells who did what.
  -- The execution ends after this phase.
  until_phase integer not null default 5 check (until_phase between 1 and 5),
  -- On a person's wish no further batch begins.
  paused_at timestamptz,
  paused_by text,
  pause_reason text,
  -- Why no batch begins at the moment, and since when: a pause, a pressure that can ease, a time of the day.
  waiting_for text,
  waiting_since timestamptz,
  -- In place of the plan's, from the next batch on.
  batch_rows integer check (batch_rows between 1 and 50000),
  pause_seconds integer check (pause_seconds between 0 and 3600),
  -- The adaptive pace as it is wanted, {share, batchMilliseconds, writers}; null: the plan's pace.
  pace jsonb
);

-- One active run per database, and so per table, enforced here rather than by any caller.
create unique index runs_one_active on encryption_rollout.runs ((true))
where
  status in ('ACTIVE', 'STOPPING');

-- The tables of a run. One that was added to the settings since the last attempt joins with the next.
create table encryption_rollout.run_targets (
  run_id uuid not null references encryption_rollout.runs (id),
  target text not null references encryption_rollout.targets (name) on update cascade on delete cascade,
  -- The latest that includes the table, and the first.
  attempt integer not null,
  joined integer not null default 1,
  -- encrypt: the run switches the trigger on itself, and its rollback off. rotate, verify: an earlier run has completed the
  -- table, the trigger is on and stays on; rows move from one key to the next, or need nothing.
  purpose text not null default 'encrypt' check (purpose in ('encrypt', 'rotate', 'verify')),
  -- The first phase that has work to do for the table in that attempt.
  resume_at integer not null default 1 check (resume_at between 1 and 5),
  -- As counted when that attempt began; null until then.
  rows_with_pii bigint,
  rows_encrypted bigint,
  completed_at timestamptz,
  primary key (run_id, target)
);

create table encryption_rollout.phases (
  run_id uuid not null,
  target text not null,
  number integer not null check (number between 1 and 5),
  -- A resumed phase begins again: its window, its counts and its error rate are those of the latest attempt.
  attempt integer not null,
  started_at timestamptz not null default clock_timestamp(),
  -- Its work is done in this attempt: its batches', or the trigger is on and was tested. Null again when its gate has found more.
  worked_at timestamptz,
  -- It has been watched until the end of its soak.
  soaked_at timestamptz,
  passed_at timestamptz,
  -- Counted by one scan at the start, carried forward by the batches, set right by one scan when the aim is reached:
  -- progress is never re-counted after a batch.
  rows_with_pii bigint not null,
  rows_encrypted_now bigint not null,
  rows_attempted bigint not null default 0,
  rows_failed bigint not null default 0,
  -- By this phase, in all attempts.
  rows_encrypted bigint not null default 0,
  -- The last lap whose end was noticed; since which one, and when, the rows that are left have not become fewer.
  lap bigint,
  rows_left bigint,
  left_lap bigint,
  left_at timestamptz,
  -- Of several writers on the table those whose latest lap found nothing. When it is all of them, they are done or begin anew.
  exhausted_slices integer[] not null default '{}',
  primary key (run_id, target, number),
  foreign key (run_id, target) references encryption_rollout.run_targets (run_id, target) on update cascade on delete cascade
);

create table encryption_rollout.batches (
  run_id uuid not null references encryption_rollout.runs (id),
  -- <execution>/<batch>: a request that is delivered twice finds its result here, and never another table's.
  request text not null,
  target text not null,
  phase integer not null,
  rows_encrypted integer not null,
  rows_failed integer not null,
  rows_skipped integer not null,
  exhausted boolean not null,
  started_at timestamptz not null,
  milliseconds double precision not null,
  primary key (run_id, target, request)
);

create table encryption_rollout.gates (
  id bigint generated always as identity primary key,
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  gate text not null,
  phase integer,
  verdict text not null check (verdict in ('GO', 'NO_GO', 'INCONCLUSIVE')),
  reason text not null,
  -- Each names its table.
  criteria jsonb not null,
  judged_at timestamptz not null default clock_timestamp()
);
create index gates_run_id on encryption_rollout.gates (run_id, id);

-- Questions to a person: one for each execution of the machine Hold, however often its first step is delivered. The id is
-- what people see and answer; the token of the waiting execution stays in here.
create table encryption_rollout.holds (
  id text primary key,
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  gate text not null,
  phase integer,
  -- What was measured, in one sentence, and the names of the criteria that nothing is known about.
  reason text not null,
  unknown text[] not null,
  asked_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  task_token text,
  decision text check (decision in ('go', 'no-go', 'retry', 'expired')),
  decided_at timestamptz,
  decided_by text,
  comment text,
  execution text unique
);
create index holds_gate on encryption_rollout.holds (run_id, attempt, gate);

-- The final audit's durable cursors, one for each range of a table's keys: several may be walked side by side.
create table encryption_rollout.audits (
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  target text not null,
  -- From 0 on, in the order of the keys.
  slice integer not null default 0 check (slice >= 0),
  -- Of the last row that was verified, or the last before the range, the texts of its key's columns; null before the first.
  after_key text[],
  -- Of the last row of the range; null when it goes on to the end.
  until_key text[],
  rows_verified bigint not null default 0,
  -- Transactions from this one on may have been under way when it began, or come later: see settled_sql.
  since xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
  -- Of the verified rows those that had been written before.
  settled_rows_verified bigint not null default 0,
  rows_mismatched bigint not null default 0,
  finished boolean not null default false,
  primary key (run_id, attempt, target, slice)
);

create table encryption_rollout.events (
  id bigint generated always as identity primary key,
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  -- Null when it is about all of them.
  target text,
  happened_at timestamptz not null default clock_timestamp(),
  event text not null,
  detail jsonb not null default '{}'
);
create index events_run_id on encryption_rollout.events (run_id, id);

-- When the vitals were polled last: a run under way whose vitals nobody polls is stuck. A table of its own, because a batch
-- holds the run while it works.
create table encryption_rollout.polls (
  run_id uuid primary key references encryption_rollout.runs (id),
  polled_at timestamptz not null,
  -- What they say to the adaptive pace: 0 = idle, 1 = where a pressure pauses the batches, and of what that is the value.
  utilization double precision not null default 0,
  limited_by text not null default ''
);

-- The adaptive pace of each writer of a table, carried from one batch to the next. See core/pressure/pace.ts.
create table encryption_rollout.paces (
  run_id uuid not null,
  target text not null,
  slice integer not null,
  batch_rows integer not null,
  share double precision not null,
  milliseconds_per_row double precision,
  active_sessions double precision not null,
  active_writers double precision not null,
  utilization double precision not null,
  limited_by text not null,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (run_id, target, slice),
  foreign key (run_id, target) references encryption_rollout.run_targets (run_id, target) on update cascade on delete cascade
);

-- Who works on a table, each on its slice, locks its row until the transaction ends: of two deliveries of one request the
-- second finds that the first has it.
create table encryption_rollout.writers (
  target text not null references encryption_rollout.targets (name) on update cascade on delete cascade,
  slice integer not null,
  primary key (target, slice)
);
