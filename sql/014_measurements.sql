-- When Monitor last published what it had measured, so that the next one counts errors from there: none twice, and none
-- lost when calls of it fail or are late.

create table encryption_rollout.measurements (
  target text primary key references encryption_rollout.targets (name),
  measured_at timestamptz not null
);

select encryption_rollout.assign_rights();
