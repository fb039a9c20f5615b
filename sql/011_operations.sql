-- What people do to a run while it is under way: pause, tune, decide. Committed here first, so that every call of every
-- handler finds it, and the report tells who did what.

alter table encryption_rollout.runs
  -- The execution ends after this phase.
  add column until_phase integer not null default 5 check (until_phase between 1 and 5),
  -- On a person's wish no further batch begins.
  add column paused_at timestamptz,
  add column paused_by text,
  add column pause_reason text,
  -- Why no batch begins at the moment, and since when: a pause, a pressure that can ease, a time of the day.
  add column waiting_for text,
  add column waiting_since timestamptz,
  -- In place of the plan's, from the next batch on.
  add column batch_rows integer check (batch_rows between 1 and 50000),
  add column pause_seconds integer check (pause_seconds between 0 and 3600);

-- When the vitals were looked at last: a run under way at which nobody looks is stuck. A table of its own, because a batch
-- holds the run while it works.
create table encryption_rollout.looks (
  run_id uuid primary key references encryption_rollout.runs (id),
  looked_at timestamptz not null
);

-- Questions to a person. The id is what people see and answer; the token of the waiting execution stays in here.
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
  comment text
);
