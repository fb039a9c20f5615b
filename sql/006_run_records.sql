-- What happened, as evidence: runs, phases, batches, gates, audits and events. Rows here commit together with the work
-- that they describe, so a new execution resumes from them alone. They hold ids, counts and verdicts, never personal data.

create table encryption_rollout.runs (
  id uuid primary key default gen_random_uuid(),
  target text not null references encryption_rollout.targets (name),
  status text not null default 'ACTIVE' check (status in ('ACTIVE', 'STOPPING', 'STOPPED', 'COMPLETED')),
  -- Fences: only the handlers of the latest attempt may write.
  attempt integer not null default 1,
  execution text not null,
  -- rotate: the trigger is on and stays on, rows move from one key to the next.
  purpose text not null default 'encrypt' check (purpose in ('encrypt', 'rotate')),
  attestations jsonb not null default '{}',
  started_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  stop_reason text
);

-- One active run per table, enforced here rather than by any caller.
create unique index runs_one_active on encryption_rollout.runs (target)
where
  status in ('ACTIVE', 'STOPPING');

create table encryption_rollout.phases (
  run_id uuid not null references encryption_rollout.runs (id),
  number integer not null check (number between 1 and 5),
  -- A resumed phase begins again: its window, its counts and its error rate are those of the latest attempt.
  attempt integer not null,
  started_at timestamptz not null default clock_timestamp(),
  -- Since when no work is left in this attempt.
  worked_at timestamptz,
  passed_at timestamptz,
  -- Counted by one scan at the start, carried forward by the batches, set right by one scan when the aim is reached:
  -- progress is never re-counted after a batch.
  rows_with_pii bigint not null,
  rows_encrypted_now bigint not null,
  rows_attempted bigint not null default 0,
  rows_failed bigint not null default 0,
  -- By this phase, in all attempts.
  rows_encrypted bigint not null default 0,
  primary key (run_id, number)
);

create table encryption_rollout.batches (
  run_id uuid not null references encryption_rollout.runs (id),
  -- <execution>/<batch>: a request that is delivered twice finds its result here.
  request text not null,
  phase integer not null,
  rows_encrypted integer not null,
  rows_failed integer not null,
  rows_skipped integer not null,
  exhausted boolean not null,
  started_at timestamptz not null,
  milliseconds double precision not null,
  primary key (run_id, request)
);

create table encryption_rollout.gates (
  id bigint generated always as identity primary key,
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  gate text not null,
  phase integer,
  verdict text not null check (verdict in ('GO', 'NO_GO', 'INCONCLUSIVE')),
  reason text not null,
  criteria jsonb not null,
  judged_at timestamptz not null default clock_timestamp()
);

-- The final audit's durable cursor.
create table encryption_rollout.audits (
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  after_key text,
  rows_verified bigint not null default 0,
  rows_mismatched bigint not null default 0,
  finished boolean not null default false,
  primary key (run_id, attempt)
);

create table encryption_rollout.events (
  id bigint generated always as identity primary key,
  run_id uuid not null references encryption_rollout.runs (id),
  attempt integer not null,
  happened_at timestamptz not null default clock_timestamp(),
  event text not null,
  detail jsonb not null default '{}'
);
